"""The protocol in front of the application: complete verifications are answered without it."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from unittest.mock import patch
from uuid import UUID

import httptools
import pytest
import uvloop
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.server import ServerState

from api.app import create_app
from api.composition import OpenLedger
from api.http.verification.uvicorn_protocol import CheckProtocol
from api.settings import Settings
from domain.caller import Actor, Caller
from domain.errors import LedgerUnavailable
from domain.verifiers import CHEAPEST
from projections.auth.freshness import Freshness
from tests.api.served import NewLedger
from tests.conftest import SettableClock
from tests.raw_sql import sql

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

T = TypeVar("T")
MAKER = Caller(Actor("cli", "ada"), holds=("*",))
PATIENCE = 20.0
DATE = (b"date", b"Tue, 03 Mar 2026 12:00:00 GMT")


@dataclass
class Response:
    """An answer as bytes on the wire."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""

    @property
    def without_id(self) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        named = sorted(header for header in self.headers if header[0] != b"x-request-id")
        return self.status, named, self.body if self.status == 200 else b""


class Wire(asyncio.Transport):
    """The server's end of a connection; the test is the other end."""

    def __init__(self, protocol: CheckProtocol) -> None:
        super().__init__({"peername": ("192.0.2.7", 50_000), "sockname": ("192.0.2.1", 80)})
        self.responses: list[Response] = []
        self.closed = False
        self._more = asyncio.Event()
        self._parser = httptools.HttpResponseParser(self)
        self._protocol = protocol
        protocol.connection_made(self)

    def receive(self, data: bytes) -> None:
        """Pass bytes to the server, in this turn of its event loop."""
        self._protocol.data_received(data)

    async def answers(self, count: int) -> list[Response]:
        """Wait until this many answers have arrived in total."""
        async with asyncio.timeout(PATIENCE):
            while len(self.responses) < count and not self.closed:
                self._more.clear()
                await self._more.wait()
        return self.responses

    def on_message_begin(self) -> None:
        self._response = Response()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._response.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        self._response.body += body

    def on_message_complete(self) -> None:
        self._response.status = self._parser.get_status_code()
        if self._response.status != 100:
            self.responses.append(self._response)
        self._more.set()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data:
            self._parser.feed_data(bytes(data))

    def close(self) -> None:
        self.closed = True
        self._more.set()

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.close()

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Watched:
    """An application that records the requests that reach it."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.paths: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.paths.append(scope["path"])
        await self.app(scope, receive, send)


@dataclass
class ServedApp:
    """A ledger behind the protocol, and tokens of its keys."""

    app: FastAPI
    root: str
    loop_factory: Callable[[], asyncio.AbstractEventLoop]
    watched: Watched = field(init=False)
    tokens: dict[str, str] = field(default_factory=dict)
    key_ids: dict[str, str] = field(default_factory=dict)

    def run(self, scene: Callable[[Callable[[], Wire]], Awaitable[T]]) -> T:
        """Run a coroutine on its own event loop; it gets a function that opens connections."""

        async def play() -> T:
            self.watched = Watched(self.app)
            async with self.app.router.lifespan_context(self.app) as state:
                config = Config(self.watched, http=CheckProtocol, log_config=None, access_log=False)
                config.load()
                server = ServerState()
                server.default_headers = [DATE]
                self._make_keys()

                def connect() -> Wire:
                    return Wire(CheckProtocol(config, server, dict(state or {})))

                result = await scene(connect)
                await asyncio.gather(*server.tasks)
                return result

        with asyncio.Runner(loop_factory=self.loop_factory) as runner:
            return runner.run(play())

    @property
    def ledger(self) -> OpenLedger:
        ledger: OpenLedger = self.app.state.ledger
        return ledger

    def _make_keys(self) -> None:
        for name, scopes in {"reader": ["mcp:read"], "verifier": ["api-keys:verify"]}.items():
            if name not in self.tokens:
                issued = self.ledger.ledger.create_key(
                    workspace="acme",
                    name=name,
                    scopes=scopes,
                    expires_at=None,
                    token_prefix="key",
                    by=MAKER,
                    at=self.ledger.clock(),
                )
                assert issued.token is not None
                self.tokens[name] = issued.token.reveal()
                self.key_ids[name] = issued.key_id

    def revoke(self, name: str) -> None:
        """Revoke a key; when this returns, the change is acknowledged."""
        self.ledger.ledger.revoke_key(
            self.key_ids[name],
            workspace="acme",
            reason=None,
            comment=None,
            by=MAKER,
            at=self.ledger.clock(),
        )

    def get(self, token: str = "reader", target: str = "/v1/forward-auth?scope=mcp:read") -> bytes:
        return self.request("GET", target, token)

    def post(self, token: str = "reader", caller: str = "verifier", *more: str) -> bytes:
        body = f'{{"token": "{self.tokens[token]}"}}'
        return self.request("POST", "/v1/verify", caller, *more, body=body)

    def request(self, method: str, target: str, token: str, *more: str, body: str = "") -> bytes:
        lines = [f"{method} {target} HTTP/1.1", "host: ledger", *more]
        if token:
            lines.append(f"authorization: Bearer {self.tokens.get(token, token)}")
        if body:
            lines += ["content-type: application/json", f"content-length: {len(body)}"]
        return "\r\n".join([*lines, "", body]).encode()


@contextmanager
def make_served_app(
    new_ledger: NewLedger,
    served_settings: Settings,
    clock: SettableClock,
    loop_factory: Callable[[], asyncio.AbstractEventLoop],
) -> Iterator[ServedApp]:
    app = create_app(served_settings, clock=clock, argon2_profile=CHEAPEST)
    yield ServedApp(app, new_ledger.root.token, loop_factory)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def served_app(
    new_ledger: NewLedger,
    served_settings: Settings,
    clock: SettableClock,
    request: pytest.FixtureRequest,
) -> Iterator[ServedApp]:
    with make_served_app(new_ledger, served_settings, clock, request.param) as served_app:
        yield served_app


def one_by_one(served_app: ServedApp, requests: Callable[[], Sequence[bytes]]) -> list[Response]:
    """Send each complete request on its own connection; return the answers."""

    async def scene(connect: Callable[[], Wire]) -> list[Response]:
        answers = []
        for request in requests():
            wire = connect()
            wire.receive(request)
            answers += await wire.answers(1)
        return answers

    return served_app.run(scene)


class TestWithoutTheApplication:
    """A usual, complete verification does not reach the application, with the same answer."""

    def test_a_forward_auth_request(self, served_app: ServedApp) -> None:
        (answer,) = one_by_one(served_app, lambda: [served_app.get()])

        assert answer.status == 204
        assert (b"x-auth-key-id", served_app.key_ids["reader"].encode()) in answer.headers
        assert DATE in answer.headers
        assert served_app.watched.paths == []

    def test_a_forward_auth_request_with_a_bad_token(self, served_app: ServedApp) -> None:
        answers = one_by_one(
            served_app,
            lambda: [
                served_app.get("no token"),
                served_app.get(served_app.tokens["reader"][:-1] + "!"),
                served_app.get("verifier"),
            ],
        )

        assert [answer.status for answer in answers] == [401, 401, 403]
        assert served_app.watched.paths == []

    def test_a_verify(self, served_app: ServedApp) -> None:
        (answer,) = one_by_one(served_app, lambda: [served_app.post()])

        assert answer.status == 200
        assert b'"valid":true' in answer.body
        assert served_app.watched.paths == []

    def test_the_application_would_have_given_the_same_answer(self, served_app: ServedApp) -> None:
        def requests() -> list[bytes]:
            plain = [
                served_app.get(),
                served_app.post(),
                served_app.post("verifier"),
                served_app.get("verifier"),
            ]
            # A request that asks to close the connection is answered by the application.
            return [
                each
                for one in plain
                for each in (one, one.replace(b"host", b"connection: close\r\nhost", 1))
            ]

        answers = one_by_one(served_app, requests)

        assert len(served_app.watched.paths) == 4
        for alone, by_app in zip(answers[::2], answers[1::2], strict=True):
            closing = (b"connection", b"close")
            by_app.headers.remove(closing)
            assert alone.without_id == by_app.without_id

    def test_one_connection_serves_any_number_of_them(self, served_app: ServedApp) -> None:
        async def scene(connect: Callable[[], Wire]) -> list[int]:
            wire = connect()
            for sent in range(20):
                wire.receive(served_app.get() if sent % 2 else served_app.post())
                await wire.answers(sent + 1)
            return [answer.status for answer in wire.responses]

        assert served_app.run(scene) == [200, 204] * 10
        assert served_app.watched.paths == []


class TestLeftToTheApplication:
    """Refused, unusual and incomplete requests reach the application once, and complete."""

    @pytest.mark.parametrize(
        ("more", "status"),
        [
            (["connection: close"], 200),
            (["expect: 100-continue"], 200),
            (["x-one: 1", "x-one: 2"], 200),
            (["x-api-key: another"], 401),
        ],
    )
    def test_an_unusual_request_goes_to_the_application(
        self, served_app: ServedApp, more: list[str], status: int
    ) -> None:
        (answer,) = one_by_one(served_app, lambda: [served_app.post("reader", "verifier", *more)])

        assert answer.status == status
        assert served_app.watched.paths == ["/v1/verify"]

    def test_refused_bodies(self, served_app: ServedApp) -> None:
        answers = one_by_one(
            served_app,
            lambda: [
                served_app.get("", "/v1/forward-auth"),
                served_app.get("reader", "/v1/forward-auth?scoop=mcp:read"),
                served_app.get("reader", "/v1/forward-auth/scopes/mcp:read/x"),
                served_app.post("reader", "reader"),
                served_app.post("reader", ""),
            ],
        )

        assert [answer.status for answer in answers] == [401, 403, 200, 403, 401]
        assert len(served_app.watched.paths) == 5

    def test_an_offer_of_another_protocol(self, served_app: ServedApp) -> None:
        offer = b"connection: upgrade\r\nupgrade: h2c\r\nhost"
        (answer,) = one_by_one(served_app, lambda: [served_app.get().replace(b"host", offer, 1)])

        # The offer is ignored (RFC 9110, section 7.8), so this is a request like any other.
        assert answer.status == 204
        assert served_app.watched.paths == []

    def test_http_1_0(self, served_app: ServedApp) -> None:
        (answer,) = one_by_one(
            served_app, lambda: [served_app.get().replace(b"HTTP/1.1", b"HTTP/1.0")]
        )

        assert answer.status == 204
        assert served_app.watched.paths == ["/v1/forward-auth"]

    def test_an_unavailable_ledger(self, served_app: ServedApp) -> None:
        with patch.object(Freshness, "check", side_effect=LedgerUnavailable("no")):
            answers = one_by_one(served_app, lambda: [served_app.get(), served_app.post()])

        assert [answer.status for answer in answers] == [503, 503]
        assert served_app.watched.paths == ["/v1/forward-auth", "/v1/verify"]

    def test_a_damaged_row_does_not_delay_other_keys(self, served_app: ServedApp) -> None:
        async def scene(connect: Callable[[], Wire]) -> list[int]:
            statement = "UPDATE auth_lookup SET scopes = 'no' WHERE name = 'reader'"
            sql(served_app.ledger.database.url, statement)
            wires = [connect() for _ in range(3)]
            # The damaged one comes first; the others arrive in the same turn.
            for wire, token in zip(wires, ("reader", "verifier", "verifier"), strict=True):
                wire.receive(served_app.get(token, "/v1/forward-auth"))
            return [(await wire.answers(1))[0].status for wire in wires]

        assert served_app.run(scene) == [503, 204, 204]

    @pytest.mark.parametrize("long_target", [True, False])
    def test_an_error_of_one_connection_leaves_the_others_of_the_turn_alone(
        self, served_app: ServedApp, *, long_target: bool
    ) -> None:
        async def scene(connect: Callable[[], Wire]) -> list[int]:
            wires = [connect() for _ in range(3)]
            first, *others = wires
            if long_target:
                first.receive(served_app.get("reader", "/v1/forward-auth?" + "a" * 65_536))
            else:
                first.receive(served_app.get())
            for wire in others:
                wire.receive(served_app.get())
            protocol = first._protocol  # noqa: SLF001 - the server's side of the wire
            with patch.object(protocol, "is_closing", side_effect=ValueError("planted")):
                return [(await wire.answers(1))[0].status for wire in wires]

        assert served_app.run(scene) == [414 if long_target else 500, 204, 204]

    def test_a_forged_event_does_not_block_other_keys(self, served_app: ServedApp) -> None:
        async def scene(connect: Callable[[], Wire]) -> list[int]:
            wire = connect()
            wire.receive(served_app.get())
            await wire.answers(1)
            statement = "INSERT INTO events VALUES (900, ?, 1, 'Nothing', ?, NULL)"
            sql(served_app.ledger.database.url, statement, UUID(int=0), bytes(1))
            wire.receive(served_app.get())
            return [answer.status for answer in await wire.answers(2)]

        assert served_app.run(scene) == [204, 204]
        assert served_app.watched.paths == []

    def test_a_body_in_chunks(self, served_app: ServedApp) -> None:
        def requests() -> list[bytes]:
            head, _, body = served_app.post().partition(b"\r\n\r\n")
            head = head.replace(b"content-length: %d" % len(body), b"transfer-encoding: chunked")
            chunks = b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (9, body[:9], len(body) - 9, body[9:])
            return [head + b"\r\n\r\n" + chunks]

        (answer,) = one_by_one(served_app, requests)

        assert answer.status == 200

    def test_a_connection_that_ends_before_it_is_answered(self, served_app: ServedApp) -> None:
        async def scene(connect: Callable[[], Wire]) -> int:
            wire, other = connect(), connect()
            wire.receive(served_app.get())
            other.receive(served_app.get())
            wire.close()
            wire._protocol.connection_lost(None)  # noqa: SLF001 - what a transport calls
            await other.answers(1)
            return len(wire.responses)

        assert served_app.run(scene) == 0

    def test_a_stop_answers_every_request_in_progress(self, served_app: ServedApp) -> None:
        async def scene(connect: Callable[[], Wire]) -> list[Response]:
            wire = connect()
            wire.receive(served_app.get())
            wire._protocol.shutdown()  # noqa: SLF001 - what uvicorn calls
            return await wire.answers(1)

        (answer,) = served_app.run(scene)
        assert answer.status == 204
        assert (b"connection", b"close") in answer.headers


KINDS = ["get", "post", "refused get", "refused post", "unusual post", "closing", "probe"]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kinds=st.lists(st.sampled_from(KINDS[:5] + KINDS[6:]), min_size=1, max_size=5),
    cuts=st.lists(st.floats(0, 1), max_size=4),
    manner=st.frozensets(st.sampled_from(["the last closes", "each piece in a turn of its own"])),
)
def test_requests_sent_in_one_breath_in_any_pieces_are_answered_in_their_order(
    served_app: ServedApp, kinds: list[str], cuts: list[float], manner: frozenset[str]
) -> None:
    expected = {
        "get": 204, "post": 200, "refused get": 403, "refused post": 403, "unusual post": 200,
        "closing": 204, "probe": 200,
    }  # fmt: skip
    asked = [*kinds, "closing"] if "the last closes" in manner else kinds

    async def scene(connect: Callable[[], Wire]) -> list[Response]:
        forms = {
            "get": served_app.get(),
            "post": served_app.post(),
            "refused get": served_app.get("verifier"),
            "refused post": served_app.post("verifier", "reader"),
            "unusual post": served_app.post("reader", "verifier", "x-one: 1", "x-one: 2"),
            "closing": served_app.get().replace(b"host", b"connection: close\r\nhost", 1),
            "probe": served_app.request("GET", "/healthz", ""),
        }
        sent = b"".join(forms[kind] for kind in asked)
        pieces = sorted(int(cut * len(sent)) for cut in cuts)
        wire = connect()
        for start, end in zip([0, *pieces], [*pieces, len(sent)], strict=True):
            wire.receive(sent[start:end])
            if "each piece in a turn of its own" in manner:
                await asyncio.sleep(0)
        return await wire.answers(len(asked))

    answers = served_app.run(scene)
    assert [answer.status for answer in answers] == [expected[kind] for kind in asked]


class TestOneFreshnessCheckForMany:
    """All requests of a turn share a freshness check, which began after the last one arrived."""

    @pytest.fixture
    def checks(self) -> Iterator[list[int]]:
        """Count the freshness checks."""
        begun: list[int] = []
        check = Freshness.check

        def counted(freshness: Freshness) -> None:
            begun.append(1)
            check(freshness)

        with patch.object(Freshness, "check", counted):
            yield begun

    def test_requests_that_arrive_together_share_one_check(
        self, served_app: ServedApp, checks: list[int]
    ) -> None:
        async def scene(connect: Callable[[], Wire]) -> list[int]:
            wires = [connect() for _ in range(32)]
            for number, wire in enumerate(wires):
                wire.receive(served_app.get() if number % 2 else served_app.post())
            return [(await wire.answers(1))[0].status for wire in wires]

        assert served_app.run(scene) == [200, 204] * 16
        assert len(checks) == 1

    def test_requests_one_after_the_other_have_a_check_each(
        self, served_app: ServedApp, checks: list[int]
    ) -> None:
        async def scene(connect: Callable[[], Wire]) -> None:
            wire = connect()
            for sent in range(5):
                wire.receive(served_app.get())
                await wire.answers(sent + 1)

        served_app.run(scene)
        assert len(checks) == 5

    def test_a_revocation_acknowledged_before_the_last_request_holds_for_all_of_them(
        self, served_app: ServedApp
    ) -> None:
        async def scene(connect: Callable[[], Wire]) -> list[int]:
            before, after = connect(), connect()
            before.receive(served_app.get())
            served_app.revoke("reader")
            after.receive(served_app.get())
            return [(await wire.answers(1))[0].status for wire in (before, after)]

        assert served_app.run(scene) == [401, 401]

    def test_a_second_request_in_one_breath_shares_no_older_answer(
        self, served_app: ServedApp
    ) -> None:
        async def scene(connect: Callable[[], Wire]) -> list[int]:
            wire = connect()
            wire.receive(served_app.get())
            served_app.revoke("reader")
            wire.receive(served_app.get())
            return [answer.status for answer in await wire.answers(2)]

        assert served_app.run(scene) == [401, 401]

    @pytest.mark.parametrize("callers", [1, 8])
    def test_under_load_no_check_that_begins_after_a_revoke_passes(
        self, served_app: ServedApp, callers: int
    ) -> None:
        revoked = threading.Event()
        begun = asyncio.Event()

        async def keep_checking(wire: Wire, until: asyncio.Event) -> int:
            sent = begun_after = 0
            while not until.is_set() or begun_after < 20:
                after = revoked.is_set()
                wire.receive(served_app.get())
                sent += 1
                status = (await wire.answers(sent))[-1].status
                assert status == 401 or not after
                begun_after += after
                begun.set()
                await asyncio.sleep(0)
            return begun_after

        async def scene(connect: Callable[[], Wire]) -> list[int]:
            loop = asyncio.get_running_loop()
            until = asyncio.Event()
            checking = [loop.create_task(keep_checking(connect(), until)) for _ in range(callers)]

            def revoke() -> None:
                served_app.revoke("reader")
                revoked.set()

            await asyncio.wait_for(begun.wait(), PATIENCE)
            await loop.run_in_executor(None, revoke)
            until.set()
            return await asyncio.gather(*checking)

        assert all(count >= 20 for count in served_app.run(scene))
