"""Limits on what one client or one address can take of a server, and on how long."""

import select
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from tests.system.clients import Client, Json, answered
from tests.system.processes import PATIENCE, Server, eventually, servers_in
from tests.system.raw_http import Answer, Wire, connected

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

SHORT: Json = {
    "head_seconds": 1.0,
    "body_seconds": 1.0,
    "keep_alive_seconds": 3.0,
    "write_seconds": 1.0,
}
DRIP_SECONDS = 0.1
"""Pause between two bytes of clients that are slow on purpose, shorter than each timeout."""

GET = b"GET /v1/keys HTTP/1.1\r\nhost: a\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"
CHECK = b"GET /v1/forward-auth HTTP/1.1\r\nhost: a\r\n\r\n"
LARGE = b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n"
HUGE = "/docs/swagger-ui-bundle.js"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Site:
    """A server with short timeouts, and a client of another one of the same ledger."""

    impatient: Server
    root: Client
    wires: ExitStack

    def wire(self, *, receive_bytes: int = 0) -> Wire:
        url = self.impatient.url
        return self.wires.enter_context(connected(url, receive_bytes=receive_bytes))


@pytest.fixture(scope="module")
def servers_of_one_ledger(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Server, Server]]:
    with servers_in(tmp_path_factory.mktemp("impatient")) as servers:
        yield servers.start(), servers.start(**SHORT)


@pytest.fixture
def site(servers_of_one_ledger: tuple[Server, Server]) -> Iterator[Site]:
    patient, impatient = servers_of_one_ledger
    with ExitStack() as wires:
        yield Site(impatient, patient.client(), wires)


def post(path: str, token: str, framing: bytes, request_id: str = "mine") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n"
        f"content-type: application/json\r\nx-request-id: {request_id}\r\n"
    ).encode() + framing


def drip(wires: Sequence[Wire], byte: bytes) -> None:
    """Send a byte on each connection again and again, until the server answers it or ends it."""
    left = {wire.socket: wire for wire in wires}
    deadline = time.monotonic() + PATIENCE
    while left:
        assert time.monotonic() < deadline, "the server waits for ever"
        for answered_one in select.select(list(left), [], [], DRIP_SECONDS)[0]:
            left.pop(answered_one)
        for wire in left.values():
            wire.send(byte)


def is_timeout(answer: Answer) -> bool:
    return (
        (answer.status, answer.header("connection")) == (408, "close")
        and answer.header("content-type") == "application/problem+json"
        and answer.json["code"] == "REQUEST_TIMEOUT"
        and answer.json["request_id"] == answer.request_id
    )


def descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


UNFINISHED_HEADS = {
    "method": b"GE",
    "request line": b"GET /v1/keys HTTP/1.1\r\n",
    "header": GET + b"x-a: ",
    "no empty line": GET,
    "half of the empty line": GET + b"\r",
    "empty line before": b"\r\n",
}
BEHIND = {"nothing": b"", "an answer of the fast path": CHECK, "one of the application": HEALTH}


class TestDeadlineOfTheHead:
    """The first request counts from the start of its connection, each other from its first byte."""

    def begun(self, site: Site) -> Iterator[tuple[str, Wire]]:
        """Give connections that have answered nothing, and one request of each path."""
        for behind, request in BEHIND.items():
            wire = site.wire()
            if request:
                wire.send(request)
                assert wire.answer().status in {200, 401}
            yield behind, wire

    def test_a_head_that_does_not_end_is_answered_by_408(self, site: Site) -> None:
        begun = [
            (name, behind, wire) for name in UNFINISHED_HEADS for behind, wire in self.begun(site)
        ]
        for name, _, wire in begun:
            wire.send(UNFINISHED_HEADS[name])
        for name, behind, wire in begun:
            assert is_timeout(wire.answer()), (name, behind)
            assert wire.rest() == b""

    def test_bytes_that_come_one_by_one_do_not_prolong_it(self, site: Site) -> None:
        wires = [wire for _, wire in self.begun(site)]
        for wire in wires:
            wire.send(GET + b"x-a: ")
        drip(wires, b"a")
        assert all(is_timeout(wire.answer()) for wire in wires)

    def test_a_silent_connection_is_closed_without_an_answer(self, site: Site) -> None:
        wires = [wire for _, wire in self.begun(site)]
        assert [wire.rest() for wire in wires] == [b""] * len(wires)


UNFINISHED_BODIES = {
    "nothing of it": b"content-length: 20\r\n\r\n",
    "a part of it": b'content-length: 20\r\n\r\n{"reason": ',
    "all but a byte": b'content-length: 16\r\n\r\n{"reason": "a"}',
    "size of a chunk": CHUNKED + b"f",
    "line end of a size": CHUNKED + b"f\r",
    "data of a chunk": CHUNKED + b'f\r\n{"reas',
    "end of a chunk": CHUNKED + b'f\r\n{"reason": "a"}',
    "last chunk": CHUNKED + b'f\r\n{"reason": "a"}\r\n',
    "end of the trailers": CHUNKED + b'f\r\n{"reason": "a"}\r\n0\r\n',
    "line of a trailer": CHUNKED + b'f\r\n{"reason": "a"}\r\n0\r\na: b',
}
SLOW_BODIES = {
    "length": b"content-length: 9999\r\n\r\n",
    "chunk": CHUNKED + b"fff\r\n",
    "extension": CHUNKED + b"1;",
    "trailer": CHUNKED + b"0\r\na: ",
}


class TestDeadlineOfTheBody:
    def test_a_request_whose_body_does_not_end_has_no_effect(self, site: Site) -> None:
        begun = {}
        for name, framing in UNFINISHED_BODIES.items():
            key = answered(site.root.create(name), 201)["key_id"]
            begun[key] = wire = site.wire()
            wire.send(post(f"/v1/keys/{key}/revoke", site.root.token, framing, key))
        for key, wire in begun.items():
            answer = wire.answer()
            assert is_timeout(answer)
            assert answer.request_id == key
            assert wire.rest() == b""
            assert site.root.show(key)["status"] == "active"

    def test_bytes_that_come_one_by_one_do_not_prolong_it_for_ever(self, site: Site) -> None:
        wires = []
        for framing in SLOW_BODIES.values():
            wires.append(site.wire())
            wires[-1].send(post("/v1/verify", site.root.token, framing))
        drip(wires, b"a")
        assert all(is_timeout(wire.answer()) for wire in wires)

    def test_it_begins_anew_with_each_request(self, site: Site) -> None:
        wire = site.wire()
        framing = b"content-length: 2\r\n\r\n"
        for _ in range(2):
            wire.send_in_parts([post("/v1/verify", site.root.token, framing), b"{}"])
            assert wire.answer().status == 422
        wire.send(post("/v1/verify", site.root.token, framing + b"{"))
        assert is_timeout(wire.answer())


BEHIND_UNREAD = {
    "nothing": b"",
    "begun head": b"GET /v1",
    "unfinished head": GET,
    "unfinished body": post("/v1/verify", "", b"content-length: 9\r\n\r\n"),
    "refused": b"nonsense\r\n\r\n",
    "another one": LARGE,
    "a check": CHECK,
}


class TestClientThatDoesNotRead:
    """Its connection ends after the timeout, whatever the server waits for by then."""

    def fill(self, wire: Wire, request: bytes) -> None:
        """Send a request again and again, until the server takes no more."""
        wire.socket.setblocking(False)  # noqa: FBT003 - as the standard library has it
        many = request * 200
        at = 0
        while select.select([], [wire.socket], [], 0.2)[1]:
            with suppress(BlockingIOError):
                at = (at + wire.socket.send(many[at:])) % len(many)

    def test_it_is_not_read_either(self, site: Site) -> None:
        before = descriptors(site.impatient)
        for request in (CHECK, HEALTH, LARGE):
            self.fill(self.stalled(site), request)
        eventually(lambda: descriptors(site.impatient) <= before, "the connections have ended")

    def stalled(self, site: Site) -> Wire:
        """Give a connection on which the server has answered more than the systems take."""
        wire = site.wire(receive_bytes=4096)
        size = int(site.root.http.head(HUGE).headers["content-length"])
        produced = 0
        while wire.delivered() >= produced:
            request_id = f"huge-{next(self.numbers)}"
            head = f"GET {HUGE} HTTP/1.1\r\nhost: a\r\nx-request-id: {request_id}\r\n\r\n"
            wire.send(head.encode())
            eventually(lambda each=request_id: each in site.impatient.log, "it is answered")  # type: ignore[misc]
            produced += size
            # When this is answered, the server has tried to send the answer before it.
            with connected(site.impatient.url) as other:
                other.send(CHECK)
                other.answer()
        return wire

    numbers = count(1)

    @pytest.mark.parametrize("ends_sending", [False, True])
    def test_it_is_ended_whatever_is_behind_the_unread_answer(
        self, site: Site, *, ends_sending: bool
    ) -> None:
        before = descriptors(site.impatient)
        for behind in BEHIND_UNREAD.values():
            wire = self.stalled(site)
            wire.send(behind)
            if ends_sending:
                wire.wait_until_read()
                wire.end_sending()
        eventually(lambda: descriptors(site.impatient) <= before, "the connections have ended")
