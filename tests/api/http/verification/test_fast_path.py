"""The fast path answers like the application, or leaves the request to it."""

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise
from typing import Any, NamedTuple, TypeVar
from unittest.mock import patch

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.types import Message, Scope
from structlog.testing import capture_logs

from api.http.protocol.head import Head
from api.http.protocol.messages import Message as HttpMessage
from api.http.verification.fast_path import FastPath
from api.http.verification.fast_requests import may_answer
from api.settings import Settings
from domain.caller import Actor, Caller
from domain.errors import LedgerError, LedgerUnavailable, Overloaded, ProjectionInconsistent
from domain.tokens import Token, mint, parse
from projections.auth.authentication import TryVerify
from projections.auth.freshness import Freshness
from tests.api.served import SOURCE, Api, Key, NewLedger, served
from tests.conftest import NOON, SettableClock
from tests.engines import settings_of
from tests.system.processes import run_json

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

Headers = tuple[tuple[bytes, bytes], ...]
T = TypeVar("T")

JSON: Headers = ((b"content-type", b"application/json"),)
NAMED: Headers = ((b"x-request-id", b"the-one"),)
REQUEST_ID = re.compile(rb"req_[0-9a-f]{32}")
MAKER = Caller(Actor("cli", "ada"), holds=("*",))
VERIFY = "/v1/verify"
FORWARD_AUTH = "/v1/forward-auth"


@dataclass(frozen=True)
class Asked:
    """A request as bytes from the network, in one or more parts."""

    chunks: tuple[bytes, ...]
    headers: Headers = ()
    path: str = VERIFY
    method: str = "POST"
    query: bytes = b""


class Answered(NamedTuple):
    """An answer as bytes to the network."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass
class Exchange:
    """Passes a request to an application, and receives its answer."""

    asked: Asked
    started: list[Message] = field(default_factory=list)
    body: bytes = b""

    def __post_init__(self) -> None:
        *first, last = self.asked.chunks
        self._messages: list[Message] = [
            *({"type": "http.request", "body": chunk, "more_body": True} for chunk in first),
            {"type": "http.request", "body": last, "more_body": False},
        ]

    @property
    def scope(self) -> Scope:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "http",
            "method": self.asked.method,
            "path": self.asked.path,
            "raw_path": self.asked.path.encode(),
            "root_path": "",
            "query_string": self.asked.query,
            "headers": list(self.asked.headers),
            "client": (SOURCE, 50_000),
            "server": ("ledger", 80),
        }

    async def receive(self) -> Message:
        return self._messages.pop(0) if self._messages else {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started.append(message)
        else:
            self.body += message.get("body", b"")

    def answered(self) -> Answered:
        """Return the answer without an id that the server generated."""
        (start,) = self.started
        headers = [(name, REQUEST_ID.sub(b"req", value)) for name, value in start["headers"]]
        return Answered(start["status"], sorted(headers), REQUEST_ID.sub(b"req", self.body))


async def through_the_app(app: FastAPI, asked: Asked) -> Answered:
    exchange = Exchange(asked)
    await app(exchange.scope, exchange.receive, exchange.send)
    return exchange.answered()


def through_the_fast_path(api: Api, asked: Asked) -> Answered | None:
    """Return the answer, or ``None`` if the request is left to the application."""
    app: Any = api.app
    target = b"?".join(filter(None, (asked.path.encode(), asked.query)))
    if not may_answer(asked.method.encode(), target):
        return None
    checked: list[TryVerify | None] = []
    app.state.verification.when_fresh(checked.append)
    (verify,) = checked
    if verify is None:
        return None
    headers = list(asked.headers)
    named = dict(headers)
    repeated = None if len(named) == len(headers) else headers
    head = Head(asked.method.encode(), target, "1.1", named, repeated, 0, True, False)  # noqa: FBT003
    fast_path = FastPath(app.state.verification, app.state.metrics)
    answer = fast_path.answer(HttpMessage(head, b"".join(asked.chunks)), verify)
    if answer is None:
        return None
    status, rest = answer
    lines, _, content = rest.partition(b"\r\n\r\n")
    headers = []
    for line in lines.split(b"\r\n"):
        name, _, value = line.partition(b": ")
        headers.append((name, REQUEST_ID.sub(b"req", value)))
    return Answered(status, sorted(headers), REQUEST_ID.sub(b"req", content))


def on_the_loop(api: Api, function: Callable[..., Any], *arguments: object) -> Any:  # noqa: ANN401 - whatever the function returns
    """Await a function on the event loop that serves the app."""
    assert api.client.portal is not None
    return api.client.portal.call(function, *arguments)


def both_answer(api: Api, asked: Asked) -> Answered:
    """Assert that the fast path answers like the application, or not at all; return the answer."""
    slow: Answered = on_the_loop(api, through_the_app, api.app, asked)
    assert through_the_fast_path(api, asked) in (None, slow), asked
    return slow


def the_fast_path_answers(api: Api, asked: Asked) -> Answered:
    """Assert that the fast path answers, and like the application; return the answer."""
    answer = both_answer(api, asked)
    assert through_the_fast_path(api, asked) == answer
    return answer


def body(token: object, **more: object) -> bytes:
    return json.dumps({"token": token, **more}, ensure_ascii=False).encode()


def bearer(key: Key | str) -> Headers:
    token = key.token if isinstance(key, Key) else key
    return ((b"authorization", f"Bearer {token}".encode("latin-1")),)


@dataclass(frozen=True)
class World:
    """A ledger with a key of every kind, which no test changes."""

    api: Api
    verifier: Key
    tokens: dict[str, str]

    @property
    def headers(self) -> Headers:
        return (*bearer(self.verifier), *JSON, *NAMED)

    def asked(self, *chunks: bytes, **more: Any) -> Asked:  # noqa: ANN401 - fields of `Asked`
        return Asked(chunks, **{"headers": self.headers, **more})


@pytest.fixture(scope="module")
def world(new_ledger: NewLedger, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = new_ledger.copied_to(tmp_path_factory.mktemp("world") / "keyledger-data")
    given = settings_of(folder, expirer_seconds=3600)
    with served(given, new_ledger.root, clock := SettableClock()) as api:
        good = api.make("mcp:read", "mcp:write", name="Zahlungen «ä»  ☂ \U0001f511 \"'<>&")
        ends = (NOON + timedelta(hours=1)).isoformat()
        expired = api.make(expires_at=ends)
        expires = api.make(expires_at=(NOON + timedelta(days=1, microseconds=5)).isoformat())
        revoked = api.revoked("api-keys:verify")
        expired_verifier = api.make("api-keys:verify", expires_at=ends)
        clock.advance(hours=2)
        parsed = parse(good.token)
        assert parsed is not None
        yield World(
            api,
            api.make("api-keys:verify"),
            {
                "good": good.token,
                "everything": api.make("*").token,
                "of a prefix": api.make(prefix="blnk").token,
                "that ends": expires.token,
                "expired": expired.token,
                "expired verifier": expired_verifier.token,
                "revoked": revoked.token,
                "elsewhere": api.make(workspace="elsewhere").token,
                "root's": api.root.token,
                "of default": api.make(workspace="default").token,
                "unknown": mint("key", lambda count: bytes(range(count))).reveal(),
                "wrong secret": Token("key", parsed.lookup_id, "0" * 43).reveal(),
                "wrong prefix": Token("blnk", parsed.lookup_id, parsed.secret).reveal(),
                "wrong checksum": good.token[:-1] + ("0" if good.token[-1] != "0" else "1"),
                "too long": good.token + "0",
                "shorter": good.token[:-1],
                "lookup id alone": f"key_{parsed.lookup_id}",
                "with a blank": f" {good.token}",
                "words": "not a token",
                "empty": "",
                "not ASCII": "key_☂ä" + "0" * 63,
                "not ASCII secret": good.token[:30] + "ä" + good.token[31:],
                "very long": "k" * 900,
            },
        )


USUAL_SCOPES: list[list[str]] = [
    [],
    ["mcp:read"],
    ["mcp:read", "mcp:write"],
    ["mcp:read", "mcp:read"],
    ["*"],
    ["mcp:*"],
    ["billing:refund"],
]
TOKENS = [
    "good", "everything", "of a prefix", "that ends", "expired", "expired verifier", "revoked",
    "elsewhere", "root's", "of default", "unknown", "wrong secret", "wrong prefix",
    "wrong checksum", "too long", "shorter", "lookup id alone", "with a blank", "words",
    "empty", "not ASCII", "not ASCII secret", "very long",
]  # fmt: skip
CODES = {"VALID", "MALFORMED", "NOT_FOUND", "REVOKED", "EXPIRED", "INSUFFICIENT_SCOPE"}


class TestUsual:
    """Requests that the fast path answers itself."""

    @pytest.mark.parametrize("kind", TOKENS)
    def test_every_kind_of_token(self, world: World, kind: str) -> None:
        codes = set()
        for wanted in USUAL_SCOPES:
            asked = world.asked(body(world.tokens[kind], scopes=wanted))
            answer = the_fast_path_answers(world.api, asked)
            assert answer.status == 200
            codes.add(json.loads(answer.body)["code"])
        assert codes <= CODES

    def test_every_verdict_occurs(self, world: World) -> None:
        answers = [
            both_answer(world.api, world.asked(body(token, scopes=wanted)))
            for token in world.tokens.values()
            for wanted in USUAL_SCOPES[:1] + USUAL_SCOPES[-1:]
        ]
        assert {json.loads(answer.body)["code"] for answer in answers} == CODES

    @pytest.mark.parametrize("kind", TOKENS)
    def test_every_kind_of_credential(self, world: World, kind: str) -> None:
        token = world.tokens[kind]
        if "ASCII" in kind:
            token = token.encode().decode("latin-1")
        for headers in (
            bearer(token),
            ((b"x-api-key", token.encode("latin-1")),),
            ((b"x-blnk-key", token.encode("latin-1")), *bearer(token)),
        ):
            asked = Asked((body(world.tokens["good"]),), (*headers, *JSON, *NAMED))
            answer = both_answer(world.api, asked)
            assert answer.status in (200, 401, 403)
            assert (through_the_fast_path(world.api, asked) is None) == (answer.status != 200)

    @pytest.mark.parametrize(
        "headers",
        [
            (),
            ((b"authorization", b""),),
            ((b"authorization", b"Bearer"),),
            ((b"authorization", b"Bearer "),),
            ((b"authorization", b"Basic YTpi"),),
            ((b"authorization", b"bearer\tkey_x"),),
            ((b"x-api-key", b""),),
            ((b"x-api-key", b"\xff\xfe\x80"),),
            ((b"x-api-key", b"one"), (b"x-blnk-key", b"two")),
            ((b"x-api-key", b"one"), (b"x-api-key", b"two")),
            ((b"authorization", b"Bearer one"), (b"authorization", b"Bearer two")),
            ((b"authorization", b"Bearer one"), (b"authorization", b"Bearer one")),
            ((b"cookie", b"token=key_x"),),
        ],
    )
    def test_bad_credentials(self, world: World, headers: Headers) -> None:
        asked = Asked((body(world.tokens["good"]),), (*headers, *JSON))
        assert both_answer(world.api, asked).status == 401
        assert through_the_fast_path(world.api, asked) is None

    @pytest.mark.parametrize(
        "error",
        [LedgerUnavailable("no"), Overloaded("no", retry_after=7), ProjectionInconsistent("no")],
    )
    def test_an_unavailable_ledger(self, world: World, error: LedgerError) -> None:
        asked = world.asked(body(world.tokens["good"]))
        with patch.object(Freshness, "check", side_effect=error), capture_logs() as logs:
            assert both_answer(world.api, asked).status == 503
            assert through_the_fast_path(world.api, asked) is None
        # Clients can cause overloads at will, so these are one line without a traceback.
        level = "warning" if isinstance(error, Overloaded) else "error"
        assert [log["code"] for log in logs if log["log_level"] == level] == [error.code]
        assert all(("exc_info" in log) == (level == "error") for log in logs if "code" in log)

    @pytest.mark.parametrize("given", [b"mine", b"", b"no blanks", b"x" * 129, b"\xff", b"../.."])
    def test_request_ids(self, world: World, given: bytes) -> None:
        headers = (*bearer(world.verifier), *JSON, (b"x-request-id", given))
        both_answer(world.api, world.asked(body(world.tokens["good"]), headers=headers))
        both_answer(world.api, world.asked(body(world.tokens["good"]), headers=headers + NAMED))
        both_answer(world.api, Asked((body(world.tokens["good"]),), headers[1:]))


class TestUnusual:
    """Requests that the fast path leaves to the framework, or must not mistake for usual ones."""

    @pytest.mark.parametrize(
        "form",
        [
            '{{"token": "{0}", "workspace": "acme"}}',
            '{{"token": "{0}", "workspace": "elsewhere"}}',
            '{{"token": "{0}", "workspace": null}}',
            '{{"token": "{0}", "scopes": null}}',
            '{{"token": "{0}", "scopes": "mcp:read"}}',
            '{{"token": "{0}", "scopes": {{}}}}',
            '{{"token": "{0}", "scopes": ["mcp:read", 7]}}',
            '{{"token": "{0}", "scopes": ["mcp:read", null]}}',
            '{{"token": "{0}", "scopes": [["mcp:read"]]}}',
            '{{"token": "{0}", "scopes": ["no scope"]}}',
            '{{"token": "{0}", "scopes": [""]}}',
            '{{"token": "{0}", "scopes": ["token"]}}',
            '{{"token": "{0}", "scopes": ["mcp:read"], "scopes": ["*"]}}',
            '{{"token": "{0}", "scopes": ["\\u006dcp:read"]}}',
            '{{"token": "{0}", "token": "{0}"}}',
            '{{"token": "other", "\\u0074oken": "{0}"}}',
            '{{"token": "{0}", "Token": "other"}}',
            '{{"token": "{0}", "more": 1}}',
            '{{"token": "{0}", "more": {{"token": "other"}}}}',
            '{{"token": "{0}", "": NaN}}',
            '{{"token": ["{0}"]}}',
            '{{"token": {{"token": "{0}"}}}}',
            '{{"token": null}}',
            '{{"token": 7}}',
            '{{"token": true}}',
            '{{"scopes": []}}',
            "{{}}",
            '[{{"token": "{0}"}}]',
            '"{0}"',
            '"token"',
            "null",
            "",
            " ",
            "{{",
            '{{"token": "{0}"',
            '{{"token": "{0}"}} ',
            '\r\n\t {{ "scopes" : [ ] , "token"\n:\t"{0}" }}\n',
            '{{"token": "{0}"}}{{}}',
            '{{"token": "{0}"}},',
            '{{"token": "{0}",}}',
            '{{"token": "{0}" /* the token */}}',
            "{{'token': '{0}'}}",
            '{{token: "{0}"}}',
            '{{"token": "{0}\t"}}',
            '{{"token": "{0}\x00"}}',
            '{{"token": "{0}\\u0000"}}',
            '{{"token": "\\ud83d"}}',
            '\ufeff{{"token": "{0}"}}',
        ],
    )
    def test_bodies(self, world: World, form: str) -> None:
        sent = form.format(world.tokens["good"])
        root = (*bearer(world.api.root), *JSON)
        for encoding in ("utf-8", "utf-16", "utf-16-le", "utf-32", "utf-8-sig"):
            both_answer(world.api, world.asked(sent.encode(encoding)))
        both_answer(world.api, world.asked(sent.encode(), headers=root))
        in_default = form.format(world.tokens["of default"]).encode()
        both_answer(world.api, world.asked(in_default, headers=root))
        both_answer(world.api, world.asked(sent.encode(), headers=JSON))

    @pytest.mark.parametrize(
        "sent",
        [b'{"token": "\xff"}', b'{"token": "\xed\xa0\x80"}', b'{"token": "\xc0\xaf"}', b"\x80"],
    )
    def test_bodies_that_are_not_utf_8(self, world: World, sent: bytes) -> None:
        assert both_answer(world.api, world.asked(sent)).status == 422

    @pytest.mark.parametrize(
        "types",
        [
            (),
            (b"",),
            (b"application/json",),
            (b"Application/JSON",),
            (b"application/json; charset=utf-8",),
            (b"application/json;charset=UTF-8",),
            (b"application/json; charset=utf-16",),
            (b"application/json; charset=latin-1",),
            (b" application/json ",),
            (b"application/problem+json",),
            (b"application/jsonp",),
            (b"application/x-www-form-urlencoded",),
            (b"text/plain",),
            (b"text/plain", b"application/json"),
            (b"application/json", b"text/plain"),
            (b"application/json", b"application/json"),
            (b"\xff",),
        ],
    )
    def test_content_types(self, world: World, types: tuple[bytes, ...]) -> None:
        headers = (*bearer(world.verifier), *((b"content-type", each) for each in types))
        both_answer(world.api, world.asked(body(world.tokens["good"]), headers=headers))
        both_answer(world.api, world.asked(b"token=x", headers=headers))

    def test_a_body_in_parts(self, world: World) -> None:
        sent = body(world.tokens["good"], scopes=["mcp:read"])
        for parts in (
            (sent, b""),
            (b"", sent),
            (sent[:20], sent[20:]),
            (b"", sent[:20], b"", sent[20:], b""),
            tuple(sent[at : at + 1] for at in range(len(sent))),
            (sent, b"{}"),
        ):
            both_answer(world.api, world.asked(*parts))

    @pytest.mark.parametrize("size", [1000, 8192, 8193, 65_536, 65_537, 200_000])
    def test_large_bodies(self, world: World, size: int) -> None:
        padding = size - len(body(""))
        for sent in (body("k" * padding), b" " * padding + body("")):
            assert len(sent) == size
            answer = both_answer(world.api, world.asked(sent))
            assert answer.status == (200 if size <= 65_536 else 413)
            both_answer(world.api, world.asked(sent[:500], sent[500:]))
            length = (b"content-length", str(size).encode())
            both_answer(world.api, world.asked(sent, headers=(*world.headers, length)))

    @pytest.mark.parametrize("count", [63, 64, 65, 100])
    def test_many_scopes(self, world: World, count: int) -> None:
        for wanted in (["mcp:read"] * count, [f"mcp:a{number}" for number in range(count)]):
            answer = both_answer(world.api, world.asked(body(world.tokens["good"], scopes=wanted)))
            assert answer.status == (200 if count <= 64 else 422)

    @pytest.mark.parametrize("length", [127, 128, 129])
    def test_long_scopes(self, world: World, length: int) -> None:
        wanted = ["mcp:" + "a" * (length - 4)]
        answer = both_answer(world.api, world.asked(body(world.tokens["good"], scopes=wanted)))
        assert answer.status == (200 if length <= 128 else 422)

    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "post"])
    def test_other_methods(self, world: World, method: str) -> None:
        both_answer(world.api, world.asked(body(world.tokens["good"]), method=method))

    @pytest.mark.parametrize("path", ["/v1/verify/", "/v1/Verify", "//v1/verify", "/v1/verify/x"])
    def test_other_paths(self, world: World, path: str) -> None:
        both_answer(world.api, world.asked(body(world.tokens["good"]), path=path))

    def test_a_query_string_is_ignored(self, world: World) -> None:
        for query in (b"scope=*", b"token=x", b"%ff&&="):
            both_answer(world.api, world.asked(body(world.tokens["good"]), query=query))


def test_a_lower_body_limit_holds_on_the_fast_path_too(
    new_ledger: NewLedger, served_settings: Settings, clock: SettableClock
) -> None:
    lower = served_settings.model_copy(update={"max_body_bytes": 1024})
    with served(lower, new_ledger.root, clock) as api:
        for size, status in ((1024, 200), (1025, 413), (4000, 413)):
            sent = body("k" * (size - len(body(""))))
            assert both_answer(api, Asked((sent,), (*bearer(api.root), *JSON))).status == status


def test_a_request_without_a_client_address(world: World) -> None:
    async def without_client(app: FastAPI, asked: Asked) -> Answered:
        exchange = Exchange(asked)
        scope = {**exchange.scope, "client": None}
        await app(scope, exchange.receive, exchange.send)
        return exchange.answered()

    asked = world.asked(body(world.tokens["good"]))
    assert on_the_loop(world.api, without_client, world.api.app, asked).status == 200
    asked = replace(asked, path=FORWARD_AUTH)
    assert on_the_loop(world.api, without_client, world.api.app, asked).status == 204


def spelled(draw: st.DrawFn, value: object) -> str:
    """Write a value as JSON, in one of many equivalent forms."""
    blank = draw(st.sampled_from(["", "", "", " ", "\n", "\t ", "\r\n"]))
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=draw(st.booleans()))
        if value and draw(st.integers(0, 9)) == 0:
            text = f'"\\u{ord(value[0]) & 0xFFFF:04x}{text[2:]}'
        return blank + text
    if isinstance(value, list):
        return f"{blank}[{','.join(spelled(draw, each) for each in value)}{blank}]"
    if isinstance(value, dict):
        members = [f"{spelled(draw, name)}:{spelled(draw, each)}" for name, each in value.items()]
        if members and draw(st.integers(0, 9)) == 0:
            members.append(draw(st.sampled_from(members)))
        return f"{blank}{{{','.join(members)}{blank}}}"
    return blank + json.dumps(value)


@st.composite
def requests(draw: st.DrawFn) -> tuple[Sequence[str], bytes, tuple[int, ...], Headers]:
    """Draw a request in which ``<kind>`` is a placeholder for the token of that kind."""
    kinds = st.sampled_from([f"<{kind}>" for kind in TOKENS])
    tokens = st.one_of(kinds, kinds, kinds, st.text(max_size=90), st.none(), st.integers())
    scope = st.one_of(
        st.sampled_from(["mcp:read", "mcp:write", "*", "mcp:*", "*:*", "a:b", "A:b", ":", ""]),
        st.sampled_from(["token", "scopes", '"token"', "mcp:read\x00", "mcp:rea\u0064"]),
        st.integers(),
        st.none(),
    )
    document: object = draw(
        st.one_of(
            st.fixed_dictionaries({"token": tokens}, optional={"scopes": st.lists(scope)}),
            st.fixed_dictionaries({"token": kinds}, optional={"scopes": st.just(["mcp:read"])}),
            st.dictionaries(
                st.sampled_from(["token", "scopes", "workspace", "tokens", "", "Token"]),
                st.one_of(tokens, st.lists(scope), st.just("acme")),
            ),
            st.lists(tokens),
            tokens,
        )
    )
    encoding = draw(st.sampled_from(["utf-8"] * 8 + ["utf-16", "utf-8-sig", "latin-1"]))
    sent = bytearray(spelled(draw, document).encode(encoding, "replace"))
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(sent)))
        sent[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    cuts = draw(
        st.one_of(st.just([]), st.just([]), st.lists(st.integers(0, len(sent)), max_size=3))
    )
    value = st.one_of(kinds, kinds, st.text(st.characters(max_codepoint=255), max_size=20))
    names = [b"authorization", b"x-api-key", b"x-blnk-key"]
    headers = [
        (name, (f"Bearer {text}" if name == names[0] else text).encode("latin-1", "replace"))
        for name, text in draw(st.lists(st.tuples(st.sampled_from(names), value), max_size=2))
    ]
    if draw(st.integers(0, 3)):
        headers = [(names[draw(st.integers(0, 1))], b"<verifier>")]
        if headers[0][0] == names[0]:
            headers = [(names[0], b"Bearer <verifier>")]
    types = [b"application/json"] * 5 + [b"application/json; charset=utf-8", b"text/json", b""]
    headers += [
        (b"content-type", each)
        for each in draw(st.sampled_from([[each] for each in types] + [[], types[:2]]))
    ]
    order = draw(st.permutations(headers))
    return TOKENS, bytes(sent), tuple(sorted(cuts)), tuple(order)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(drawn=requests())
def test_any_request_is_answered_the_same_in_both_ways(
    world: World, drawn: tuple[Sequence[str], bytes, tuple[int, ...], Headers]
) -> None:
    kinds, sent, cuts, headers = drawn
    tokens = {f"<{kind}>".encode(): world.tokens[kind].encode() for kind in kinds}
    tokens[b"<verifier>"] = world.verifier.token.encode()
    ends = [0, *cuts, len(sent)]
    whole = b"\x00CUT\x00".join(sent[at:end] for at, end in pairwise(ends))
    for placeholder, token in tokens.items():
        whole = whole.replace(placeholder, token)
        headers = tuple((name, value.replace(placeholder, token)) for name, value in headers)
    asked = Asked(tuple(whole.split(b"\x00CUT\x00")), (*headers, *NAMED))
    assert both_answer(world.api, asked).status in (200, 401, 403, 413, 422)


class TestRevokedElsewhere:
    """A verification that begins after a revocation was acknowledged is refused."""

    def refused_after(self, api: Api, key: Key, revoke: Callable[[], object]) -> None:
        verify = Asked((body(key.token),), (*bearer(api.admin()), *JSON))
        forward = Asked((b"",), bearer(key), path=FORWARD_AUTH)

        async def together() -> tuple[list[Answered], list[Answered]]:
            return (
                await asyncio.gather(*(through_the_app(api.app, verify) for _ in range(8))),
                await asyncio.gather(*(through_the_app(api.app, forward) for _ in range(8))),
            )

        verified, forwarded = on_the_loop(api, together)
        assert {json.loads(answer.body)["code"] for answer in verified} == {"VALID"}
        assert {answer.status for answer in forwarded} == {204}
        revoke()
        verified, forwarded = on_the_loop(api, together)
        assert {json.loads(answer.body)["code"] for answer in verified} == {"REVOKED"}
        assert {answer.status for answer in forwarded} == {401}

    def test_in_the_same_process(self, api: Api) -> None:
        key = api.make()
        self.refused_after(api, key, lambda: api.revoke(key))

    def test_in_another_thread(self, api: Api) -> None:
        key = api.make()

        def revoke() -> None:
            thread = threading.Thread(target=api.revoke, args=[key])
            thread.start()
            thread.join()

        self.refused_after(api, key, revoke)

    def test_another_process_is_excluded(self, api: Api) -> None:
        key = api.make()
        folder = api.settings.data_dir
        arguments = ("keys", "revoke", key.key_id, "--workspace", "acme", "--yes")
        self.refused_after(api, key, lambda: run_json(folder, *arguments))
