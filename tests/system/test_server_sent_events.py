"""Live streams deliver each event once, whichever process appended it, and end when they must."""

import random
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Event

import httpx
import pytest

from tests.system.clients import Client, Json, answered
from tests.system.ledgers import admin_token, make_keys
from tests.system.live_streams import Tail
from tests.system.processes import Server, Servers, eventually, run_json

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

CLEAN = {0, -signal.SIGTERM}
QUICK: Json = {"tail_seconds": 0.01, "tail_heartbeat_seconds": 0.05}
SILENT: Json = {"tail_seconds": 0.01, "tail_heartbeat_seconds": 3600}
FROM_THE_BEGINNING = {"workspace": "*", "after": "0"}


@pytest.fixture
def server(servers: Servers) -> Server:
    return servers.start(**QUICK)


def pages(client: Client, **query: str) -> list[Json]:
    """Return all events as the pages have them."""
    found: list[Json] = []
    asked = {"workspace": "*", "limit": "100", **query}
    while True:
        page = answered(client.http.get("/v1/events", params=asked))
        found += page["data"]
        if page["next_cursor"] is None:
            return found
        asked["cursor"] = page["next_cursor"]


def as_on_pages(came: list[Json]) -> list[Json]:
    """Return what a tail brought in the form that the pages have."""
    return [
        {"leaf_index": each["leaf_index"], "position": each["position"]} | each["entry"]
        for each in came
    ]


class TestNothingIsLostOrRepeated:
    def test_however_often_the_connection_is_cut(self, servers: Servers, server: Server) -> None:
        chance = random.Random(5)
        tail = Tail(server.client(), FROM_THE_BEGINNING)
        done = Event()

        def append() -> None:
            try:
                for number in range(40):
                    make_keys(servers.data_dir, [f"key {number}"], renamings=number % 4)
            finally:
                done.set()

        cuts = 0
        with ThreadPoolExecutor(1) as pool:
            appending = pool.submit(append)
            while not done.is_set():
                tail.read_bytes(chance.randint(1, 6000))
                cuts += 1
            appending.result()
        expected = pages(server.client())
        tail.read_until(len(expected))
        assert as_on_pages(tail.came) == expected
        assert cuts > 10
        assert len(expected) > 100

    def test_by_a_client_that_had_no_event_before_the_cut(
        self, servers: Servers, server: Server
    ) -> None:
        tail = Tail(server.client(), {"workspace": "*"})
        tail.read_bytes(len("retry: 1000\nid: 1\n\n"))
        assert (tail.came, tail.last_id) == ([], "1")
        made = make_keys(servers.data_dir, ["while nobody listens"])
        tail.read_until(1)
        assert [each["entry"]["key_id"] for each in tail.came] == [key.key_id for key in made]


class TestWhatComes:
    def test_new_events_of_another_process(self, servers: Servers, server: Server) -> None:
        tail = Tail(server.client(), {"workspace": "*"})
        with ThreadPoolExecutor(1) as pool, tail.opened() as chunks:
            tail.take(next(chunks))
            create = ["keys", "create", "--name", "by hand", "--scopes", "a:b"]
            created = pool.submit(run_json, servers.data_dir, *create)
            while not tail.came:
                tail.take(next(chunks))
        assert as_on_pages(tail.came) == pages(server.client(), key_id=created.result()["key_id"])

    def test_filters_hold_and_another_workspaces_events_do_not_exist(
        self, servers: Servers, server: Server
    ) -> None:
        client = server.client(admin_token(servers.data_dir))
        answered(server.client().create("elsewhere", workspace="other"), 201)
        make_keys(servers.data_dir, ["renamed"], renamings=3)
        filters: list[tuple[dict[str, str], int]] = [({"type": "ApiKey.Renamed"}, 3), ({}, 5)]
        for query, expected in filters:
            tail = Tail(client, {"after": "0", **query})
            tail.read_until(expected)
            assert as_on_pages(tail.came) == pages(server.client(), workspace="default", **query)
        assert "elsewhere" in str(pages(server.client()))

    def test_a_live_stream_without_events_sends_heartbeats(self, server: Server) -> None:
        tail = Tail(server.client(), {"workspace": "*"})
        with tail.opened() as chunks:
            while len(tail.comments) < 3:
                tail.take(next(chunks))
        assert set(tail.comments) == {"still here"}
        assert (tail.came, tail.last_id) == ([], "1")


class TestRefused:
    def test_an_id_that_no_event_of_this_ledger_has(self, server: Server) -> None:
        client = server.client()
        for last_event_id in ("x", "-1", "1.5", "9" * 30, "99999999"):
            headers = {"Accept": "text/event-stream", "Last-Event-ID": last_event_id}
            answer = client.http.get("/v1/events", headers=headers)
            assert answered(answer, 422)["errors"][0]["field"] == "Last-Event-ID"

    def test_more_live_streams_than_the_maximum(self, servers: Servers) -> None:
        server = servers.start(tails=2, **QUICK)
        root = server.client()
        auditor, other = (
            server.client(
                answered(root.create("auditor", ["audit:read"], workspace=each), 201)["token"]
            )
            for each in ("acme", "other")
        )
        with Tail(root, {"workspace": "*"}).opened() as first, Tail(auditor, {}).opened() as second:
            next(first), next(second)
            answer = _asked_for_a_tail(other)
            assert answered(answer, 503)["code"] == "OVERLOADED"
            assert int(answer.headers["Retry-After"]) >= 1
        # Those that went have given their places back.
        eventually(lambda: _is_let_in(server), "there is room for another tail")

    def test_more_live_streams_than_a_credential_may_have(self, servers: Servers) -> None:
        server = servers.start(tails=4, **QUICK)
        with Tail(server.client(), {"workspace": "*"}).opened() as first:
            next(first)
            answer = _asked_for_a_tail(server.client())
            assert answered(answer, 429)["code"] == "TOO_MANY_READS"
            assert int(answer.headers["Retry-After"]) >= 1
        # Those that went have given their places back.
        eventually(lambda: _is_let_in(server), "there is room for another tail")

    def test_a_workspace_with_many_credentials_leaves_half_of_the_tails_to_others(
        self, servers: Servers
    ) -> None:
        server = servers.start(tails=4, **QUICK)
        root = server.client()

        def auditor(workspace: str) -> Client:
            made = answered(root.create("auditor", ["audit:read"], workspace=workspace), 201)
            return server.client(made["token"])

        with Tail(auditor("acme"), {}).opened() as one, Tail(auditor("acme"), {}).opened() as two:
            next(one), next(two)
            answer = _asked_for_a_tail(auditor("acme"))
            assert answered(answer, 429)["code"] == "TOO_MANY_READS"
            assert "workspace" in answer.json()["detail"]
            with Tail(auditor("other"), {}).opened() as others:
                assert next(others)


def _asked_for_a_tail(client: Client) -> httpx.Response:
    with client.http.stream(
        "GET", "/v1/events", headers={"Accept": "text/event-stream"}
    ) as response:
        if response.status_code != httpx.codes.OK:
            response.read()
        return response


def _is_let_in(server: Server) -> bool:
    return _asked_for_a_tail(server.client()).status_code == httpx.codes.OK


class TestEnds:
    def test_it_ends_with_the_credential_and_sends_nothing_more(self, servers: Servers) -> None:
        server = servers.start(**SILENT)
        root = server.client()
        auditor = answered(root.create("auditor", ["audit:read"], workspace="root"), 201)
        tail = Tail(server.client(auditor["token"]), {"workspace": "*"})
        with tail.opened() as chunks:
            tail.take(next(chunks))
            before = answered(root.create("before"), 201)
            while not tail.came:
                tail.take(next(chunks))
            answered(root.revoke(auditor["key_id"], workspace="root"))
            make_keys(servers.data_dir, ["after"])
            for chunk in chunks:
                tail.take(chunk)
        assert [each["entry"]["key_id"] for each in tail.came] == [before["key_id"]]
        assert tail.comments == ["ended: REVOKED"]
        assert _asked_for_a_tail(tail.client).status_code == httpx.codes.UNAUTHORIZED

    def test_when_the_credential_expires(self, server: Server) -> None:
        end = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
        auditor = answered(server.client().create("auditor", ["audit:read"], expires_at=end), 201)
        tail = Tail(server.client(auditor["token"]), {})
        tail.read_to_the_end()
        assert tail.comments[-1] == "ended: EXPIRED"

    @pytest.mark.parametrize("workers", [1, 2])
    def test_when_the_server_stops_which_does_not_wait_for_it(
        self, workers: int, servers: Servers
    ) -> None:
        server = servers.start("--workers", str(workers), **SILENT)
        tails = [Tail(server.client(), {"workspace": "*"}) for _ in range(8)]
        begun = []

        def follow(tail: Tail) -> None:
            with tail.opened() as chunks:
                waiting = tail.take(next(chunks))
                begun.append(tail)
                for chunk in chunks:
                    waiting = tail.take(waiting + chunk)
                # No error came: the server ended it in order.
                assert waiting == b""

        with ThreadPoolExecutor(len(tails)) as pool:
            following = [pool.submit(follow, tail) for tail in tails]
            eventually(lambda: len(begun) == len(tails), "all of them are open")
            code = server.stop()
            for tail in following:
                tail.result()
        assert code in CLEAN
        # One that had to be cancelled, after all the patience, would be an error in the log.
        assert {line["level"] for line in server.log_lines} == {"info"}
        assert "Traceback" not in server.log
