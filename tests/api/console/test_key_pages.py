"""Console pages list, show and change keys by the same rules as the HTTP API."""

import re

import pytest
from httpx2 import Response

from tests.api.console.visits import Visit, form_in, forms_in, shown_token, words_in
from tests.api.served import Api, Key

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

SCRIPT = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.fixture
def admin(api: Api) -> Key:
    return api.admin()


@pytest.fixture
def visit(api: Api, admin: Key) -> Visit:
    return Visit.signed_in(api, admin)


def names_in(visit: Visit, query: str = "") -> list[str]:
    page = visit.get(f"/console/keys{query}")
    assert page.status_code == 200, page.text
    return names_in_page(page)


def names_in_page(page: Response) -> list[str]:
    return re.findall(r'class="cell-name"><a href="[^"]*">([^<]*)</a>', page.text)


def newest(api: Api, admin: Key) -> Key:
    document = api.get("/v1/keys", by=admin).json()["data"][0]
    return Key(document["key_id"], "", document)


class TestTheList:
    def test_it_shows_all_fields_of_each_key(self, api: Api, admin: Key, visit: Visit) -> None:
        key = api.make("mcp:read", "a:b", expires_at="2026-03-15T12:00:00Z")
        page = visit.get("/console/keys")
        words = words_in(page)
        for said in (
            "Keep your API keys secure and rotate them regularly",
            f"payments-api {key.document['prefix']}",
            "mcp:read",
            "a:b",
            "3 Mar 2026",
            "15 Mar 2026 in 12 days",
            "Never",
            "Active",
            "Full access",
        ):
            assert said in words
        assert '<time datetime="2026-03-03T12:00:00Z" title="2026-03-03 12:00:00 UTC"' in page.text
        assert 'href="/console/keys/new"' in page.text
        assert admin.token not in page.text

    def test_an_empty_one_says_what_to_do(self, api: Api) -> None:
        visit = Visit.signed_in(api, api.root)
        page = visit.get("/console/keys?workspace=fresh")
        assert "No API keys yet" in words_in(page)
        assert page.text.count('href="/console/keys/new?workspace=fresh"') == 2
        assert "No key matches" in words_in(visit.get("/console/keys?workspace=fresh&q=x"))

    def test_filters_narrow_it(self, api: Api, visit: Visit) -> None:
        api.make("mcp:read", name="soon", expires_at="2026-03-08T12:00:00Z")
        api.make("b:c", name="later", expires_at="2026-05-15T12:00:00Z")
        api.make("mcp:*", name="never")
        api.revoke(api.make("b:c", name="revoked"))
        assert names_in(visit) == ["revoked", "never", "later", "soon", "admin"]
        assert names_in(visit, "?status=revoked&q=&scope=") == ["revoked"]
        assert names_in(visit, "?q=EVE") == ["never"]
        assert names_in(visit, "?scope=mcp:read") == ["never", "soon", "admin"]
        assert names_in(visit, "?expires=7") == ["soon"]
        assert names_in(visit, "?expires=90") == ["later", "soon"]
        assert names_in(visit, "?unused=never") == ["revoked", "never", "later", "soon", "admin"]
        api.clock.advance(days=31)
        again = Visit.signed_in(api, api.root)
        assert "soon" in names_in(again, "?workspace=acme&unused=30")
        assert names_in(again, "?workspace=acme&status=expired") == ["soon"]

    def test_it_is_sorted_by_its_columns(self, api: Api, visit: Visit) -> None:
        api.make(name="Beta", expires_at="2026-05-15T12:00:00Z")
        api.clock.advance(minutes=1)
        api.make(name="alpha", expires_at="2026-06-15T12:00:00Z")
        assert names_in(visit, "?sort=name") == ["admin", "alpha", "Beta"]
        assert names_in(visit, "?sort=-name") == ["Beta", "alpha", "admin"]
        assert names_in(visit, "?sort=expires") == ["Beta", "alpha", "admin"]
        assert names_in(visit, "?sort=created") == ["admin", "Beta", "alpha"]
        assert 'aria-sort="ascending"' in visit.get("/console/keys?sort=name").text

    @pytest.mark.parametrize("query", ["?", "?sort=name&", "?sort=-expires&status=active&"])
    def test_it_has_several_pages(self, query: str, api: Api, visit: Visit) -> None:
        for number in range(60):
            api.make(name=f"key {number:02}")
        path, found = f"/console/keys{query}", []
        while path:
            page = visit.get(path)
            found += re.findall(r'class="cell-name"><a href="[^"]*">([^<]*)</a>', page.text)
            link = re.search(r'rel="next" href="([^"]*)"', page.text)
            path = link[1].replace("&amp;", "&") if link else ""
        assert len(found) == 61
        assert len(set(found)) == 61
        assert "Keys 51 to 61 of 61" in words_in(page)
        link = re.search(r'rel="prev" href="([^"]*)"', page.text)
        assert link is not None
        first = visit.get(link[1].replace("&amp;", "&"))
        assert "Keys 1 to 50 of 61" in words_in(first)
        assert 'rel="prev"' not in first.text

    def test_pages_lead_back_the_way_they_came(self, api: Api, visit: Visit) -> None:
        for number in range(160):
            api.make(name=f"row {number:03}")
        seen, path = [], "/console/keys?sort=name&q=row"
        for rel in ("next", "next", "next", "prev", "prev", "prev"):
            page = visit.get(path)
            found = re.search(r"Keys (\d+) to (\d+) of 160", words_in(page))
            assert found is not None
            seen.append(found[1])
            link = re.search(rf'rel="{rel}" href="([^"]*)"', page.text)
            assert link is not None
            path = link[1].replace("&amp;", "&")
        assert seen == ["1", "51", "101", "151", "101", "51"]

    @pytest.mark.parametrize("page", ["/console/keys", "/console/audit"])
    def test_the_names_of_unknown_filters_show_no_token(
        self, page: str, api: Api, visit: Visit
    ) -> None:
        token = api.root.token
        names = [token, token[5:], *(f"{number}{token}" for number in range(30))]
        for name in names:
            answer = visit.get(f"{page}?{name}=1")
            assert answer.status_code == 422
            assert token[20:50] not in answer.text
        answer = visit.get(f"{page}?" + "&".join(f"{name}=1" for name in names))
        assert answer.status_code == 422

    @pytest.mark.parametrize(
        ("query", "field", "message"),
        [
            ("status=dead", "status", "Input should be"),
            ("scope=a b", "scope", "is not a valid scope"),
            ("as_of=x", "as_of", "date and a time"),
            ("as_of=2027-01-01T00:00", "as_of", "in the past"),
            ("unused=7", "unused", "Input should be"),
        ],
    )
    def test_a_wrong_filter_is_shown_at_its_field_and_the_others_are_kept(
        self, query: str, field: str, message: str, visit: Visit
    ) -> None:
        page = visit.get(f"/console/keys?q=keep&expires=30&sort=name&{query}")
        assert page.status_code == 422
        shown = re.search(rf'id="{field}-wrong">([^<]*)<', page.text)
        assert shown is not None
        assert message in shown[1]
        assert page.text.count("aria-invalid") == 1
        form = next(each for each in forms_in(page) if each.method == "get")
        assert (form.fields["q"], form.fields["sort"]) == (["keep"], ["name"])
        assert '<option value="30" selected>' in page.text
        assert not names_in_page(page)

    @pytest.mark.parametrize("query", ["nonsense=1", "cursor=x", "back=x"])
    def test_errors_in_the_address_are_reported(self, query: str, visit: Visit) -> None:
        page = visit.get(f"/console/keys?q=keep&{query}")
        assert page.status_code == 422
        assert f"{query.partition('=')[0]}:" in words_in(page)
        assert 'value="keep"' in page.text

    def test_a_token_in_the_search_is_not_repeated(self, admin: Key, visit: Visit) -> None:
        page = visit.get("/console/keys", params={"q": admin.token})
        assert page.status_code == 422
        assert admin.token not in page.text


class TestMaking:
    def test_the_token_is_shown_once_and_kept_by_no_cache(
        self, api: Api, admin: Key, visit: Visit
    ) -> None:
        path = "/console/keys/new"
        form = form_in(visit.get(path), path)
        fields = form.fields | {"name": ["ci"], "scope": ["mcp:read"], "more_scopes": ["a:b, c:*"]}
        answer = visit.post(form.action, fields)
        assert answer.status_code == 201
        assert answer.headers["Cache-Control"] == "no-store"
        token = shown_token(answer)
        assert token is not None
        made = newest(api, admin)
        assert made.document["scopes"] == ["mcp:read", "a:b", "c:*"]
        assert made.document["expires_at"] == "2026-04-02T12:00:00.000000Z"
        verdict = api.post("/v1/verify", by=admin, json={"token": token}).json()
        assert verdict["key_id"] == made.key_id
        api.clock.advance(minutes=5)
        before = api.position()
        again = visit.post(form.action, fields)
        assert again.status_code == 200
        assert shown_token(again) is None
        assert "created already" in words_in(again)
        assert made.key_id in again.text
        assert api.position() == before
        for page in ("/console/keys", f"/console/keys/{made.key_id}"):
            assert shown_token(visit.get(page)) is None

    @pytest.mark.parametrize(
        ("filled", "expires_at"),
        [
            ({"expiration": "7"}, "2026-03-10T12:00:00.000000Z"),
            ({"expiration": "90"}, "2026-06-01T12:00:00.000000Z"),
            ({"expiration": "never"}, None),
            ({"expiration": "date", "day": "2026-03-31"}, "2026-03-31T23:59:59.000000Z"),
        ],
    )
    def test_it_ends_in_time(
        self,
        filled: dict[str, str],
        expires_at: str | None,
        api: Api,
        admin: Key,
        visit: Visit,
    ) -> None:
        fields = {"name": "n", "scope": "a:b", "prefix": "blnk", **filled}
        assert visit.fill_in("/console/keys/new", **fields).status_code == 201
        made = newest(api, admin).document
        assert made["expires_at"] == expires_at
        assert made["prefix"].startswith("blnk_")

    @pytest.mark.parametrize(
        ("filled", "said"),
        [
            ({"name": " "}, "the name is empty"),
            ({"scope": []}, "no scope given"),
            ({"more_scopes": "nonsense"}, "is not a valid scope"),
            ({"expiration": "date", "day": ""}, "choose a date"),
            ({"expiration": "date", "day": "2026-03-01"}, "the time has passed"),
            ({"expiration": "soon"}, "choose when"),
            ({"prefix": "Ä"}, "start with a-z"),
        ],
    )
    def test_an_invalid_form_shows_the_error_and_keeps_the_input(
        self, filled: dict[str, str], said: str, api: Api, visit: Visit
    ) -> None:
        fields = {"name": "stays", "scope": "mcp:read", "expiration": "60", **filled}
        before = api.position()
        answer = visit.fill_in("/console/keys/new", **fields)
        assert answer.status_code == 422
        assert said.lower() in words_in(answer).lower()
        form = form_in(answer, "/console/keys/new")
        assert form.fields["name"] == [fields["name"]]
        assert form.fields.get("scope", []) == ([fields["scope"]] if fields["scope"] else [])
        assert api.position() == before

    def test_nobody_grants_what_they_do_not_hold(self, api: Api) -> None:
        writer = api.make("api-keys:read", "api-keys:write", "mcp:read")
        visit = Visit.signed_in(api, writer)
        form = form_in(visit.get("/console/keys/new"), "/console/keys/new")
        before = api.position()
        fields = form.fields | {"name": ["n"], "scope": ["*"]}
        answer = visit.post(form.action, fields)
        assert answer.status_code == 403
        assert "do not hold" in words_in(answer)
        assert api.position() == before


class TestTheKeyItself:
    def test_its_page_shows_actor_change_time_and_reason(
        self, api: Api, admin: Key, visit: Visit
    ) -> None:
        key = api.make("mcp:read", by=admin)
        path = f"/console/keys/{key.key_id}"
        api.clock.advance(minutes=1)
        visit.follow(visit.fill_in(f"{path}/rename", name="renamed"))
        visit.follow(visit.fill_in(f"{path}/scopes", scope=["mcp:write"]))
        visit.follow(visit.fill_in(f"{path}/expiration", expiration="7"))
        page = visit.follow(
            visit.fill_in(f"{path}/revoke", reason="Leaked", comment="a\r\nb", understood="yes")
        )
        words = words_in(page)
        for said in (
            "before: payments-api → after: renamed",
            "before: mcp:read → after: mcp:write",
            "before: Never → after: 10 March 2026, 12:01 UTC",
            "Revoked 3 March 2026, 12:01:00 UTC by admin from 192.0.2.7 “Leaked” a b",
            "Created 3 March 2026, 12:00:00 UTC by admin",
            "The key was revoked",
        ):
            assert said in words, said
        told = words.partition(" History ")[2]
        order = [told.index(f"{what} 3 March") for what in ("Revoked", "Renamed", "Created")]
        assert order == sorted(order)
        for event in api.history(key):
            assert re.search(r"Entry \d+ in the log ?, version " + str(event["version"]), words)
        assert api.history(key)[-1]["data"]["comment"] == "a\nb"
        assert api.event_types(key) == [
            "Created", "Renamed", "ScopesChanged", "ExpirationChanged", "Revoked"
        ]  # fmt: skip

    def test_a_long_history_has_several_pages(self, api: Api, admin: Key, visit: Visit) -> None:
        key = api.make(by=admin)
        for number in range(60):
            api.patch(key.path, by=admin, json={"name": f"name {number}"})
        first = visit.get(f"/console/keys/{key.key_id}")
        older = re.search(r'href="([^"]*before=[0-9]*)"', first.text)
        assert older is not None
        second = visit.get(older[1])
        versions = re.findall(r"version (\d+) of the key", first.text + second.text)
        assert versions == [str(version) for version in range(61, 0, -1)]

    def test_rotating_shows_the_successors_token_once(
        self, api: Api, admin: Key, visit: Visit
    ) -> None:
        key = api.make("mcp:read", by=admin)
        path = f"/console/keys/{key.key_id}/rotate"
        form = form_in(visit.get(path), path)
        fields = form.fields | {"grace": ["3600"]}
        answer = visit.post(form.action, fields)
        assert answer.status_code == 201
        token = shown_token(answer)
        assert token is not None
        assert "works until" in words_in(answer)
        assert api.post("/v1/verify", by=admin, json={"token": token}).json()["valid"]
        assert shown_token(visit.post(form.action, fields)) is None
        assert api.show(key)["expires_at"] == "2026-03-03T13:00:00.000000Z"
        assert visit.fill_in(path, grace="0").status_code == 409

    @pytest.mark.parametrize(
        ("filled", "expires_at"),
        [
            ({}, "2026-03-15T12:00:00.000000Z"),
            ({"expiration": "90"}, "2026-06-01T12:00:00.000000Z"),
            ({"expiration": "never"}, None),
            ({"expiration": "date", "day": "2026-03-31"}, "2026-03-31T23:59:59.000000Z"),
        ],
    )
    def test_the_successors_expiration_is_shown_and_can_be_chosen(
        self, filled: dict[str, str], expires_at: str | None, api: Api, admin: Key, visit: Visit
    ) -> None:
        key = api.make("mcp:read", by=admin, expires_at="2026-03-15T12:00:00Z")
        path = f"/console/keys/{key.key_id}/rotate"
        assert "Like the old key 15 Mar 2026" in words_in(visit.get(path))
        assert visit.fill_in(path, grace="0", **filled).status_code == 201
        assert newest(api, admin).document["expires_at"] == expires_at

    @pytest.mark.parametrize("end", [None, "2026-03-15T12:00:00.000000Z"])
    def test_the_form_for_an_expiration_starts_from_the_keys_own(
        self, end: str | None, api: Api, admin: Key, visit: Visit
    ) -> None:
        key = api.make("mcp:read", by=admin, expires_at=end)
        path = f"/console/keys/{key.key_id}/expiration"
        shown = "No change 15 Mar 2026" if end else "No change: never"
        assert shown in words_in(visit.get(path))
        visit.follow(visit.fill_in(path))
        assert api.show(key)["expires_at"] == end
        assert api.event_types(key) == ["Created"]

    def test_a_rotated_key_is_offered_no_later_expiration(
        self, api: Api, admin: Key, visit: Visit
    ) -> None:
        key = api.make("mcp:read", by=admin)
        api.post(f"{key.path}/rotate", by=admin, json={"grace_seconds": 10 * 86_400})
        page = visit.get(f"/console/keys/{key.key_id}/expiration").text
        offered = re.findall(r'name="expiration" value="(\w+)"', page)
        assert offered == ["same", "7", "date"]

    def test_a_form_about_an_older_version_changes_nothing(
        self, api: Api, admin: Key, visit: Visit
    ) -> None:
        key = api.make(by=admin)
        path = f"/console/keys/{key.key_id}/rename"
        form = form_in(visit.get(path), path)
        api.patch(key.path, by=admin, json={"name": "changed meanwhile"})
        answer = visit.post(form.action, form.fields | {"name": ["mine"]})
        assert answer.status_code == 412
        assert api.show(key)["name"] == "changed meanwhile"

    @pytest.mark.parametrize("lacking", ["reason", "understood"])
    def test_revoking_takes_a_reason_and_a_yes(
        self, lacking: str, api: Api, admin: Key, visit: Visit
    ) -> None:
        key = api.make(by=admin)
        filled = {"reason": "Leaked", "understood": "yes"} | {lacking: ""}
        answer = visit.fill_in(f"/console/keys/{key.key_id}/revoke", **filled)
        assert answer.status_code == 422
        assert api.show(key)["status"] == "active"

    def test_revoking_says_what_will_stop(self, api: Api, admin: Key, visit: Visit) -> None:
        key = api.make("mcp:read", by=admin)
        words = words_in(visit.get(f"/console/keys/{key.key_id}/revoke"))
        assert f"The token {key.document['prefix']} stops working immediately" in words
        assert "Scopes: mcp:read" in words
        own = words_in(visit.get(f"/console/keys/{admin.key_id}/revoke"))
        assert "You will be signed out" in own


class TestThePast:
    def test_it_is_marked_and_offers_nothing_to_do(
        self, api: Api, admin: Key, visit: Visit
    ) -> None:
        key = api.make("mcp:read", name="before", by=admin)
        api.clock.advance(minutes=10)
        api.patch(key.path, by=admin, json={"name": "after"})
        api.make(name="younger", by=admin)
        assert names_in(visit, "?as_of=2026-03-03T12:05") == ["before", "admin"]
        assert names_in(visit, "?as_of=2026-03-03T13:05%2B01:00") == ["before", "admin"]
        for path in (
            "/console/keys?as_of=2026-03-03T12:05",
            f"/console/keys/{key.key_id}?as_of=2026-03-03T12:05",
        ):
            page = visit.get(path)
            assert "This is the past" in words_in(page)
            assert "before" in words_in(page)
            assert "after" not in words_in(page)
            assert not re.search(r"/(new|revoke|rotate|rename|expiration|scopes)\b", page.text)
            assert [form.method for form in forms_in(page)].count("post") == 1

    @pytest.mark.parametrize("as_of", ["2027-01-01T00:00", "yesterday"])
    def test_the_future_is_not_a_past_time(self, as_of: str, visit: Visit) -> None:
        assert visit.get(f"/console/keys?as_of={as_of}").status_code == 422


class TestWhoSeesWhat:
    def test_a_reader_is_offered_no_change(self, api: Api) -> None:
        reader = api.make("api-keys:read")
        visit = Visit.signed_in(api, reader)
        for path in ("/console/keys", f"/console/keys/{reader.key_id}"):
            page = visit.get(path)
            assert not re.search(r"/(new|revoke|rotate|rename|expiration|scopes)\b", page.text)
            assert "/console/projections" not in page.text

    def test_root_chooses_the_workspace_that_it_looks_at(self, api: Api) -> None:
        api.make(name="of acme")
        visit = Visit.signed_in(api, api.root)
        assert names_in(visit) == []
        assert names_in(visit, "?workspace=root") == ["root"]
        page = visit.get("/console/keys?workspace=acme")
        assert names_in(visit, "?workspace=acme") == ["of acme"]
        for workspace in ("*", "acme", "default", "root"):
            query = {"*": "?workspace=%2A", "default": ""}.get(workspace, f"?workspace={workspace}")
            assert f'<li><a href="/console/keys{query}"' in page.text
        made = visit.fill_in("/console/keys/new?workspace=acme", name="by root", scope="a:b")
        assert made.status_code == 201
        assert names_in(visit, "?workspace=acme") == ["by root", "of acme"]
        events = api.get("/v1/keys", params={"workspace": "acme"}).json()["data"]
        assert events[0]["created_by"]["id"] == api.root.key_id

    def test_root_lists_the_keys_of_all_workspaces(self, api: Api) -> None:
        for number in range(30):
            api.make(name=f"acme {number:02}")
            api.make(workspace="other", name=f"other {number:02}")
        visit = Visit.signed_in(api, api.root)
        for sort in ("", "&sort=name"):
            path, found = f"/console/keys?workspace=*&q=%20{sort}", []
            while path:
                page = visit.get(path)
                found += names_in_page(page)
                link = re.search(r'rel="next" href="([^"]*)"', page.text)
                path = link[1].replace("&amp;", "&") if link else ""
            assert len(found) == len(set(found)) == 60
            assert "Keys 51 to 60 of 60" in words_in(page)
        details = re.search(r'class="cell-name"><a href="([^"]*workspace=other[^"]*)"', page.text)
        assert details is not None
        key = visit.get(details[1].replace("&amp;", "&"))
        assert "Workspace other" in words_in(key)
        back = re.search(r'class="crumb-list" href="([^"]*)"', key.text)
        assert back is not None
        same = visit.get(back[1].replace("&amp;", "&"))
        assert names_in_page(same) == names_in_page(page)
        assert visit.get("/console/keys/new?workspace=*").status_code == 422
        assert "other 29" in visit.get("/console/audit?workspace=*").text
        assert visit.get("/console/projections?workspace=*").status_code == 200

    def test_the_keys_of_all_workspaces_are_for_root(self, api: Api, visit: Visit) -> None:
        other = api.make(workspace="other", name="of other")
        assert visit.get("/console/keys?workspace=*").status_code == 403
        assert visit.get("/console/audit?workspace=*").status_code == 403
        own = visit.get("/console/keys/new?of=*")
        assert "of other" not in own.text
        assert visit.get(f"/console/keys/{other.key_id}?of=*").status_code == 404

    @pytest.mark.parametrize("path", ["/console/keys?q=keep", "/console/audit?actor=keep"])
    def test_a_wrong_workspace_is_shown_at_its_field_and_the_filters_are_kept(
        self, path: str, api: Api
    ) -> None:
        visit = Visit.signed_in(api, api.root)
        page = visit.get(f"{path}&workspace=Not%20Valid")
        assert page.status_code == 422
        assert 'name="workspace" value="Not Valid"' in page.text
        assert 'id="workspace-wrong"' in page.text
        assert page.text.count('value="keep"') >= 2
        assert not names_in_page(page)
        for export in ("events.csv", "events.ndjson"):
            refused = visit.get(f"/console/audit/{export}?workspace=Not%20Valid")
            assert refused.status_code == 422
        made = visit.post(
            "/console/keys/new?workspace=Not%20Valid",
            {"csrf_token": visit.csrf_token(), "name": "n", "scope": "a:b", "expiration": "30"},
        )
        assert made.status_code == 422

    def test_actors_are_shown_by_name_where_the_reader_may_see_them(
        self, api: Api, admin: Key, visit: Visit
    ) -> None:
        key = api.make(name="by root")
        path = f"/console/keys/{key.key_id}"
        own = words_in(visit.get(path))
        assert f"by key {api.root.key_id} of another workspace" in own
        page = Visit.signed_in(api, api.root).get(f"{path}?workspace=acme")
        assert "by root in root" in words_in(page)
        assert f'href="/console/keys/{api.root.key_id}?workspace=root"' in page.text
        theirs = api.make(by=admin)
        by_admin = visit.get(f"/console/keys/{theirs.key_id}")
        assert f'href="/console/keys/{admin.key_id}" title="{admin.key_id}">admin</a>' in (
            by_admin.text
        )

    def test_a_rotated_key_can_be_told_from_its_successor(
        self, api: Api, admin: Key, visit: Visit
    ) -> None:
        key = api.make(by=admin, name="pair")
        answer = api.post(f"{key.path}/rotate", by=admin, json={"grace_seconds": 60})
        successor = answer.json()
        words = words_in(visit.get("/console/keys"))
        assert f"pair {key.document['prefix']} Rotated" in words
        assert f"pair {successor['prefix']} Rotated" not in words
        old = words_in(visit.get(f"/console/keys/{key.key_id}"))
        assert f"Replaced by pair {successor['prefix']}" in old
        new = words_in(visit.get(f"/console/keys/{successor['key_id']}"))
        assert f"Successor of pair {key.document['prefix']}" in new

    def test_projections_are_for_root(self, api: Api) -> None:
        visit = Visit.signed_in(api, api.root)
        page = visit.get("/console/projections")
        for view in ("key_list", "auth_lookup"):
            assert view in words_in(page)
        answer = visit.post(
            "/console/projections/key_list/rebuild", {"csrf_token": visit.csrf_token()}
        )
        assert answer.headers["Location"] == "/console/projections"
        assert api.app.state.rebuilds.state("key_list") is not None
        missing = {"csrf_token": visit.csrf_token()}
        assert visit.post("/console/projections/none/rebuild", missing).status_code == 404


class TestWhatSomebodyWrote:
    def test_a_script_is_shown_and_never_run(self, api: Api, admin: Key, visit: Visit) -> None:
        key = api.make(name=SCRIPT, by=admin)
        visit.fill_in(
            f"/console/keys/{key.key_id}/revoke", reason=SCRIPT, comment=SCRIPT, understood="yes"
        )
        assert api.history(key)[-1]["data"]["comment"] == SCRIPT
        for path in (
            "/console/keys",
            f"/console/keys/{key.key_id}",
            f"/console/keys?q={SCRIPT[:8]}",
            f"/console/sign-in?next=/console/{SCRIPT}&ended={SCRIPT}",
            f"/console/{SCRIPT}",
        ):
            page = visit.get(path)
            assert "<script>" not in page.text
            assert "<img" not in page.text
            assert not re.search(r"\son\w+=", re.sub(r"&[#\w]+;", "", page.text).split("alert")[0])

    def test_no_page_has_a_script_or_a_style_of_its_own(
        self, api: Api, admin: Key, visit: Visit
    ) -> None:
        key = api.make(by=admin)
        for path in ("", "/new", f"/{key.key_id}", f"/{key.key_id}/revoke"):
            page = visit.get(f"/console/keys{path}").text
            assert re.findall(r"<script[^>]*>", page) == re.findall(
                r'<script src="/console/static/[0-9a-f]{12}/console\.js" defer>', page
            )
            assert "<style" not in page
            assert " style=" not in page
            assert not re.search(r'(src|href)="(https?:)?//', page)

    def test_files_are_kept_for_good_under_an_address_of_their_version(self, visit: Visit) -> None:
        page = visit.get("/console/keys").text
        paths = set(re.findall(r'"(/console/static/[^"]*)"', page))
        assert len(paths) == 3
        for path in paths:
            answer = visit.get(path)
            assert answer.status_code == 200
            assert "immutable" in answer.headers["Cache-Control"]
        assert visit.get("/console/static/000000000000/console.css").status_code == 404
        assert visit.get("/console/static/x/..%2fpages.py").status_code == 404
