"""Framing on every route: one message in, one answer out, in order, over sockets.

The cases are those of the suite that tests the message reader alone and splits them at every byte.
Here a server answers them, so the code around the reader is tested, too.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import pytest

from tests.api.http.protocol.test_framing import LIMITS, LONG, REFUSED, SMUGGLED, WHOLE
from tests.system.clients import answered
from tests.system.framed_routes import NAMES, ROTATED_AS, Route, cuts, routes
from tests.system.processes import Server, servers_in
from tests.system.raw_http import Answer, connected

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

TRAILERS = {
    "trailers that name the source and the request": WHOLE["trailers"].replace(
        b"x-api-key: a\r\n", b"x-forwarded-for: 203.0.113.9\r\nx-request-id: forged\r\n"
    ),
}
ACCEPTED = WHOLE | TRAILERS
CASES = {**ACCEPTED, **REFUSED, **LONG}
MOST_TO_SHOW = 5
BYTE_BY_BYTE = {"verify", "keys"}
"""Routes whose messages arrive byte by byte, too: one of each of the two paths."""

IN_EVERY_DIVISION = {"forward-auth", "verify"}
FEW = 2
"""Divisions of a message for another route; each place is among those of some case or route."""


@dataclass(frozen=True)
class Site:
    """A server, and what can be asked of it."""

    server: Server
    routes: dict[str, Route]
    good: Route
    numbers: Iterator[int]

    def next_id(self) -> str:
        return f"m{next(self.numbers)}"

    def asked(self) -> Iterator[tuple[Route, bytes, int]]:
        """Give each route with each body that is sent there, and the status of the answer."""
        for route in self.routes.values():
            for body, status in route.bodies.items():
                yield route, body, status

    def good_request(self, request_id: str) -> bytes:
        return self.good.start(request_id) + b"\r\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with servers_in(tmp_path_factory.mktemp("framing")) as servers:
        server = servers.start(
            trusted_proxies="127.0.0.1",
            max_head_bytes=LIMITS.head_bytes,
            max_body_bytes=LIMITS.body_bytes,
        )
        root = server.client()
        admin = answered(root.create("admin", ["*"]), 201)
        client = server.client(admin["token"])
        rotated, revoked = (answered(client.create(name), 201)["key_id"] for name in "ab")
        answered(client.rotate(rotated, 3600, idempotency_key=ROTATED_AS), 201)
        answered(client.revoke(revoked))
        found = {each.name: each for each in routes(admin["token"], rotated, revoked)}
        yield Site(server, found, found["forward-auth"], count(1))


def chosen(route: Route, body: bytes, name: str, places: list[int]) -> list[int]:
    """Return the places at which a message for a route is divided."""
    if route.name in IN_EVERY_DIVISION and (body == route.body or not route.body):
        return places
    first = (list(CASES).index(name) * FEW + NAMES.index(route.name)) % len(places)
    return [*places[first:], *places[:first]][:FEW]


def is_answer(answer: Answer, route: Route, request_id: str, body: bytes, status: int) -> bool:
    """Tell whether an answer is the right one to a request."""
    right_body = body == route.body or not route.body
    shown = route.method == "HEAD" or not right_body or route.shows in answer.body
    return (
        answer.status == status
        and answer.request_id == request_id
        and shown
        and answer.interim in ([], [100])
        and not (route.method == "HEAD" and answer.body)
    )


def is_refusal(answer: Answer, status: int, own_id: str) -> bool:
    """Tell whether an answer refuses a message, and says the id of that one or a new one."""
    request_id = answer.request_id or ""
    return (
        answer.status == status
        and (request_id == own_id or request_id.startswith("req_"))
        and answer.header("connection") == "close"
        and answer.header("content-type") == "application/problem+json"
    )


class TestOneAnswerToEachMessage:
    @pytest.mark.parametrize("name", ACCEPTED)
    def test_between_good_requests_in_every_division(self, site: Site, name: str) -> None:
        """The answer to the good request shows that the server has read the part behind it."""
        wrong: list[object] = []
        for route, body, status in site.asked():
            ours = site.next_id()
            message = route.message(ACCEPTED[name], ours, body)
            places = chosen(route, body, name, cuts(message, route.start(ours)))
            with connected(site.server.url) as wire:
                for cut in [len(message), *places]:
                    good, ours, after = site.next_id(), site.next_id(), site.next_id()
                    message = route.message(ACCEPTED[name], ours, body)
                    wire.send(site.good_request(good) + message[:cut])
                    before = wire.answer()
                    wire.send(message[cut:] + site.good_request(after))
                    answer, following = wire.answer(route.method), wire.answer()
                    if not (
                        is_answer(before, site.good, good, b"", 204)
                        and is_answer(answer, route, ours, body, status)
                        and is_answer(following, site.good, after, b"", 204)
                    ):
                        wrong.append((route.name, cut, before, answer, following))
                wire.end_sending()
                assert wire.rest() == b""
        assert wrong[:MOST_TO_SHOW] == []

    @pytest.mark.parametrize("name", ACCEPTED)
    def test_alone_on_a_connection(self, site: Site, name: str) -> None:
        for route, body, status in site.asked():
            ours, last = site.next_id(), site.next_id()
            message = route.message(ACCEPTED[name], ours, body)
            divided = [[message]]
            if route.name in BYTE_BY_BYTE and body == SMUGGLED:
                at = message.index(ours.encode()) + len(ours)
                divided.append([message[:at], *(bytes([each]) for each in message[at:])])
            for parts in divided:
                with connected(site.server.url) as wire:
                    wire.send_in_parts(parts)
                    answer = wire.answer(route.method)
                    assert is_answer(answer, route, ours, body, status), (route.name, answer)
                    # Were a byte of the message left, this would not be answered, or not alone.
                    wire.send(site.good.start(last) + b"connection: close\r\n\r\n")
                    assert is_answer(wire.answer(), site.good, last, b"", 204), route.name
                    assert wire.rest() == b""

    @pytest.mark.parametrize("name", NAMES)
    def test_all_cases_at_once_on_one_connection(self, site: Site, name: str) -> None:
        route = site.routes[name]
        body, status = next(reversed(route.bodies.items()))
        ids = {site.next_id(): case for case in ACCEPTED.values()}
        with connected(site.server.url) as wire:
            wire.send(b"".join(route.message(case, each, body) for each, case in ids.items()))
            for each in ids:
                assert is_answer(wire.answer(route.method), route, each, body, status)
            wire.end_sending()
            assert wire.rest() == b""


def refused(site: Site, parts: list[bytes], *, behind_good: bool) -> Answer:
    """Send a message that is refused, and a good one behind it; return the one answer to them."""
    last = site.good_request(site.next_id())
    with connected(site.server.url) as wire:
        first, *others = parts
        if behind_good:
            good = site.next_id()
            wire.send(site.good_request(good) + first)
            assert is_answer(wire.answer(), site.good, good, b"", 204)
        else:
            wire.send(first)
        wire.wait_until_read()
        wire.send_in_parts([*others[:-1], b"".join(others[-1:]) + last])
        # The answer to HEAD has no body: so it is read as one that has none, and the rest later.
        answer = wire.answer("HEAD")
        answer.body = wire.rest()
        return answer


class TestRefused:
    @pytest.mark.parametrize("name", REFUSED)
    def test_nothing_behind_it_is_read(self, site: Site, name: str) -> None:
        status, case = REFUSED[name]
        wrong: list[object] = []
        for number, route in enumerate(site.routes.values()):
            ours = site.next_id()
            message = route.message(case, ours)
            start = route.start(ours) if message != case else b"\r\n"
            places = [*chosen(route, b"", name, cuts(message, start)), len(message)]
            for cut in places:
                parts = [each for each in (message[:cut], message[cut:]) if each]
                answer = refused(site, parts, behind_good=(cut + number) % 3 > 0)
                length = int(answer.header("content-length") or "-1")
                # The method of a message that begins with more than an empty line is not known.
                if re.match(rb"(\r\n)?HEAD ", message):
                    length = 0
                if not (is_refusal(answer, status, ours) and len(answer.body) == length):
                    wrong.append((route.name, cut, answer))
        assert wrong[:MOST_TO_SHOW] == []

    @pytest.mark.parametrize("name", LONG)
    def test_oversized_values(self, site: Site, name: str) -> None:
        status, case = LONG[name]
        for number, route in enumerate(site.routes.values()):
            ours = site.next_id()
            message = route.message(case, ours)
            for size in (len(message), (1000, 4095, 4096, 4097)[number % 4]):
                parts = [message[at : at + size] for at in range(0, len(message), size)]
                for behind_good in (False, True):
                    answer = refused(site, parts, behind_good=behind_good)
                    assert is_refusal(answer, status, ours), (route.name, size, answer)
