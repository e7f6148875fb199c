"""``last_used_at`` in answers, filters on it, and the thread that stores it."""

import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from api.command_line.key_display import write_key
from api.composition import OpenLedger
from api.settings import Settings
from domain.caller import Actor, Caller
from domain.errors import LedgerUnavailable
from projections.queries.keys_now import show_key
from projections.store.last_uses import LastUses
from tests.api.served import Api, Json, Key, NewLedger, invalid, served
from tests.conftest import NOON, SettableClock
from tests.system.clients import Client, answered
from tests.system.ledgers import SOUND, differences
from tests.system.processes import Server, Servers, eventually, run, run_json


def ledger(api: Api) -> OpenLedger:
    opened: OpenLedger = api.app.state.ledger
    return opened


def flush(api: Api) -> None:
    ledger(api).last_uses.flush(ledger(api).database)


def check(api: Api, key: Key, *scopes: str) -> str:
    """Verify a token as a service does."""
    asked = {"token": key.token, "scopes": scopes}
    code: str = api.post("/v1/verify?workspace=acme", json=asked).json()["code"]
    return code


def listed(api: Api, **query: str) -> list[str]:
    answer = api.get("/v1/keys", params={"workspace": "acme", **query})
    assert answer.status_code == 200, answer.text
    return [key["name"] for key in answer.json()["data"]]


def test_the_last_use_of_a_key_is_shown_by_every_endpoint(api: Api, clock: SettableClock) -> None:
    key = api.make()
    assert key.document["last_used_at"] is None
    clock.advance(minutes=7, seconds=7)
    assert check(api, key) == "VALID"
    flush(api)
    assert api.show(key)["last_used_at"] == "2026-03-03T12:07:00.000000Z"
    (in_list,) = api.get("/v1/keys", params={"workspace": "acme"}).json()["data"]
    assert in_list == api.show(key)
    renamed = api.patch(key.path, params={"workspace": "acme"}, json={"name": "renamed"}).json()
    assert renamed["last_used_at"] == "2026-03-03T12:07:00.000000Z"
    api.revoke(key)
    assert api.show(key)["last_used_at"] == "2026-03-03T12:07:00.000000Z"
    past = api.get(key.path, params={"workspace": "acme", "as_of": "2026-03-03T12:07:07Z"})
    assert past.json()["last_used_at"] is None


def test_calling_the_ledger_with_a_key_is_a_use_of_it(api: Api) -> None:
    reader = api.make("api-keys:read")
    assert api.get("/v1/keys", by=reader).status_code == 200
    gateway = api.make("mcp:read")
    assert api.get("/v1/forward-auth", by=gateway).status_code == 204
    flush(api)
    assert api.show(reader)["last_used_at"] == "2026-03-03T12:00:00.000000Z"
    assert api.show(gateway)["last_used_at"] == "2026-03-03T12:00:00.000000Z"


def test_a_refused_check_is_no_use(api: Api, clock: SettableClock) -> None:
    scoped = api.make("mcp:read")
    revoked = api.revoked()
    expired = api.make(expires_at="2026-03-03T12:00:01Z")
    clock.advance(minutes=1)
    assert check(api, scoped, "mcp:write") == "INSUFFICIENT_SCOPE"
    assert check(api, revoked) == "REVOKED"
    assert check(api, expired) == "EXPIRED"
    assert api.get("/v1/keys", by=scoped).status_code == 403
    flush(api)
    assert [api.show(key)["last_used_at"] for key in (scoped, revoked, expired)] == [None] * 3


def test_a_use_changes_neither_version_nor_history(api: Api) -> None:
    key = api.make()
    before = api.position(), api.history(key)
    check(api, key)
    flush(api)
    assert (api.position(), api.history(key)) == before
    assert api.show(key) == {
        **{name: value for name, value in key.document.items() if name != "token"},
        "last_used_at": "2026-03-03T12:00:00.000000Z",
    }


@pytest.fixture
def used(api: Api, clock: SettableClock) -> Api:
    idle, early, late = (api.make(name=name) for name in ("idle", "early", "late"))
    assert idle.document["last_used_at"] is None
    clock.advance(hours=1)
    check(api, early)
    clock.advance(hours=1)
    check(api, late)
    flush(api)
    return api


def test_unused_keys_are_found(used: Api) -> None:
    assert listed(used, never_used="true") == ["idle"]
    assert listed(used, never_used="false") == ["late", "early"]
    assert listed(used, unused_since="2026-03-03T13:30:00Z") == ["early", "idle"]
    assert listed(used, unused_since="2026-03-03T14:30:00+01:00") == ["early", "idle"]
    assert listed(used, unused_since="2026-03-03T12:00:00Z") == []
    assert listed(used, unused_since="2026-03-03T13:30:00Z", q="EARLY") == ["early"]


def test_a_cursor_works_only_with_its_own_filters(used: Api) -> None:
    query = {"workspace": "acme", "unused_since": "2026-03-03T13:30:00Z", "limit": "1"}
    first = used.get("/v1/keys", params=query).json()
    assert [key["name"] for key in first["data"]] == ["early"]
    cursor: str = first["next_cursor"]
    assert listed(used, **(query | {"cursor": cursor})) == ["idle"]
    for other in (
        {"unused_since": "2026-03-03T13:31:00Z"},
        {"never_used": "true"},
        {"never_used": "false"},
    ):
        invalid(used.get("/v1/keys", params=query | other | {"cursor": cursor}), "cursor")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("never_used=perhaps", "never_used"),
        ("never_used=", "never_used"),
        ("unused_since=yesterday", "unused_since"),
        ("unused_since=2026-03-03T12:00:00", "unused_since"),
        ("unused_since=0001-01-01T00:00:00%2B01:00", "unused_since"),
        ("as_of=2026-03-03T12:00:00Z&never_used=true", "as_of"),
        ("as_of=2026-03-03T12:00:00Z&unused_since=2026-03-03T12:00:00Z", "as_of"),
    ],
)
def test_a_check_without_an_answer_is_refused(api: Api, query: str, field: str) -> None:
    invalid(api.get(f"/v1/keys?{query}"), field)


def test_a_stopping_app_stores_its_last_uses(
    served_settings: Settings, new_ledger: NewLedger, clock: SettableClock
) -> None:
    with served(served_settings, new_ledger.root, clock) as api:
        key = api.make()
        assert check(api, key) == "VALID"
    with served(served_settings, new_ledger.root, clock, seed=3) as api:
        assert api.show(key)["last_used_at"] == "2026-03-03T12:00:00.000000Z"


def test_a_failed_flush_is_repeated(
    served_settings: Settings,
    new_ledger: NewLedger,
    clock: SettableClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures: Iterator[Exception] = iter([LedgerUnavailable("not now"), RuntimeError("a bug")])
    write = LastUses._flush  # noqa: SLF001

    def fail_at_first(self: LastUses, *args: object) -> None:
        if (failure := next(failures, None)) is not None:
            raise failure
        write(self, *args)  # type: ignore[arg-type]

    settings = served_settings.model_copy(update={"last_used_seconds": 0.01})
    with served(settings, new_ledger.root, clock) as api:
        key = api.make()
        monkeypatch.setattr(LastUses, "_flush", fail_at_first)
        check(api, key)
        eventually(lambda: api.show(key)["last_used_at"] is not None, "the use is written")
        assert next(failures, None) is None


def keys_of(client: Client) -> dict[str, Json]:
    return {key["name"]: key for key in answered(client.http.get("/v1/keys"))["data"]}


def tokens_of(server: Server, *names: str) -> dict[str, str]:
    client = server.client()
    return {name: answered(client.create(name), 201)["token"] for name in names}


def test_a_server_killed_loses_the_uses_not_yet_written_and_nothing_else(
    servers: Servers,
) -> None:
    server = servers.start(last_used_seconds=0.05)
    root = server.root_token
    tokens = tokens_of(server, "written", "lost")
    assert server.client().verify(tokens["written"]) == "VALID"
    client = server.client()
    eventually(lambda: keys_of(client)["written"]["last_used_at"] is not None, "the use is written")
    server.kill()
    server = servers.start(last_used_seconds=60)
    client = server.client(root)
    before = keys_of(client)
    assert client.verify(tokens["lost"]) == "VALID"
    made = answered(client.create("made before the end"), 201)
    server.kill()
    server = servers.start(last_used_seconds=60)
    client = server.client(root)
    after = keys_of(client)
    assert after.pop("made before the end")["key_id"] == made["key_id"]
    assert after == before
    assert after["written"]["last_used_at"] is not None
    assert after["lost"]["last_used_at"] is None
    assert [client.verify(token) for token in tokens.values()] == ["VALID", "VALID"]
    assert differences(servers.data_dir) == SOUND


def test_servers_of_one_ledger_write_down_each_its_own_uses_when_they_stop(
    servers: Servers,
) -> None:
    first = servers.start(last_used_seconds=60)
    second = servers.start("--workers", "2", last_used_seconds=60)
    tokens = tokens_of(first, "by the first", "by the second", "by both", "by nobody")
    beside = second.client(first.root_token)
    assert first.client().verify(tokens["by the first"]) == "VALID"
    assert beside.verify(tokens["by the second"]) == "VALID"
    assert first.client().verify(tokens["by both"]) == beside.verify(tokens["by both"])
    assert {key["last_used_at"] for key in keys_of(first.client()).values()} == {None}
    assert second.stop() in (0, -signal.SIGTERM)
    assert first.stop() in (0, -signal.SIGTERM)
    found = run_json(servers.data_dir, "keys", "list", "--never-used")
    assert [key["name"] for key in found["data"]] == ["by nobody"]
    assert differences(servers.data_dir) == SOUND


def test_the_command_line_shows_and_filters_by_the_last_use(servers: Servers) -> None:
    server = servers.start()
    tokens = tokens_of(server, "used", "idle")
    client = server.client()
    assert client.verify(tokens["used"]) == "VALID"
    key_ids = {name: key["key_id"] for name, key in keys_of(client).items()}
    server.stop()

    def names(*options: str) -> list[str]:
        found = run_json(servers.data_dir, "keys", "list", *options)
        return [key["name"] for key in found["data"]]

    assert names() == ["idle", "used"]
    assert names("--never-used") == ["idle"]
    assert names("--unused-since", "2999-01-01T00:00:00Z") == ["idle", "used"]
    assert names("--unused-since", "2020-01-01T00:00:00Z") == []
    wrong = run(servers.data_dir, "keys", "list", "--unused-since", "yesterday")
    assert wrong.code == 2
    assert "--unused-since: use a time with its offset" in wrong.errors
    shown = {name: _shown(servers.data_dir, key_id) for name, key_id in key_ids.items()}
    assert "last used" in shown["used"]
    assert " ago\n" in shown["used"]
    # For such a young key it is not yet known that it was not used.
    assert "last used" not in shown["idle"]


def test_never_used_is_shown_as_never(opened: OpenLedger, clock: SettableClock) -> None:
    made = opened.ledger.create_key(
        workspace="default",
        name="idle",
        scopes=["mcp:read"],
        expires_at=None,
        token_prefix="key",
        by=Caller(Actor("cli", "ada"), holds=("*",)),
        at=clock(),
    )
    with opened.database.read() as connection:
        key = show_key(connection, "default", made.key_id, now=clock())

    def told(**more: object) -> str | None:
        written = StringIO()
        write_key(Console(file=written), replace(key, **more), clock())  # type: ignore[arg-type]
        found = re.search(r"last used +(.*)", written.getvalue())
        return found and found[1]

    clock.advance(minutes=1)
    assert told() is None
    clock.advance(seconds=1)
    assert told() == "Never"
    assert told(last_used_at=NOON) == "2026-03-03 12:00Z 61 seconds ago"


def _shown(data_dir: Path, key_id: str) -> str:
    ran = run(data_dir, "keys", "show", key_id)
    assert ran.code == 0, ran
    return ran.output
