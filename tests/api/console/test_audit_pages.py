"""The audit page shows the events, whether they are still as written, and their proofs."""

import csv
import html
import io
import re
import subprocess
import sys
import threading
from base64 import b64encode

import orjson
import pytest

from api.jobs.integrity_check import check_ledger
from domain.errors import HistoryInDoubt
from projections.store.locks import task_lock
from tests.api.checkpoints import sign_a_checkpoint
from tests.api.console.visits import Visit, form_in, forms_in, words_in
from tests.api.served import Api, Key
from tests.raw_sql import appends_locked, sql
from tests.system.processes import eventually

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

AUDIT = "/console/audit"
VERIFYING = "attestation on request"


@pytest.fixture
def admin(api: Api) -> Key:
    return api.admin()


@pytest.fixture
def visit(api: Api, admin: Key) -> Visit:
    return Visit.signed_in(api, admin)


@pytest.fixture
def root(api: Api) -> Visit:
    return Visit.signed_in(api, api.root)


def happened(visit: Visit, query: str = "") -> list[str]:
    page = visit.get(f"{AUDIT}{query}")
    assert page.status_code == 200, page.text
    return re.findall(r'class="cell-name"><strong[^>]*>([^<]*)</strong>', page.text)


def entries_in(visit: Visit, query: str = "") -> list[int]:
    page = visit.get(f"{AUDIT}{query}")
    return [int(each) for each in re.findall(r'/console/audit/entries/(\d+)[?"]', page.text)]


def entry_of(api: Api, key: Key) -> int:
    """Return the leaf index of a key's newest event."""
    answer = api.get("/v1/events", params={"workspace": "*", "key_id": key.key_id})
    index: int = answer.json()["data"][-1]["leaf_index"]
    return index


class TestTheFeed:
    def test_it_shows_events_newest_first(self, api: Api, admin: Key, visit: Visit) -> None:
        key = api.make("mcp:read", name="gateway", by=admin)
        api.post(f"{key.path}/revoke", by=admin, json={"reason": "leaked"})
        api.make(workspace="other", name="not to be seen")
        page = visit.get(AUDIT)
        assert happened(visit) == ["Revoked", "Created", "Created"]
        assert "“leaked”" in words_in(page)
        assert "gateway" in page.text
        assert "not to be seen" not in page.text
        assert 'href="/console/audit"' in page.text

    def test_filters_narrow_it(self, api: Api, admin: Key) -> None:
        api.clock.advance(hours=2)
        again = Visit.signed_in(api, admin)
        key = api.make("mcp:read", by=admin)
        api.patch(key.path, by=admin, json={"name": "renamed"})
        assert happened(again, "?type=ApiKey.Renamed&key=&actor=&from=&until=") == ["Renamed"]
        assert happened(again, f"?key=%20{key.key_id}") == ["Renamed", "Created"]
        assert happened(again, f"?actor={admin.key_id}") == ["Renamed", "Created"]
        assert happened(again, f"?actor={api.root.key_id}") == ["Created"]
        assert happened(again, "?from=2026-03-03T13:00") == ["Renamed", "Created"]
        assert happened(again, "?until=2026-03-03T13:00Z") == ["Created"]
        assert happened(again, "?type=ApiKey.Revoked") == []
        assert "No event matches" in words_in(again.get(f"{AUDIT}?type=ApiKey.Revoked"))

    @pytest.mark.parametrize(
        ("query", "said"),
        [
            ("type=nothing", "one of ApiKey.Created"),
            ("key=nothing", "nothing"),
            ("from=yesterday", "Give a date and a time"),
            ("until=9999-12-31T23:59-01:00", "Give a date and a time"),
            ("actor=%00", "U+0000"),
        ],
    )
    def test_a_wrong_filter_is_shown_at_its_field_and_the_others_are_kept(
        self, query: str, said: str, admin: Key, visit: Visit
    ) -> None:
        field = query.partition("=")[0]
        kept = "key" if field == "actor" else "actor"
        page = visit.get(f"{AUDIT}?{kept}={admin.key_id}&{query}")
        assert page.status_code == 422
        shown = re.search(rf'id="{field}-wrong">([^<]*)<', page.text)
        assert shown is not None
        assert said in html.unescape(shown[1])
        assert page.text.count("aria-invalid") == 1
        assert f'name="{kept}" value="{admin.key_id}"' in page.text
        assert "Integrity of the log" in words_in(page)

    @pytest.mark.parametrize("query", ["cursor=nothing", "nothing=1", "back=x"])
    def test_errors_in_the_address_are_reported(self, query: str, visit: Visit) -> None:
        page = visit.get(f"{AUDIT}?{query}")
        assert page.status_code == 422
        assert f"{query.partition('=')[0]}:" in words_in(page)

    def test_it_has_pages(self, api: Api, admin: Key, visit: Visit) -> None:
        made = [entry_of(api, admin)]
        made += [entry_of(api, api.make("mcp:read", by=admin)) for _ in range(60)]
        seen: list[int] = []
        where: str | None = "?type=ApiKey.Created"
        while where is not None:
            seen += entries_in(visit, where)
            page = visit.get(f"{AUDIT}{where}")
            older = re.search(r'rel="next" href="/console/audit([^"]*)"', page.text)
            where = html.unescape(older[1]) if older else None
            if where is not None:
                cursor = where
        assert seen == made[::-1]
        wrong = cursor.replace("Created", "Revoked")
        assert visit.get(f"{AUDIT}{wrong}").status_code == 422

    def test_it_is_shown_to_who_may_see_it_alone(self, api: Api) -> None:
        visit = Visit.signed_in(api, api.make("api-keys:read"))
        assert f'href="{AUDIT}"' not in visit.get("/console/keys").text
        auditor = Visit.signed_in(api, api.make("audit:read", name="auditor"))
        page = auditor.follow(auditor.get("/console"))
        assert "auditor" in page.text
        # No links to pages that they may not see.
        assert 'href="/console/keys/' not in page.text

    def test_a_damaged_entry_is_marked_and_the_page_is_still_shown(
        self, api: Api, admin: Key, visit: Visit
    ) -> None:
        address, index = api.address, entry_of(api, admin)
        for damage in (b"no json", b"[]", b'{"key_id": "x"}', b"\xff"):
            sql(address, "UPDATE entries SET entry = ? WHERE leaf_index = ?", damage, index)
            assert happened(visit) == ["This entry is damaged"]
            page = visit.get(f"{AUDIT}/entries/{index}")
            assert page.status_code == 200, page.text
            assert "This entry was changed" in words_in(page)


class TestExports:
    def test_they_have_all_that_fits_in_the_forms_of_the_http_api(
        self, api: Api, admin: Key, visit: Visit
    ) -> None:
        for number in range(60):
            api.make("mcp:read", name=f"key {number}", by=admin)
        api.make(workspace="other")
        for name, accept in (("csv", "text/csv"), ("ndjson", "application/x-ndjson")):
            query = f"?actor={admin.key_id}"
            link = f'href="{AUDIT}/events.{name}{query}" download'
            assert link in visit.get(f"{AUDIT}{query}").text
            given = visit.get(f"{AUDIT}/events.{name}{query}")
            asked = api.get(f"/v1/events{query}", by=admin, headers={"Accept": accept})
            assert given.content == asked.content
            assert given.headers["Content-Type"] == asked.headers["Content-Type"]
            assert given.headers["Content-Disposition"] == (f'attachment; filename="events.{name}"')
        everything = visit.get(f"{AUDIT}/events.csv").text
        assert len(list(csv.reader(io.StringIO(everything)))) == 1 + 61

    def test_the_checkpoint_is_the_signed_note(self, api: Api, visit: Visit) -> None:
        sign_a_checkpoint(api)
        given = visit.get(f"{AUDIT}/checkpoint.txt")
        assert given.text == api.get("/v1/checkpoint").text
        assert given.headers["Content-Disposition"].startswith("attachment")


class TestWhetherItIsGenuine:
    @pytest.fixture(autouse=True)
    def _signed(self, api: Api, admin: Key) -> None:  # noqa: ARG002 - its making is an entry
        sign_a_checkpoint(api)

    def test_before_the_first_integrity_check(self, api: Api, visit: Visit) -> None:
        words = words_in(visit.get(AUDIT))
        assert "Not checked yet" in words
        checkpoint = sign_a_checkpoint(api)
        assert checkpoint.root.hex() in words
        assert str(api.app.state.ledger.signer.key.verifier_key) in words

    def test_a_sound_ledger_has_an_empty_report(self, api: Api, admin: Key, visit: Visit) -> None:
        check_ledger(api.app.state.ledger)
        words = words_in(visit.get(AUDIT))
        assert "No tampering found" in words
        assert "2 entries, 2 keys" in words
        assert "Not checked 1" not in words
        api.make("mcp:read", by=admin)
        assert "Not checked 1 new entry" in words_in(visit.get(AUDIT))

    def test_findings_are_listed_for_root_and_counted_for_others(
        self, api: Api, visit: Visit, root: Visit
    ) -> None:
        address = api.address
        sql(address, "UPDATE auth_lookup SET name = 'hacked' WHERE name = 'root'")
        (finding,) = check_ledger(api.app.state.ledger).findings
        page = root.get(AUDIT)
        words = html.unescape(words_in(page))
        assert "1 problem found" in words
        assert finding.wrong in words
        assert finding.remedy in words
        others = html.unescape(words_in(visit.get(AUDIT)))
        assert "1 problem found" in others
        assert "hacked" not in others
        assert "A key of the workspace root" in others

    def test_in_doubt_it_says_that_changes_are_refused_and_what_to_do(
        self, api: Api, admin: Key, visit: Visit
    ) -> None:
        check_ledger(api.app.state.ledger)
        ledger = api.app.state.ledger
        index = entry_of(api, admin)
        sql(ledger.database.url, "UPDATE entries SET hashes = zeroblob(length(hashes))")
        with pytest.raises(HistoryInDoubt) as doubt:
            ledger.signer.check_log()
        page = visit.get(AUDIT)
        assert page.status_code == 200
        words = html.unescape(words_in(page))
        assert "Changes are refused" in words
        assert "In doubt" in words
        assert "No tampering found" not in words
        assert str(doubt.value) in words
        assert "keyledger audit verify" in words
        assert "This entry was changed" in words_in(visit.get(f"{AUDIT}/entries/{index}"))

    def test_root_verifies_now(self, root: Visit) -> None:
        page = root.get(AUDIT)
        form = form_in(page, "/audit/verify")
        answer = root.follow(root.post(form.action, form.fields))
        assert answer.status_code == 200

        def is_told() -> bool:
            return "The integrity check has finished" in words_in(root.get(AUDIT))

        eventually(is_told, "the verification has ended")
        assert "No tampering found" in words_in(root.get(AUDIT))
        assert "data-poll" not in root.get(AUDIT).text

    def test_how_far_it_is_is_shown_and_a_second_one_is_not_begun(
        self, api: Api, root: Visit
    ) -> None:
        form = form_in(root.get(AUDIT), "/audit/verify")
        # The comparison of the projections waits for the writer.
        with appends_locked(api.address):
            for _ in range(2):
                root.post(form.action, form.fields)
            eventually(
                lambda: "signed checkpoints" in words_in(root.get(AUDIT)),
                "it has come to where it waits",
            )
            page = root.get(AUDIT)
            shown = re.search(r'<progress id="verifying" max="100" value="(\d+)">', page.text)
            assert shown
            assert 0 < int(shown[1]) < 100
            assert "disabled>Check now" in page.text
            running = [each for each in threading.enumerate() if each.name == VERIFYING]
            assert len(running) == 1
        running[0].join()
        assert "No tampering found" in words_in(root.get(AUDIT))

    def test_one_at_a_time_whichever_process_it_is(self, api: Api, root: Visit) -> None:
        with task_lock(api.app.state.ledger.database, "attestation"):
            page = root.get(AUDIT)
            assert "An integrity check is running on the server" in words_in(page)
            assert "data-poll" in page.text
            assert '<meta http-equiv="refresh"' in page.text
            form = form_in(page, "/audit/verify")
            root.post(form.action, form.fields)
            eventually(
                lambda: all(each.name != VERIFYING for each in threading.enumerate()),
                "the second one has given up",
            )
        assert "another check was running" in html.unescape(words_in(root.get(AUDIT)))
        assert "Not checked yet" in words_in(root.get(AUDIT))

    def test_nobody_else_is_offered_to(self, visit: Visit) -> None:
        page = visit.get(AUDIT)
        assert not [form for form in forms_in(page) if form.action.endswith("/verify")]


class TestAProof:
    @pytest.fixture
    def keys(self, api: Api, admin: Key) -> list[Key]:
        return [api.make("mcp:read", name=f"ключ '{number}\"\\", by=admin) for number in range(9)]

    def test_the_timeline_leads_to_it(self, api: Api, keys: list[Key], visit: Visit) -> None:
        index = entry_of(api, keys[3])
        page = visit.get(f"/console/keys/{keys[3].key_id}")
        assert f'href="{AUDIT}/entries/{index}">Entry {index} in the log' in page.text
        reader = Visit.signed_in(api, api.make("api-keys:read"))
        page = reader.get(f"/console/keys/{keys[3].key_id}")
        assert f"Entry {index} in the log" in words_in(page)
        assert f"{AUDIT}/entries" not in page.text

    def test_it_leads_from_the_entry_to_the_checkpoint(
        self, api: Api, keys: list[Key], visit: Visit
    ) -> None:
        checkpoint = sign_a_checkpoint(api)
        for key in keys:
            index = entry_of(api, key)
            page = visit.get(f"{AUDIT}/entries/{index}")
            words = html.unescape(words_in(page))
            proof = api.get("/v1/proofs/inclusion", params={"leaf_index": index}).json()
            assert len(re.findall(r"Step \d+:", words)) == len(proof["hashes"])
            assert "The signed checkpoint of 11 entries covers this entry" in words
            assert f"The same as the fingerprint of the checkpoint {checkpoint.root.hex()}" in words
            line = re.search(r"Entry, byte for byte (\{.*?\}) Copy", words)
            assert line
            assert orjson.loads(line[1])["key_id"] == key.key_id

    def test_the_program_on_the_page_computes_the_same_root(
        self, api: Api, keys: list[Key], visit: Visit
    ) -> None:
        checkpoint = sign_a_checkpoint(api)
        page = visit.get(f"{AUDIT}/entries/{entry_of(api, keys[-1])}")
        found = re.search(r'id="script">(.*?)</code>', page.text, re.DOTALL)
        assert found
        program = [sys.executable, "-I", "-c", html.unescape(found[1])]
        printed = subprocess.run(program, capture_output=True, text=True, check=True).stdout
        assert printed.split() == [checkpoint.root.hex(), b64encode(checkpoint.root).decode()]

    def test_changed_entries_are_not_proved(self, api: Api, keys: list[Key], visit: Visit) -> None:
        sign_a_checkpoint(api)
        index = entry_of(api, keys[4])
        sql(
            api.address,
            "UPDATE entries SET entry = CAST(replace(entry, 'mcp:read', 'mcp:rexd') AS BLOB)"
            " WHERE leaf_index = ?",
            index,
        )
        words = words_in(visit.get(f"{AUDIT}/entries/{index}"))
        assert "This entry was changed" in words
        assert "Not the same" in words

    def test_an_entry_of_another_workspace_does_not_exist(
        self, api: Api, visit: Visit, root: Visit
    ) -> None:
        theirs = entry_of(api, api.make(workspace="other"))
        absent = visit.get(f"{AUDIT}/entries/{theirs}")
        assert absent.status_code == 404
        never = visit.get(f"{AUDIT}/entries/{theirs + 1000}")
        assert never.status_code == 404
        said = {
            words_in(each).replace(each.headers["X-Request-Id"], "") for each in (absent, never)
        }
        assert len(said) == 1
        assert root.get(f"{AUDIT}/entries/{theirs}?workspace=other").status_code == 200
        assert visit.get(f"{AUDIT}/entries/nothing").status_code == 422
