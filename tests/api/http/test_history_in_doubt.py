"""A server whose log is not the signed one refuses changes and continues to read and verify."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from api.settings import Settings
from projections.store.sqlite_driver import driver as sqlite3
from tests.api.served import Api, Key, NewLedger, refused, served
from tests.conftest import SettableClock
from tests.projections.ledgers import keys_in
from tests.raw_sql import lose_events
from tests.system.clients import answered
from tests.system.processes import Server, Servers, eventually, run_json

IN_DOUBT = "HISTORY_IN_DOUBT"


class TestApp:
    @pytest.fixture
    def key(self, served_settings: Settings, new_ledger: NewLedger, clock: SettableClock) -> Key:
        """A key of a ledger that lost its later events."""
        with served(served_settings, new_ledger.root, clock) as before:
            key = before.make("mcp:read")
            before.make("mcp:read", name="lost")
        lose_events(served_settings.data_dir, after=2)
        return key

    @pytest.fixture
    def doubted(
        self, key: Key, served_settings: Settings, new_ledger: NewLedger, clock: SettableClock
    ) -> Iterator[Api]:
        with served(served_settings, new_ledger.root, clock, seed=len(key.token)) as api:
            yield api

    def test_every_change_is_refused_as_a_problem_that_says_why(
        self, doubted: Api, key: Key
    ) -> None:
        workspace = {"workspace": "acme"}
        body = {"name": "new", "scopes": ["mcp:read"]}
        for answer in (
            doubted.post("/v1/keys", json=body),
            doubted.post("/v1/keys", json=body, headers={"Idempotency-Key": "once"}),
            doubted.post(f"{key.path}/revoke", params=workspace),
            doubted.post(f"{key.path}/rotate", params=workspace),
            doubted.patch(key.path, params=workspace, json={"name": "other"}),
        ):
            problem = refused(answer, 503, IN_DOUBT)
            assert "entry 2 and all after it are missing" in problem["detail"]
            assert "keyledger audit fork" in problem["detail"]
            assert str(doubted.settings.data_dir) not in answer.text
        assert doubted.position() == 2

    def test_verifying_listing_and_history_continue(self, doubted: Api, key: Key) -> None:
        verdict = doubted.post("/v1/verify?workspace=acme", json={"token": key.token})
        assert verdict.json()["code"] == "VALID"
        assert doubted.get("/v1/forward-auth", by=key).status_code == 204
        listed = doubted.get("/v1/keys", params={"workspace": "acme"}).json()["data"]
        assert [each["key_id"] for each in listed] == [key.key_id]
        assert doubted.event_types(key) == ["Created"]
        assert doubted.show(key)["status"] == "active"

    def test_probes_say_so_and_stay_ready(self, doubted: Api) -> None:
        answer = doubted.get("/readyz", by=None)
        assert (answer.status_code, answer.json()["changes_refused"]) == (200, True)
        metrics = doubted.metrics()
        assert metrics["keyledger_history_in_doubt"] == 1
        assert metrics["keyledger_checkpoint_size"] == 3

    def test_a_refused_change_leaves_a_line_and_no_traceback(
        self, doubted: Api, capsys: pytest.CaptureFixture[str]
    ) -> None:
        refused(doubted.post("/v1/keys", json={"name": "a", "scopes": ["a:b"]}), 503, IN_DOUBT)
        assert "Traceback" not in capsys.readouterr().err


class TestSoundApp:
    def test_probes_report_the_last_checkpoint(self, api: Api) -> None:
        api.make()
        signed = api.app.state.ledger.signer.sign
        eventually(lambda: signed() is None, "all is signed")
        metrics = api.metrics()
        assert metrics["keyledger_history_in_doubt"] == 0
        assert metrics["keyledger_checkpoint_size"] == 2
        assert metrics["keyledger_checkpoint_timestamp_seconds"] == api.clock.now.timestamp()
        assert api.get("/readyz", by=None).json()["changes_refused"] is False

    def test_the_last_change_is_signed_before_the_server_stops(
        self, served_settings: Settings, new_ledger: NewLedger, clock: SettableClock
    ) -> None:
        with served(served_settings, new_ledger.root, clock) as api:
            api.make()
            api.make()
        last = served_settings.checkpoint_path.read_text().split("\n\n")[-3]
        assert last.splitlines()[1] == "3"


def lines_of(server: Server, event: str) -> list[dict[str, object]]:
    return [line for line in server.log_lines if line["event"] == event]


class TestServer:
    @pytest.fixture
    def root(self, servers: Servers, new_ledger: NewLedger) -> Key:
        """The root key of a ledger with two keys more, all signed."""
        new_ledger.copied_to(servers.data_dir)
        with keys_in(servers.data_dir) as keys:
            keys.create("a")
            keys.create("b")
            keys.opened.signer.sign()
        return new_ledger.root

    def test_it_starts_on_a_ledger_that_lost_its_end(self, servers: Servers, root: Key) -> None:
        lose_events(servers.data_dir, after=2)
        server = servers.start()
        client = server.client(root.token)
        problem = answered(client.create("b"), 503)
        asked = client.http.get("/v1/forward-auth")
        assert (problem["code"], asked.status_code) == (IN_DOUBT, 204)
        eventually(lambda: bool(lines_of(server, "no_checkpoint_signed")), "it is logged")
        answered(client.create("b"), 503)
        server.stop()
        (line,) = lines_of(server, "no_checkpoint_signed")
        assert (line["level"], line["code"]) == ("error", IN_DOUBT)
        assert "entry 2 and all after it are missing" in str(line["detail"])
        assert "Traceback" not in server.log

    @pytest.mark.parametrize(
        "whole_file", [pytest.param(True, marks=pytest.mark.only_on("sqlite")), False]
    )
    def test_a_ledger_that_lost_everything_gets_no_root_key(
        self, servers: Servers, root: Key, *, whole_file: bool
    ) -> None:
        if whole_file:
            for path in servers.data_dir.glob("keyledger.sqlite3*"):
                path.unlink()
        else:
            lose_events(servers.data_dir, after=0)

        server = servers.start()
        assert server.root_token is None
        assert "This ledger is new" not in server.log
        assert server.client(root.token).http.get("/v1/keys").status_code == 401
        assert changes_are_refused(server)
        server.stop()
        (line,) = lines_of(server, "no_checkpoint_signed")
        assert "the log has 0 entries, but 3 were signed" in str(line["detail"])

    @pytest.mark.only_on("sqlite")
    def test_it_notices_an_older_database_and_that_it_was_restored(
        self, servers: Servers, root: Key, tmp_path: Path
    ) -> None:
        server = servers.start()
        client = server.client(root.token)
        live = servers.data_dir / "keyledger.sqlite3"
        copy(live, tmp_path / "yesterday")
        answered(client.create("b"), 201)
        eventually(lambda: signed_size(client.http.get("/metrics").text) == 4, "it is signed")
        copy(live, tmp_path / "today")

        copy(tmp_path / "yesterday", live)
        eventually(lambda: readiness(server).status_code == 503, "it is noticed")
        eventually(lambda: bool(lines_of(server, "no_checkpoint_signed")), "by the signer, too")
        # The process has seen the lost events: a key revoked in them would be valid again.
        assert answered(client.create("c"), 503)["code"] == "LEDGER_UNAVAILABLE"
        verified = client.http.post("/v1/verify", json={"token": root.token})
        assert answered(verified, 503)["code"] == "LEDGER_UNAVAILABLE"

        copy(tmp_path / "today", live)
        eventually(lambda: readiness(server).status_code == 200, "it is noticed, too")
        eventually(lambda: not changes_are_refused(server), "by the signer, too")
        answered(client.create("c"), 201)
        server.stop()
        assert len(lines_of(server, "no_checkpoint_signed")) == 1
        assert len(lines_of(server, "checkpoints_signed_again")) == 1
        assert len(lines_of(server, "ledger_went_back")) == 1
        assert len(lines_of(server, "ledger_is_current_again")) == 1

    def test_another_server_follows_a_fork_after_its_restart(
        self, servers: Servers, root: Key
    ) -> None:
        server = servers.start()
        event = run_json(servers.data_dir, "audit", "fork", "--yes", "--reason", "a drill")
        assert event["type"] == "AuditLog.Forked"
        eventually(lambda: changes_are_refused(server), "the old key is noticed")
        problem = answered(server.client(root.token).create("a"), 503)
        assert "was forked" in problem["detail"]
        assert "restart this server" in problem["detail"]
        server.stop()
        again = servers.start()
        answered(again.client(root.token).create("a"), 201)
        assert not changes_are_refused(again)


def copy(source: Path, target: Path) -> None:
    """Copy a database with SQLite's own means while others have it open."""
    with closing(sqlite3.connect(source)) as one, closing(sqlite3.connect(target)) as other:
        one.backup(other)


def changes_are_refused(server: Server) -> bool:
    return bool(answered(readiness(server))["changes_refused"])


def readiness(server: Server) -> httpx.Response:
    return httpx.get(f"{server.url}/readyz", trust_env=False)


def signed_size(metrics: str) -> float:
    name = "keyledger_checkpoint_size "
    return max(
        (float(line.removeprefix(name)) for line in metrics.splitlines() if line.startswith(name)),
        default=0,
    )
