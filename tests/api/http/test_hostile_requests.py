"""Malicious requests.

Every one is answered with a problem document and no 5xx, appends nothing, and never gets a
misplaced token sent back.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from httpx2 import Response

from tests.api.served import Api, Json, Key, refused

pytestmark = pytest.mark.only_on("sqlite")

JSON = (b"Content-Type", b"application/json")
LIMIT = 65_536


@dataclass(frozen=True)
class World:
    """An app, and two valid tokens to misuse."""

    api: Api
    admin: Key
    other: Key

    def fill(self, text: bytes) -> bytes:
        """Insert the valid tokens where the table has placeholders."""
        return text.replace(b"<token>", self.admin.token.encode()).replace(
            b"<other>", self.other.token.encode()
        )

    def hold(self, answer: Response, status: int, code: str, before: int) -> Json:
        problem = refused(answer, status, code)
        assert self.api.position() == before
        for key in (self.admin, self.other):
            secret = key.token[-49:]
            said = answer.text + str(answer.headers)
            assert not any(secret[at : at + 12] in said for at in range(len(secret) - 11))
        return problem


@pytest.fixture(scope="module")
def world(shared_api: Api) -> World:
    return World(shared_api, shared_api.admin(), shared_api.admin())


@dataclass(frozen=True)
class Case:
    """Headers, and the expected refusal."""

    headers: list[tuple[bytes, bytes]]
    status: int = 401
    code: str = "UNAUTHENTICATED"


UNUSUAL_CREDENTIALS = {
    # An empty header is a credential that cannot be valid.
    "empty Authorization": Case([(b"Authorization", b"")]),
    "empty X-API-Key": Case([(b"X-API-Key", b"")]),
    "Bearer and nothing": Case([(b"Authorization", b"Bearer ")]),
    # Other schemes carry other credentials; a token in them is not extracted.
    "Basic": Case([(b"Authorization", b"Basic <token>")]),
    "Digest": Case([(b"Authorization", b'Digest username="<token>"')]),
    "no scheme": Case([(b"Authorization", b"<token>")]),
    "two schemes": Case([(b"Authorization", b"Basic YTpi, Bearer <token>")]),
    "Basic beside a good key": Case(
        [(b"Authorization", b"Basic YTpi"), (b"X-API-Key", b"<token>")]
    ),
    # Characters around a token are not part of it, and nothing is repaired.
    "two tokens in one header": Case([(b"Authorization", b"Bearer <token> <other>")]),
    "a list of tokens": Case([(b"X-API-Key", b"<token>, <token>")]),
    "quoted": Case([(b"Authorization", b'Bearer "<token>"')]),
    "Bearer in X-API-Key": Case([(b"X-API-Key", b"Bearer <token>")]),
    "NUL behind it": Case([(b"X-API-Key", b"<token>\x00")]),
    "NUL within": Case([(b"Authorization", b"Bearer key_\x00<token>")]),
    "another line": Case([(b"X-API-Key", b"<token>\r\nX-Evil: 1")]),
    "a bell": Case([(b"X-API-Key", b"\x07<token>")]),
    # Header bytes are Latin-1 on the wire; UTF-8 and stray bytes are unknown tokens.
    "UTF-8": Case([(b"X-API-Key", "κλειδί".encode())]),
    "high bytes": Case([(b"Authorization", b"Bearer \xff\xfe<token>")]),
    "a soft hyphen": Case([(b"X-API-Key", b"<token>\xad")]),
    "very long": Case([(b"X-API-Key", b"<token>" * 1000)]),
    # With two tokens, neither is chosen (a proxy may have checked the other one).
    "two Authorization headers": Case(
        [(b"Authorization", b"Bearer <token>"), (b"Authorization", b"Bearer <other>")]
    ),
    "two X-API-Key headers": Case([(b"X-API-Key", b"<token>"), (b"X-API-Key", b"<other>")]),
    "both headers": Case([(b"Authorization", b"Bearer <token>"), (b"X-API-Key", b"<other>")]),
    "both key headers": Case([(b"X-API-Key", b"<token>"), (b"X-Blnk-Key", b"<other>")]),
    "a good one and an empty one": Case(
        [(b"Authorization", b"Bearer <token>"), (b"X-API-Key", b"")]
    ),
    "a good one and nonsense": Case([(b"X-API-Key", b"<token>"), (b"X-Blnk-Key", b"nonsense")]),
    # These headers carry no credential here.
    "a cookie": Case([(b"Cookie", b"token=<token>")]),
    "Proxy-Authorization": Case([(b"Proxy-Authorization", b"Bearer <token>")]),
    "an unheard-of header": Case([(b"X-Token", b"<token>"), (b"X-API-Token", b"<token>")]),
}


class TestCredentials:
    @pytest.mark.parametrize("name", UNUSUAL_CREDENTIALS)
    def test_an_unusual_credential_is_refused(self, world: World, name: str) -> None:
        before = world.api.position()
        case = UNUSUAL_CREDENTIALS[name]
        headers = [(header, world.fill(value)) for header, value in case.headers]
        answer = world.api.get("/v1/keys", by=None, headers=headers)
        world.hold(answer, case.status, case.code, before)

    @pytest.mark.parametrize("change", [str.lower, str.upper, str.swapcase, str.title])
    def test_a_token_has_one_form(self, world: World, change: Any) -> None:  # noqa: ANN401
        before = world.api.position()
        answer = world.api.get("/v1/keys", by=change(world.admin.token))
        world.hold(answer, 401, "UNAUTHENTICATED", before)

    @pytest.mark.parametrize(
        "headers",
        [
            [(b"Authorization", b"Bearer <token>")],
            # A scheme is written in any case (RFC 9110, section 11.1).
            [(b"authorization", b"bearer <token>")],
            [(b"AUTHORIZATION", b"BEARER   <token>  ")],
            [(b"X-API-Key", b"  <token> ")],
            [(b"X-Blnk-Key", b"<token>")],
            # The same credential twice counts as one.
            [(b"Authorization", b"Bearer <token>"), (b"Authorization", b"Bearer <token>")],
            [(b"Authorization", b"Bearer <token>"), (b"X-API-Key", b"<token>")],
            [(b"X-API-Key", b"<token>"), (b"X-Blnk-Key", b"<token>")],
        ],
        ids=repr,
    )
    def test_one_token_in_any_accepted_form_is_read(
        self, world: World, headers: list[tuple[bytes, bytes]]
    ) -> None:
        given = [(name, world.fill(value)) for name, value in headers]
        assert world.api.get("/v1/keys", by=None, headers=given).status_code == 200


def until(end: str) -> bytes:
    """Return a body for a key with this JSON text as its end."""
    return f'{{"name": "a", "scopes": ["a:b"], "expires_at": {end}}}'.encode()


# Bodies for POST /v1/keys that are invalid, ambiguous or too large.
MEANINGLESS_BODIES = {
    "nothing": b"",
    "blanks": b" \n",
    "half a body": b'{"name": "a", "scopes": ["a:b"]',
    "two bodies": b'{"name": "a", "scopes": ["a:b"]}{"name": "a", "scopes": ["a:b"]}',
    "a form": b"name=a&scopes=a:b",
    "a token alone": b"<token>",
    "a string": b'"<token>"',
    "a list": b'["<token>"]',
    "null": b"null",
    "a number": b"7",
    # Python would take the last value, and another parser the first.
    "a name twice": b'{"name": "a", "name": "b", "scopes": ["a:b"]}',
    "an unknown name twice": b'{"name": "a", "scopes": ["a:b"], "x": 1, "x": 1}',
    # Python accepts these, although they are not JSON.
    "NaN": b'{"name": NaN, "scopes": ["a:b"]}',
    "Infinity": until("Infinity"),
    "minus Infinity": b'{"name": "a", "scopes": [-Infinity]}',
    "a comment": b'{"name": "a", /* why not */ "scopes": ["a:b"]}',
    "single quotes": b"{'name': 'a', 'scopes': ['a:b']}",
    "a trailing comma": b'{"name": "a", "scopes": ["a:b"],}',
    # As deep as the body limit allows; far deeper than Python's stack.
    "30,000 brackets": b"[" * 30_000,
    "30,000 brackets, closed": b"[" * 30_000 + b"]" * 30_000,
    "10,000 objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "deep in a field": b'{"name": "a", "scopes": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    # Python refuses to convert numbers of more than 4,300 digits.
    "5,000 digits": b'{"name": ' + b"7" * 5_000 + b', "scopes": ["a:b"]}',
    "5,000 digits as a time": until("9" * 5_000),
    "an exponent": until("1e999999"),
    # JSON between programs is UTF-8 (RFC 8259, section 8.1), and nothing else.
    "UTF-16": '{"name": "a", "scopes": ["a:b"]}'.encode("utf-16"),
    "UTF-32": '{"name": "a", "scopes": ["a:b"]}'.encode("utf-32"),
    "a byte order mark": '{"name": "a", "scopes": ["a:b"]}'.encode("utf-8-sig"),
    "Latin-1": b'{"name": "caf\xe9", "scopes": ["a:b"]}',
    "overlong UTF-8": b'{"name": "\xc0\xaf", "scopes": ["a:b"]}',
    "a surrogate in UTF-8": b'{"name": "\xed\xa0\x80", "scopes": ["a:b"]}',
    # Escapes that encode no valid text.
    "a lone surrogate": b'{"name": "\\ud800", "scopes": ["a:b"]}',
    "surrogates the wrong way round": b'{"name": "\\udc00\\ud800", "scopes": ["a:b"]}',
    "a lone surrogate in a scope": b'{"name": "a", "scopes": ["\\ud800:x"]}',
    "a lone surrogate in a prefix": b'{"name": "a", "scopes": ["a:b"], "prefix": "\\ud800"}',
    "a lone surrogate in a workspace": b'{"name": "a", "scopes": ["a:b"], "workspace": "\\ud800"}',
    "a lone surrogate in a time": until('"\\ud800"'),
    "a lone surrogate as a field": b'{"\\ud800": 1, "name": "a", "scopes": ["a:b"]}',
    "NUL": b'{"name": "a\\u0000b", "scopes": ["a:b"]}',
    "a raw control character": b'{"name": "a\x01b", "scopes": ["a:b"]}',
    # Names are shown in logs, terminals and pages.
    "bidi override": '{"name": "a\u202egnp.exe", "scopes": ["a:b"]}'.encode(),
    "bidi isolate": '{"name": "\u2066a", "scopes": ["a:b"]}'.encode(),
    "right-to-left mark": '{"name": "a\u200f", "scopes": ["a:b"]}'.encode(),
    "escape sequence": b'{"name": "\\u001b[31mred", "scopes": ["a:b"]}',
    "delete": b'{"name": "a\x7f", "scopes": ["a:b"]}',
    "a line": b'{"name": "a\\nb", "scopes": ["a:b"]}',
    # Types are strict; no value is converted.
    "a number for a name": b'{"name": 7, "scopes": ["a:b"]}',
    "true for a name": b'{"name": true, "scopes": ["a:b"]}',
    "an object for a name": b'{"name": {"a": "<token>"}, "scopes": ["a:b"]}',
    "a string for scopes": b'{"name": "a", "scopes": "a:b"}',
    "an object for scopes": b'{"name": "a", "scopes": {"a:b": true}}',
    "a token for a scope": b'{"name": "a", "scopes": ["<token>"]}',
    "a token within a scope": b'{"name": "a", "scopes": ["mcp:<token>"]}',
    "no scopes": b'{"name": "a", "scopes": []}',
    "1,000 scopes": json.dumps({"name": "a", "scopes": [f"a:b{n}" for n in range(1000)]}).encode(),
    "a number for a time": until("1900000000"),
    "a float for a time": until("1900000000.5"),
    "true for a time": until("true"),
    "digits for a time": until('"1900000000"'),
    "a list for a time": until('["2027-01-01T00:00:00Z"]'),
    "a token for a time": until('"<token>"'),
    "a naive time": until('"2027-01-01T00:00:00"'),
    "a past time": until('"2020-01-01T00:00:00Z"'),
    "a thirteenth month": until('"2027-13-01"'),
    "a week date": until('"2027-W01-1T00:00:00Z"'),
    "30 February": until('"2027-02-30T00:00:00Z"'),
    "25 o'clock": until('"2027-01-01T25:00:00Z"'),
    "an offset of 99 hours": until('"2027-01-01T00:00:00+99:00"'),
    "another script's digits": until('"٢٠٢٧-01-01T00:00:00Z"'),
    # In UTC this is the year 10000, which is out of range.
    "year 9999 and later": until('"9999-12-31T23:59:59-01:00"'),
    "year 0": until('"0000-01-01T00:00:00Z"'),
    "before year 1": until('"0001-01-01T00:00:00+01:00"'),
    # Unknown fields are refused, and their names are not trusted either.
    "an unknown field": b'{"name": "a", "scopes": ["a:b"], "admin": true}',
    "a token as a field": b'{"name": "a", "scopes": ["a:b"], "<token>": 1}',
    "a token in an unknown field": b'{"name": "a", "scopes": ["a:b"], "token": "<token>"}',
    "a long field": b'{"name": "a", "scopes": ["a:b"], "' + b"x" * 60_000 + b'": 1}',
    "4,000 fields": json.dumps(dict.fromkeys(map(str, range(4_000)))).encode(),
    "__proto__": b'{"name": "a", "scopes": ["a:b"], "__proto__": {"scopes": ["*"]}}',
    "a token as a prefix": b'{"name": "a", "scopes": ["a:b"], "prefix": "<token>"}',
    "a token as a workspace": b'{"name": "a", "scopes": ["a:b"], "workspace": "<token>"}',
}  # fmt: skip


class TestBodies:
    @pytest.mark.parametrize("name", MEANINGLESS_BODIES)
    def test_an_invalid_body_creates_no_key(self, world: World, name: str) -> None:
        before = world.api.position()
        body = world.fill(MEANINGLESS_BODIES[name])
        for more in ([], [(b"Idempotency-Key", b"x")]):
            answer = world.api.post("/v1/keys", headers=[JSON, *more], content=body)
            world.hold(answer, 422, "INVALID", before)
            assert len(answer.content) < 8192

    @pytest.mark.parametrize(
        "content_type",
        [
            None,
            b"",
            b"text/plain",
            b"text/json",
            b"application/x-www-form-urlencoded",
            b"multipart/form-data; boundary=x",
            b"application/xml",
            b"application",
            b"/",
            b"application/json\x00",
            b"\xff",
            b"<token>",
        ],
    )
    def test_json_is_said_to_be_json(self, world: World, content_type: bytes | None) -> None:
        before = world.api.position()
        headers = [] if content_type is None else [(b"Content-Type", world.fill(content_type))]
        body = b'{"name": "a", "scopes": ["a:b"]}'
        answer = world.api.post("/v1/keys", headers=headers, content=body)
        world.hold(answer, 422, "INVALID", before)

    @pytest.mark.parametrize(
        "content_type",
        [b"application/json", b"Application/JSON; charset=utf-8", b"application/vnd.x+json"],
    )
    def test_all_equivalent_forms_are_accepted(self, shared_api: Api, content_type: bytes) -> None:
        headers = [(b"Content-Type", content_type)]
        body = b'{"name": "a", "scopes": ["a:b"]}'
        answer = shared_api.post("/v1/keys", headers=headers, content=body)
        assert answer.status_code == 201


def in_parts(length: int) -> Iterator[bytes]:
    for _ in range(length // 1024):
        yield b" " * 1024
    yield b" " * (length % 1024)


class TestLongBodies:
    """A body of 1 MB is refused before it is parsed."""

    PATHS = ("/v1/keys", "/v1/verify", "/v1/verify/batch", "/v1/introspect")

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("length", [LIMIT + 1, 1_000_000])
    def test_one_that_announces_its_length(self, world: World, path: str, length: int) -> None:
        before = world.api.position()
        answer = world.api.post(path, headers=[self.kind(path)], content=b" " * length)
        problem = world.hold(answer, 413, "BODY_TOO_LARGE", before)
        assert str(LIMIT) in problem["detail"]

    @pytest.mark.parametrize("path", PATHS)
    @pytest.mark.parametrize("length", [LIMIT + 1, 1_000_000])
    def test_one_that_comes_in_parts(self, world: World, path: str, length: int) -> None:
        before = world.api.position()
        answer = world.api.post(path, headers=[self.kind(path)], content=in_parts(length))
        assert "Content-Length" not in answer.request.headers
        world.hold(answer, 413, "BODY_TOO_LARGE", before)

    @pytest.mark.parametrize("length", [b"9" * 5_000, b"1000000"])
    def test_a_long_body_that_is_only_announced(self, world: World, length: bytes) -> None:
        before = world.api.position()
        headers = [JSON, (b"Content-Length", length)]
        answer = world.api.post("/v1/keys", headers=headers, content=in_parts(10))
        world.hold(answer, 413, "BODY_TOO_LARGE", before)

    @pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
    def test_an_unread_body_may_have_any_length(self, world: World, method: str) -> None:
        answer = world.api.send(method, "/v1/nowhere", content=b" " * 1_000_000)
        refused(answer, 404, "NOT_FOUND")

    @pytest.mark.parametrize("parts", [False, True])
    def test_one_just_within_the_limit_is_read(self, world: World, *, parts: bool) -> None:
        body = b'{"name": "a", "scopes": ["a:b"]}'
        body += b" " * (LIMIT - len(body))
        content: Any = iter([body[:100], body[100:]]) if parts else body
        answer = world.api.post("/v1/keys", headers=[JSON], content=content)
        assert answer.status_code == 201

    def kind(self, path: str) -> tuple[bytes, bytes]:
        if path == "/v1/introspect":
            return (b"Content-Type", b"application/x-www-form-urlencoded")
        return JSON


class TestTokensInPaths:
    """A token in place of a key id or a name."""

    @pytest.mark.parametrize(
        ("method", "path", "code"),
        [
            ("GET", "/v1/keys/<token>", "KEY_NOT_FOUND"),
            ("GET", "/v1/keys/<token>?as_of=2026-03-03T12:00:00Z", "KEY_NOT_FOUND"),
            ("GET", "/v1/keys/<token>/events", "KEY_NOT_FOUND"),
            ("PATCH", "/v1/keys/<token>", "KEY_NOT_FOUND"),
            ("POST", "/v1/keys/<token>/revoke", "KEY_NOT_FOUND"),
            ("POST", "/v1/keys/<token>/rotate", "KEY_NOT_FOUND"),
            ("POST", "/v1/projections/<token>/rebuild", "PROJECTION_NOT_FOUND"),
            ("GET", "/<token>", "NOT_FOUND"),
            ("GET", "/v1/keys/", "NOT_FOUND"),
            ("GET", "/v1/keys/?<token>", "NOT_FOUND"),
            ("POST", "/v1/keys/<token>/explode", "NOT_FOUND"),
        ],
    )
    def test_it_is_not_found_and_not_repeated(
        self, world: World, method: str, path: str, code: str
    ) -> None:
        before = world.api.position()
        body = {"name": "x"} if method == "PATCH" else None
        answer = world.api.send(method, world.fill(path.encode()).decode(), json=body)
        world.hold(answer, 404, code, before)

    @pytest.mark.parametrize(
        "query",
        [
            "<token>=1", "<token>", "workspace=<token>", "limit=<token>", "cursor=<token>",
            "status=<token>", "scope=<token>", "expires_before=<token>", "as_of=<token>",
        ],
    )  # fmt: skip
    def test_in_a_query_it_is_not_valid_and_not_repeated(self, world: World, query: str) -> None:
        before = world.api.position()
        answer = world.api.get("/v1/keys?" + world.fill(query.encode()).decode())
        world.hold(answer, 422, "INVALID", before)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"X-Request-Id", b"<token>")],
        [(b"X-Request-Id", b"a\x00b")],
        [(b"X-Request-Id", b"x" * 10_000)],
        [(b"X-Request-Id", b"a"), (b"X-Request-Id", b"b")],
        [(b"Accept", b"<token>/\xff")],
        [(b"Host", b"<token>")],
        [(b"Origin", b"https://evil.example")],
        [(b"X-Forwarded-For", b"<token>\x00")],
        [(b"Transfer-Encoding", b"<token>")],
        [(b"Content-Length", b"-1")],
        [(b"Content-Length", b"\xb2")],
        [(b"", b"")],
        [(b"X-\x00", b"\xff")],
        [(b"X-%d" % number, b"v") for number in range(500)],
    ],
    ids=lambda headers: ascii(headers)[:40],
)
def test_irrelevant_headers_do_not_matter(world: World, headers: list[tuple[bytes, bytes]]) -> None:
    given = [(name, world.fill(value)) for name, value in headers]
    answer = world.api.get("/v1/keys", headers=given)
    assert answer.status_code == 200
    assert world.admin.token not in str(answer.headers) + answer.text
    assert "Access-Control-Allow-Origin" not in answer.headers
