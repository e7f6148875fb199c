"""A verification has the same answer from the fast path and the application, byte for byte.

A repeated header, or a request to close the connection, sends a request to the application. The
application logs each ``POST /v1/verify``; the fast path logs nothing.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, product

import pytest

from domain.tokens import Token, parse
from tests.system.clients import answered
from tests.system.processes import Server, eventually, servers_in
from tests.system.raw_http import Answer, Wire, connected

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

BY_APPLICATION = {"header twice": "x-one: 1\r\nx-one: 2\r\n", "last": "connection: close\r\n"}
PER_REQUEST = {"date", "x-request-id", "connection"}
TOKENS = (
    "narrow", "wide", "revoked", "elsewhere", "verifier", "wrong", "garbage"
)  # fmt: skip
SCOPES = ((), ("mcp:read",), ("mcp:read", "mcp:write"), ("no scope",))


@dataclass(frozen=True)
class Site:
    """A server, and tokens of every kind."""

    server: Server
    tokens: dict[str, str]
    numbers: Iterator[int]

    def next_id(self) -> str:
        return f"m{next(self.numbers):06}"

    def next_id_header(self) -> str:
        return f"x-request-id: {self.next_id()}\r\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with servers_in(tmp_path_factory.mktemp("paths")) as servers:
        server = servers.start()
        root = server.client()
        scopes = {
            "narrow": ["mcp:read"], "wide": ["mcp:*"], "revoked": ["mcp:*"],
            "verifier": ["api-keys:verify"],
        }  # fmt: skip
        made = {name: answered(root.create(name, each), 201) for name, each in scopes.items()}
        answered(root.revoke(made["revoked"]["key_id"]))
        tokens = {name: each["token"] for name, each in made.items()}
        other = answered(root.create("elsewhere", ["mcp:*"], workspace="other"), 201)
        right, wrong = parse(tokens["wide"]), parse(other["token"])
        assert right is not None
        assert wrong is not None
        tokens |= {
            "elsewhere": other["token"],
            "wrong": Token(right.prefix, right.lookup_id, wrong.secret).reveal(),
            "garbage": "garbage",
        }
        yield Site(server, tokens, count(1))


def shown(answer: Answer) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return what must not differ: all but the time, the id and the end of the connection."""
    headers = sorted(each for each in answer.headers if each[0] not in PER_REQUEST)
    return answer.status, headers, answer.body.replace((answer.request_id or "").encode(), b"<id>")


def check(token: str, scopes: tuple[str, ...], more: str) -> bytes:
    query = "&".join(f"scope={each.replace(' ', '+')}" for each in scopes)
    target = "/v1/forward-auth" + (f"?{query}" if query else "")
    lines = f"GET {target} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n{more}\r\n"
    return lines.encode()


def verify(caller: str, token: str, scopes: tuple[str, ...], more: str) -> bytes:
    body = json.dumps({"token": token} | ({"scopes": scopes} if scopes else {}))
    return (
        f"POST /v1/verify HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {caller}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{more}\r\n{body}"
    ).encode()


def answer_to(wire: Wire, request: bytes) -> Answer:
    wire.send(request)
    return wire.answer()


@pytest.mark.parametrize("scopes", SCOPES, ids=repr)
def test_a_gateway_gets_the_same_answer(site: Site, scopes: tuple[str, ...]) -> None:
    with connected(site.server.url) as wire:
        for name in TOKENS:
            token, found = site.tokens[name], []
            for more in ("", BY_APPLICATION["header twice"]):
                request = check(token, scopes, more + site.next_id_header())
                found.append(shown(answer_to(wire, request)))
            with connected(site.server.url) as last:
                request = check(token, scopes, BY_APPLICATION["last"] + site.next_id_header())
                found.append(shown(answer_to(last, request)))
                assert last.rest() == b""
            assert found[0] == found[1] == found[2], name


@pytest.mark.parametrize("scopes", SCOPES[:3], ids=repr)
def test_verify_answers_the_same(site: Site, scopes: tuple[str, ...]) -> None:
    fast: list[str] = []
    by_application: list[str] = []
    for caller, name in product(("verifier", "narrow"), TOKENS):
        found = []
        for more in ("", *BY_APPLICATION.values()):
            request_id = site.next_id()
            (by_application if more or caller == "narrow" else fast).append(request_id)
            headers = f"{more}x-request-id: {request_id}\r\n"
            request = verify(site.tokens[caller], site.tokens[name], scopes, headers)
            with connected(site.server.url) as wire:
                answer = answer_to(wire, request)
                assert answer.request_id == request_id
                found.append(shown(answer))
        assert found[0] == found[1] == found[2], (caller, name)
    eventually(lambda: by_application[-1] in site.server.log, "all is in the log")
    logged = {line.get("request_id") for line in site.server.log_lines}
    assert logged >= set(by_application)
    assert not logged & set(fast)
