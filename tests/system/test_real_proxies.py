"""Real proxies that share connections to the server: all clients get their own answers."""

import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

import httpx
import pytest

from tests.programs import needs
from tests.system.clients import Client, Json, answered, at_once
from tests.system.ledgers import admin_token, make_keys
from tests.system.live_streams import Tail
from tests.system.processes import PATIENCE, Server, servers_in
from tests.system.proxies import PROXIES, Proxy, program
from tests.system.smuggling import SMUGGLED, Attack, attacks

TOKEN = re.compile(rb"[a-z][a-z0-9]*_[0-9A-Za-z]{65}")
MANY = [f"many-{number:04}" for number in range(500)]
MOST_TO_SHOW = 5
"""Attacks that succeed before a test stops."""

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")


@dataclass(frozen=True)
class Ledger:
    """Two servers of one ledger: one trusts a proxy on this machine, and one trusts none."""

    token: str
    trusting: Server
    distrusting: Server


@dataclass(frozen=True)
class Behind:
    """The ledger, and a proxy in front of the server that trusts it."""

    ledger: Ledger
    proxy: Proxy
    folder: Path
    url: str
    seen_before: int

    @contextmanager
    def client(self) -> Iterator[Client]:
        with closing(Client(self.url, self.ledger.token)) as client:
            yield client

    @contextmanager
    def honest(self, part: str) -> Iterator["Honest"]:
        name = f"honest-{self.proxy}-{part}"
        with self.client() as client:
            made = answered(client.create(name), 201)
            yield Honest(client, made["key_id"], [name])

    def check_nothing_was_smuggled(self) -> None:
        seen = self.ledger.trusting.log_lines[self.seen_before :]
        assert [line for line in seen if line.get("request_id") == SMUGGLED] == []


@dataclass
class Honest:
    """A client that reads, renames and makes keys, and compares each answer with its request."""

    client: Client
    key_id: str
    names: list[str]
    asked: int = 0
    wrong: list[str] = field(default_factory=list)

    def show(self) -> None:
        self._ask("GET", f"/v1/keys/{self.key_id}", self.names[-1])

    def rename(self) -> None:
        name = self._next_name()
        self._ask("PATCH", f"/v1/keys/{self.key_id}", name, {"name": name})

    def create(self) -> None:
        name = self._next_name()
        self._ask("POST", "/v1/keys", name, {"name": name, "scopes": ["mcp:read"]})

    def _next_name(self) -> str:
        self.names.append(f"{self.names[0]}-{len(self.names)}")
        return self.names[-1]

    def _ask(self, method: str, path: str, name: str, body: Json | None = None) -> None:
        self.asked += 1
        request_id = f"{self.names[0]}-request-{self.asked}"
        headers = {"X-Request-Id": request_id}
        try:
            answer = self.client.http.request(method, path, json=body, headers=headers)
        except httpx.TransportError as error:
            self.wrong.append(f"{request_id}: {error!r}")
            return
        right = answer.is_success and answer.headers.get("X-Request-Id") == request_id
        if not right or answer.json().get("name") != name:
            self.wrong.append(f"{request_id}: {answer.status_code} {answer.headers} {answer.text}")


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    with servers_in(tmp_path_factory.mktemp("ledger")) as servers:
        trusting = servers.start(trusted_proxies="127.0.0.1")
        token = admin_token(servers.data_dir)
        make_keys(servers.data_dir, MANY)
        yield Ledger(token, trusting, servers.start())


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(each, id=each.name, marks=needs(program(each.program), each.program))
        for each in PROXIES
    ],
)
def behind(
    request: pytest.FixtureRequest, ledger: Ledger, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Behind]:
    proxy: Proxy = request.param
    folder = tmp_path_factory.mktemp("proxy")
    seen = len(ledger.trusting.log_lines)
    with proxy.running(folder / "trusted", ledger.trusting.url) as url:
        yield Behind(ledger, proxy, folder, url, seen)


def exchange(url: str, message: bytes) -> bytes:
    """Send a message and, after its answer, the last request of the connection.

    Returns:
        All that comes back.

    Raises:
        TimeoutError: an answer is missing.
    """
    host, _, port = url.removeprefix("http://").partition(":")
    last = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    received = b""
    with (
        socket.create_connection((host, int(port)), PATIENCE / 4) as connection,
        suppress(ConnectionError),  # refused, and closed before all was read
    ):
        connection.sendall(message)
        while not final_answers(received):
            chunk = connection.recv(65_536)
            if not chunk:
                return received
            received += chunk
        connection.sendall(last)
        while chunk := connection.recv(65_536):
            received += chunk
    return received


def final_answers(received: bytes) -> list[bytes]:
    """Return the statuses of the answers, without the interim ones."""
    statuses: list[bytes] = re.findall(rb"HTTP/1\.[01] ([2-5]\d\d)", received)
    return statuses


def attacked(url: str, attack: Attack) -> str | None:
    """Send an attack, and one request after it; return what was wrong with the answers."""
    try:
        received = exchange(url, attack.message)
    except TimeoutError:
        return "an answer is missing"
    if TOKEN.search(received) or b"honest" in received:
        return f"the attacker got another client's answer: {received!r}"
    if len(final_answers(received)) > 2:
        return f"more answers than requests: {received!r}"
    return None


def test_no_body_is_ever_read_as_a_request(behind: Behind) -> None:
    wrong: list[tuple[str, str]] = []
    with behind.honest("a") as first, behind.honest("b") as second:
        for number, attack in enumerate(attacks()):
            found = attacked(behind.url, attack)
            client = (first, second)[number % 2]
            client.show()
            if number % 10 < 2:
                client.rename()
            wrong += [(attack.name, each) for each in (found, *client.wrong) if each]
            client.wrong.clear()
            if len(wrong) >= MOST_TO_SHOW:
                break
        assert wrong == []
        behind.check_nothing_was_smuggled()
        for client in (first, second):
            history = client.client.history(client.key_id)
            assert [event["data"]["name"] for event in history] == client.names


def test_new_tokens_reach_nobody_else_while_attackers_send(behind: Behind) -> None:
    every = list(attacks())

    def attack(number: int) -> list[str]:
        # Each attacker sends other kinds: the step has no factor in common with their cycles.
        chosen = islice(every, number, None, 7)
        return [found for each in chosen if (found := attacked(behind.url, each))]

    def create(number: int) -> list[str]:
        with behind.honest(f"maker-{number}") as honest:
            for _ in range(8):
                honest.create()
            names.extend(honest.names)
            return honest.wrong

    names: list[str] = []
    calls = [partial(attack, number) for number in range(2)]
    calls += [partial(create, number) for number in range(4)]
    assert at_once(calls) == [[]] * len(calls)
    behind.check_nothing_was_smuggled()
    with closing(behind.ledger.trusting.client(behind.ledger.token)) as client:
        made = [key["name"] for key in client.list_keys(q=f"honest-{behind.proxy}-maker")]
    assert sorted(made) == sorted(names)


_FORGED = "203.0.113.9"
_TRAILED = (
    b"POST /v1/keys HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
    b"Content-Type: application/json\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"%x\r\n%b\r\n0\r\nX-Forwarded-For: 203.0.113.9\r\nX-Request-Id: forged\r\n\r\n"
)


def _create_from(url: str, token: str, address: str, name: str, *headers: tuple[str, str]) -> str:
    """Make a key from an address of this machine; return the key's id."""
    transport = httpx.HTTPTransport(local_address=address)
    sent = [("Authorization", f"Bearer {token}"), *headers]
    body = {"name": name, "scopes": ["mcp:read"]}
    with httpx.Client(transport=transport, timeout=PATIENCE) as client:
        made: Json = answered(client.post(f"{url}/v1/keys", headers=sent, json=body), 201)
    key_id: str = made["key_id"]
    return key_id


def _source_of(client: Client, key_id: str) -> object:
    (created,) = client.history(key_id)
    return created["source_ip"]


def test_the_source_is_the_client_that_a_trusted_proxy_names(behind: Behind) -> None:
    with behind.client() as client:
        plain = _create_from(behind.url, behind.ledger.token, "127.0.0.2", "source")
        assert _source_of(client, plain) == "127.0.0.2"
        claimed = ("X-Forwarded-For", _FORGED)
        forged = _create_from(
            behind.url, behind.ledger.token, "127.0.0.2", "forged source", claimed
        )
        assert _source_of(client, forged) == "127.0.0.2"


def test_trailers_name_neither_the_source_nor_the_request(behind: Behind) -> None:
    name = f"trailed-{behind.proxy}"
    body = b'{"name": "%b", "scopes": ["mcp:read"]}' % name.encode()
    message = _TRAILED % (behind.ledger.token.encode(), len(body), body)
    received = exchange(behind.url, message)
    assert final_answers(received) == [b"201"], received
    with behind.client() as client:
        (key,) = [key for key in client.list_keys(q="trailed-") if key["name"] == name]
        (created,) = client.history(key["key_id"])
    assert created["source_ip"] == "127.0.0.1"
    assert created["request_id"] != "forged"


def test_the_source_is_the_proxy_where_it_is_not_trusted(behind: Behind) -> None:
    ledger = behind.ledger
    with (
        behind.proxy.running(behind.folder / "distrusted", ledger.distrusting.url) as url,
        closing(ledger.distrusting.client(ledger.token)) as client,
    ):
        claimed = ("X-Forwarded-For", _FORGED)
        key_id = _create_from(url, ledger.token, "127.0.0.2", "distrusted", claimed)
        assert _source_of(client, key_id) == "127.0.0.1"


def test_long_lists_and_exports_pass_whole(behind: Behind) -> None:
    with behind.client() as client:
        assert sorted(key["name"] for key in client.list_keys(q="many-")) == MANY
        exported = client.http.get("/v1/events", headers={"Accept": "application/x-ndjson"})
        assert exported.text.count('"name":"many-') == len(MANY)


def test_an_event_reaches_a_live_tail_while_it_is_open(behind: Behind) -> None:
    with behind.client() as reader, behind.client() as writer:
        tail = Tail(reader, {"after": str(_last_position(reader))})
        waiting = b""
        with tail.opened() as chunks:
            key_id = answered(writer.create("seen at once"), 201)["key_id"]
            for chunk in chunks:
                waiting = tail.take(waiting + chunk)
                if tail.came:
                    break
        assert key_id in str(tail.came[0])


def _last_position(client: Client) -> int:
    newest = client.list_keys()[0]["key_id"]
    position: int = client.history(newest)[-1]["position"]
    return position
