"""Connection limits and connection ends, over sockets with a real server."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import ClassVar

import pytest

from tests.system.clients import Client, answered
from tests.system.processes import Server, eventually, servers_in
from tests.system.raw_http import Answer, Wire, connected

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

HEALTH = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"
OTHER, PROXY = "127.0.0.2", "127.0.0.3"
MOST = 64
AVAILABLE = MOST + 160
"""The descriptors from which a server derives that limit."""
USED_WITHOUT_CLIENTS = 40
FLOOD = 600
LARGE = b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
READABLE = [
    "/v1/keys", "/v1/events", "/v1/events?workspace=*", "/v1/checkpoint", "/readyz", "/metrics",
    "/console/sign-in", "/docs", "/docs/swagger-ui-bundle.js",
]  # fmt: skip
UNEQUAL = {"date", "x-request-id", "content-length"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the default limits, which the tests of this file share."""
    with servers_in(tmp_path_factory.mktemp("connections")) as servers:
        yield servers.start()


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes few connections, and has as many descriptors as it needs for them."""
    with servers_in(tmp_path_factory.mktemp("limited")) as servers:
        server = servers.start(
            max_connections=MOST, max_connections_per_address=4, trusted_proxies=PROXY
        )
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (AVAILABLE, AVAILABLE))
        yield server


@pytest.fixture
def root(server: Server) -> Client:
    return server.client()


def descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


def is_refused(answer: Answer, status: int, code: str) -> bool:
    return (
        (answer.status, answer.header("connection")) == (status, "close")
        and answer.header("content-type") == "application/problem+json"
        and answer.json["code"] == code
        and answer.json["request_id"] == answer.request_id
    )


def is_served(wire: Wire) -> bool:
    wire.send(HEALTH)
    return wire.answer().status == 200


class TestNumberOfConnections:
    @contextmanager
    def some(self, server: Server, count: int, source: str) -> Iterator[list[Wire]]:
        """Give connections that have been served."""
        with ExitStack() as wires:
            found = [
                wires.enter_context(connected(server.url, source=source)) for _ in range(count)
            ]
            assert all(is_served(wire) for wire in found)
            yield found

    def is_turned_away(self, server: Server, source: str) -> bool:
        with connected(server.url, source=source) as wire:
            answer = wire.answer()
            assert int(answer.header("retry-after") or "0") >= 1
            assert wire.rest() == b""
            return is_refused(answer, 503, "TOO_MANY_CONNECTIONS")

    @pytest.fixture
    def calm(self, limited: Server) -> Server:
        """The server, once the connections of the test before have ended."""
        eventually(lambda: descriptors(limited) <= USED_WITHOUT_CLIENTS, "nobody is connected")
        return limited

    def test_one_address_cannot_take_those_of_others(self, calm: Server) -> None:
        before = descriptors(calm)
        with self.some(calm, 4, "127.0.0.1") as ours, self.some(calm, 4, OTHER):
            assert self.is_turned_away(calm, "127.0.0.1")
            assert self.is_turned_away(calm, OTHER)
            # A proxy speaks for many.
            with self.some(calm, 20, PROXY):
                assert all(is_served(wire) for wire in ours)
            ours[0].close()
            eventually(lambda: is_let_in(calm, "127.0.0.1"), "there is room for another one")
        eventually(lambda: descriptors(calm) <= before, "their descriptors are closed")

    def test_all_addresses_together_have_a_limit(self, calm: Server) -> None:
        before = descriptors(calm)
        with self.some(calm, 4, "127.0.0.1") as ours, self.some(calm, MOST - 4, PROXY):
            for source in ("127.0.0.1", OTHER, PROXY):
                assert self.is_turned_away(calm, source)
            assert all(is_served(wire) for wire in ours)
            ours[0].close()
            eventually(lambda: is_let_in(calm, OTHER), "there is room for another one")
        eventually(lambda: descriptors(calm) <= before, "their descriptors are closed")

    def test_a_flood_of_connections_leaves_descriptors_for_the_database(self, calm: Server) -> None:
        root = calm.client()
        answered(root.create("before the flood"), 201)
        used = []
        with ExitStack() as flood:
            for number in range(FLOOD):
                source = f"127.0.0.{10 + number % 50}"
                flood.enter_context(connected(calm.url, source=source))
                if number % 20 == 0:
                    used.append(descriptors(calm))
            answered(root.create("during the flood"), 201)
        assert max(used) < AVAILABLE - 50
        assert "Too many open files" not in calm.log


def is_let_in(server: Server, source: str) -> bool:
    with connected(server.url, source=source) as wire:
        wire.send(HEALTH)
        return wire.answer().status == 200


class TestOrderlyEnd:
    """The client gets the answer, and then the end: no reset, though it has sent more."""

    REFUSED: ClassVar = {
        "body": (413, b"POST /v1/keys HTTP/1.1\r\nhost: a\r\ncontent-length: 900000\r\n\r\n"),
        "chunk": (413, b"POST /v1/keys HTTP/1.1\r\nhost: a\r\n%bfffff\r\n" % CHUNKED),
        "head": (431, b"GET / HTTP/1.1\r\nhost: a\r\na: "),
        "target": (414, b"GET /"),
        "no HTTP": (400, b"nonsense\r\n\r\n"),
        "coding": (501, b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n"),
    }

    @pytest.mark.parametrize("name", REFUSED)
    def test_a_refusal_arrives_though_the_client_sends_on(self, server: Server, name: str) -> None:
        status, sent = self.REFUSED[name]
        with connected(server.url) as wire:
            # All of it is sent before anything is read.
            wire.send_in_parts([sent + b"a" * 40_000, b"a" * 400_000, b"a" * 400_000])
            answer = wire.answer()
            assert (answer.status, answer.header("connection")) == (status, "close")
            assert wire.rest() == b""

    @pytest.mark.parametrize("target", ["/healthz", "/v1/forward-auth"])
    def test_the_last_answer_arrives_though_the_client_sends_on(
        self, server: Server, target: str
    ) -> None:
        last = f"GET {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode()
        with connected(server.url) as wire:
            wire.send_in_parts([last + HEALTH, HEALTH * 10_000])
            answer = wire.answer()
            assert (answer.status, answer.header("connection")) in {(200, "close"), (401, "close")}
            assert wire.rest() == b""

    def test_a_client_that_never_stops_sending_is_disconnected(self, server: Server) -> None:
        before = descriptors(server)
        with connected(server.url) as wire, suppress(ConnectionError):
            wire.send(b"nonsense\r\n\r\n")
            for _ in range(1000):
                wire.send(b"a" * 65_536)
            pytest.fail("64 MB were taken after the refusal")
        eventually(lambda: descriptors(server) <= before, "the connection has ended")

    def test_a_client_that_never_closes_its_side_is_disconnected(self, server: Server) -> None:
        before = descriptors(server)
        with connected(server.url) as wire:
            wire.send(b"nonsense\r\n\r\n")
            wire.answer()
            eventually(lambda: descriptors(server) <= before, "the connection has ended")


class TestClientThatEndsItsSide:
    def test_every_complete_request_is_answered(self, server: Server, root: Client) -> None:
        check = f"GET /v1/forward-auth HTTP/1.1\r\nhost: a\r\nx-api-key: {root.token}\r\n\r\n"
        requests = [(HEALTH, 200), (check.encode(), 204), (LARGE, 200)]
        for turn in range(len(requests)):
            asked = [*requests[turn:], *requests[:turn]]
            for rest in (b"", b"GET /v1"):
                with connected(server.url) as wire:
                    wire.send(b"".join(request for request, _ in asked) + rest)
                    wire.end_sending()
                    assert [wire.answer().status for _ in asked] == [status for _, status in asked]
                    assert wire.rest() == b""

    @pytest.mark.parametrize("path", READABLE)
    def test_each_route_answers_it_whole(self, server: Server, root: Client, path: str) -> None:
        asked = f"GET {path} HTTP/1.1\r\nhost: a\r\nx-api-key: {root.token}\r\n\r\n"
        with connected(server.url) as wire:
            wire.send(asked.encode())
            wire.end_sending()
            assert wire.answer().status == 200
            assert wire.rest() == b""


class TestExpectation:
    """``Expect: 100-continue`` (RFC 9110, section 10.1.1)."""

    def head(self, framing: str, *, path: str = "/v1/verify", version: str = "1.1") -> bytes:
        return (
            f"POST {path} HTTP/{version}\r\nhost: a\r\ncontent-type: application/json\r\n"
            f"expect: 100-continue\r\n{framing}\r\n\r\n"
        ).encode()

    FRAMINGS: ClassVar = {
        "content-length: 2": b"{}",
        "transfer-encoding: chunked": b"2\r\n{}\r\n0\r\n\r\n",
    }

    @pytest.mark.parametrize("framing", FRAMINGS)
    def test_a_client_that_waits_gets_100_continue(self, server: Server, framing: str) -> None:
        with connected(server.url) as wire:
            for _ in range(2):
                wire.send(HEALTH + self.head(framing))
                assert wire.answer().status == 200
                assert wire.interim() == 100
                wire.send(self.FRAMINGS[framing])
                assert wire.answer().status == 401

    @pytest.mark.parametrize("framing", FRAMINGS)
    def test_a_body_without_expect_gets_no_100_continue(self, server: Server, framing: str) -> None:
        with connected(server.url) as wire:
            wire.send(self.head(framing) + self.FRAMINGS[framing])
            answer = wire.answer()
            assert (answer.status, answer.interim) == (401, [])

    @pytest.mark.parametrize(
        ("head", "status"),
        [
            ("content-length: 65537", 413),
            ("content-length: x", 400),
            ("content-length: 2\r\nexpect: more", 400),
            ("transfer-encoding: gzip", 501),
        ],
    )
    def test_a_refusal_comes_before_the_body(self, server: Server, head: str, status: int) -> None:
        with connected(server.url) as wire:
            wire.send(self.head(head))
            answer = wire.answer()
            assert (answer.status, answer.interim) == (status, [])
            assert wire.rest() == b""

    def test_http_1_0_gets_no_100_continue(self, server: Server) -> None:
        with connected(server.url) as wire:
            wire.send_in_parts([self.head("content-length: 2", version="1.0"), b"{}"])
            answer = wire.answer()
            assert (answer.status, answer.interim) == (401, [])


TOO_LONG = {
    "target": (414, "a" * 32_768, ""),
    "query": (414, "a?" + "a" * 70_000, ""),
    "header": (431, "", "a: " + "b" * 65_536 + "\r\n"),
    "short headers": (431, "", "a: b\r\n" * 12_000),
    "many headers": (431, "", "a: b\r\n" * 100),
}
METHODS = ("GET", "HEAD")


class TestLongHeads:
    @pytest.mark.parametrize("path", ["/", "/v1/forward-auth?", "/v1/keys"])
    @pytest.mark.parametrize("name", TOO_LONG)
    def test_they_are_refused_to_head_as_to_get(self, server: Server, name: str, path: str) -> None:
        status, more, headers = TOO_LONG[name]
        told = []
        for method in METHODS:
            with connected(server.url) as wire:
                sent = f"{method} {path}{more} HTTP/1.1\r\nhost: a\r\n{headers}\r\n"
                wire.send(sent.encode() + HEALTH)
                answer = wire.answer(method)
                assert answer.status == status
                assert wire.rest() == b""
                told.append({each for each in answer.headers if each[0] not in UNEQUAL})
        assert told[0] == told[1]

    @pytest.mark.parametrize("method", METHODS)
    def test_the_longest_ones_are_read(self, server: Server, method: str) -> None:
        line = f"{method} /nowhere?".ljust(32_768 - len(" HTTP/1.1\r\n"), "a") + " HTTP/1.1\r\n"
        head = f"{method} /nowhere HTTP/1.1\r\nhost: a\r\na: ".ljust(65_536 - 4, "b") + "\r\n\r\n"
        with connected(server.url) as wire:
            wire.send(f"{line}host: a\r\n\r\n{head}".encode())
            # The longest query of a route is shorter than that of HTTP.
            assert [wire.answer(method).status for _ in range(2)] == [414, 404]
            assert is_served(wire)

    def test_others_of_the_same_turn_are_answered(self, server: Server, root: Client) -> None:
        """The server is stopped while all requests arrive, so it reads them in one turn."""
        check = f"GET /v1/forward-auth HTTP/1.1\r\nhost: a\r\nx-api-key: {root.token}\r\n\r\n"
        long = f"GET /v1/forward-auth?{'a' * 65_536} HTTP/1.1\r\nhost: a\r\n\r\n"
        with ExitStack() as wires:
            opened = [wires.enter_context(connected(server.url)) for _ in range(8)]
            assert all(is_served(wire) for wire in opened)
            os.kill(server.pid, signal.SIGSTOP)
            os.waitpid(server.pid, os.WUNTRACED)
            try:
                for number, wire in enumerate(opened):
                    wire.send((long if number % 4 == 1 else check).encode())
            finally:
                os.kill(server.pid, signal.SIGCONT)
            statuses = [wire.answer().status for wire in opened]
        assert statuses == [204, 414, 204, 204] * 2
