"""Gateways configured as documented, in front of an application that knows no keys."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.programs import needs
from tests.system.clients import Client, Json, answered
from tests.system.ledgers import admin_token
from tests.system.processes import PATIENCE, Server, eventually, servers_in
from tests.system.proxies import caddy_around, free_port, nginx_around, program, running

DOCUMENTED = Path(__file__).parents[2] / "docs" / "gateways"
ECHO = Path(__file__).with_name("echoing.py")
TCP_CONNECTIONS = Path("/proc/net/tcp")
LISTENING = "0A"

AUTH_HEADERS = ("X-Auth-Key-Id", "X-Auth-Workspace", "X-Auth-Scopes")

SILENT = {"nginx": 503, "caddy": 504}
"""What each gateway answers where Keyledger does not answer in time."""

DOWN = {"nginx": 503, "caddy": 502}
"""What each gateway answers where Keyledger cannot be reached."""

pytestmark = pytest.mark.only_on("sqlite")
GATEWAYS = [pytest.param(name, marks=needs(program(name), name)) for name in ("nginx", "caddy")]


@dataclass
class Gateway:
    """A gateway, and what is behind it."""

    program: str
    http: httpx.Client
    ledger: Server
    admin: Client
    folder: Path

    def send(
        self, *headers: tuple[str, str], method: str = "GET", body: bytes = b""
    ) -> httpx.Response:
        as_sent = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        return self.http.request(method, "/mcp?page=2", headers=as_sent, content=body)

    def seen(self, *headers: tuple[str, str], method: str = "GET", body: bytes = b"") -> Json:
        """Return what the application saw of a request."""
        return answered(self.send(*headers, method=method, body=body))

    def written(self) -> str:
        """Return all that the gateway has written to its logs."""
        return "".join(log.read_text() for log in self.folder.glob("*.log"))


@dataclass(frozen=True)
class Key:
    key_id: str
    token: str

    @property
    def bearer(self) -> tuple[str, str]:
        return "Authorization", f"Bearer {self.token}"


def configuration(name: str, folder: Path, port: int, ledger: Server, application: int) -> str:
    """Return the documented configuration, with the addresses of this test."""
    keyledger = ledger.url.removeprefix("http://")
    if name == "nginx":
        text = _rendered(
            "nginx.conf",
            {
                "listen 80;": f"listen 127.0.0.1:{port};",
                "server 127.0.0.1:8080;": f"server {keyledger};",
                "server 127.0.0.1:9000;": f"server 127.0.0.1:{application};",
            },
        )
        return nginx_around(folder, text)
    text = _rendered(
        "Caddyfile",
        {
            "app.example.com {": f"http://:{port} {{\n\tbind 127.0.0.1",
            "forward_auth 127.0.0.1:8080": f"forward_auth {keyledger}",
            "reverse_proxy 127.0.0.1:9000": f"reverse_proxy 127.0.0.1:{application}",
        },
    )
    return caddy_around(folder, text)


def _rendered(documented: str, addresses: dict[str, str]) -> str:
    text = (DOCUMENTED / documented).read_text()
    for address, real in addresses.items():
        assert text.count(address) == 1, address
        text = text.replace(address, real)
    return text


@contextmanager
def echoing() -> Iterator[int]:
    """Run an application that echoes what it is sent; give its port."""
    process = subprocess.Popen([sys.executable, ECHO], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


@contextmanager
def gateway_in(folder: Path, name: str) -> Iterator[Gateway]:
    """Run all three; those that still run at the end are ended."""
    with ExitStack() as opened:
        servers = opened.enter_context(servers_in(folder))
        ledger = servers.start()
        application = opened.enter_context(echoing())
        own = folder / "gateway"
        own.mkdir()
        port = free_port()
        text = configuration(name, own, port, ledger, application)
        url = opened.enter_context(running(name, own, text, port))
        http = opened.enter_context(httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False))
        yield Gateway(name, http, ledger, ledger.client(admin_token(servers.data_dir)), own)


@pytest.fixture(scope="module", params=GATEWAYS)
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    with gateway_in(tmp_path_factory.mktemp("gateway"), request.param) as gateway:
        yield gateway


@pytest.fixture(params=GATEWAYS)
def gateway_to_break(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Gateway]:
    with gateway_in(tmp_path, request.param) as gateway:
        yield gateway


def make(gateway: Gateway, *scopes: str) -> Key:
    made = answered(gateway.admin.create("agent", scopes or ["mcp:read"]), 201)
    return Key(made["key_id"], made["token"])


def values(seen: Json, name: str) -> list[str]:
    return [value for each, value in seen["headers"] if each == name.lower()]


def folded(seen: Json) -> dict[str, list[str]]:
    """Return the headers as CGI and WSGI name them: whatever is no letter or digit is a `_`."""
    by_name: dict[str, list[str]] = {}
    for name, value in seen["headers"]:
        cgi = "".join(each if each.isalnum() else "_" for each in name).upper()
        by_name.setdefault(cgi, []).append(value)
    return by_name


def test_an_active_key_passes_and_the_application_gets_its_owner(gateway: Gateway) -> None:
    key = make(gateway, "mcp:read", "mcp:write")
    seen = gateway.seen(key.bearer, method="POST", body=b"the body")
    assert [values(seen, name) for name in AUTH_HEADERS] == [
        [key.key_id],
        ["default"],
        ["mcp:read mcp:write"],
    ]
    assert (seen["method"], seen["path"], seen["body"]) == ("POST", "/mcp?page=2", "the body")


@pytest.mark.parametrize("header", ["X-API-Key", "X-Blnk-Key"])
def test_a_token_in_a_header_of_its_own_passes_too(gateway: Gateway, header: str) -> None:
    key = make(gateway)
    assert values(gateway.seen((header, key.token)), "X-Auth-Key-Id") == [key.key_id]


def test_without_a_credential_the_challenge_reaches_the_client(gateway: Gateway) -> None:
    answer = gateway.send()
    assert answer.status_code == 401
    assert answer.headers.get_list("WWW-Authenticate") == ['Bearer realm="keyledger"']


@pytest.mark.parametrize("credential", ["Bearer nonsense", "Bearer", "Bearer \xff", "Bearer a b"])
def test_a_bad_credential_is_refused_with_a_reason(gateway: Gateway, credential: str) -> None:
    answer = gateway.send(("Authorization", credential))
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


def test_two_different_credentials_are_refused(gateway: Gateway) -> None:
    answer = gateway.send(make(gateway).bearer, ("X-API-Key", make(gateway).token))
    assert answer.status_code == 401


def test_a_revoked_key_is_refused_by_the_very_next_request(gateway: Gateway) -> None:
    for _ in range(10):
        key = make(gateway)
        assert gateway.send(key.bearer).status_code == 200
        answered(gateway.admin.revoke(key.key_id))
        answer = gateway.send(key.bearer)
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


def test_too_small_a_scope_is_forbidden_and_the_scope_is_named(gateway: Gateway) -> None:
    answer = gateway.send(make(gateway, "mcp:write").bearer)
    assert answer.status_code == 403
    (challenge,) = answer.headers.get_list("WWW-Authenticate")
    assert 'error="insufficient_scope"' in challenge
    assert 'scope="mcp:read"' in challenge


@pytest.mark.parametrize("separator", ["-", "_", "."])
@pytest.mark.parametrize("spelled", [str.title, str.lower, str.upper])
def test_identity_headers_from_clients_are_removed(
    gateway: Gateway, separator: str, spelled: Callable[[str], str]
) -> None:
    key = make(gateway)
    spoofed = [(spelled(name.replace("-", separator)), "forged") for name in AUTH_HEADERS]
    mixed = [("X_Auth-Key-Id", "forged"), ("X-Auth-Key_Id", "forged"), ("X-Auth_Scopes", "*")]
    seen = folded(gateway.seen(*spoofed, key.bearer, *spoofed, *mixed))
    assert [seen[name] for name in ("X_AUTH_KEY_ID", "X_AUTH_WORKSPACE", "X_AUTH_SCOPES")] == [
        [key.key_id],
        ["default"],
        ["mcp:read"],
    ]


def test_a_client_cannot_have_the_headers_dropped(gateway: Gateway) -> None:
    key = make(gateway)
    seen = gateway.seen(key.bearer, ("Connection", "X-Auth-Key-Id, X-Auth-Scopes"))
    assert values(seen, "X-Auth-Key-Id") == [key.key_id]
    assert values(seen, "X-Auth-Scopes") == ["mcp:read"]


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key", "X-Blnk-Key"])
def test_the_token_ends_at_the_gateway(gateway: Gateway, header: str) -> None:
    key = make(gateway)
    presented = f"Bearer {key.token}" if header == "Authorization" else key.token
    seen = gateway.seen((header, presented), ("Cookie", "session=1"))
    assert key.token not in str(seen)
    assert values(seen, header) == []
    assert values(seen, "Cookie") == ["session=1"]
    assert key.token not in gateway.written() + gateway.ledger.log


@pytest.mark.parametrize("gateway", GATEWAYS[:1], indirect=True)  # Caddy needs no path of its own
def test_what_is_for_the_gateway_alone_is_not_there_for_clients(gateway: Gateway) -> None:
    key = make(gateway)
    for path in ("/_keyledger/mcp:read", "/_keyledger/", "/_keyledger/../_keyledger/mcp:read"):
        assert gateway.http.get(path, headers=dict([key.bearer])).status_code == 404


def test_nothing_passes_while_keyledger_does_not_answer(gateway: Gateway) -> None:
    key = make(gateway)
    assert gateway.send(key.bearer).status_code == 200
    gateway.ledger.send(signal.SIGSTOP)
    try:
        assert gateway.send(key.bearer).status_code == SILENT[gateway.program]
    finally:
        gateway.ledger.send(signal.SIGCONT)
    eventually(lambda: gateway.send(key.bearer).status_code == 200, "the key passes again")


def test_nothing_passes_while_keyledger_is_down(gateway_to_break: Gateway) -> None:
    gateway = gateway_to_break
    key = make(gateway)
    assert gateway.send(key.bearer).status_code == 200
    gateway.ledger.kill()
    for headers in ([key.bearer], [key.bearer], []):
        answer = gateway.send(*headers)
        assert answer.status_code == DOWN[gateway.program]
        assert (answer.headers.get("Retry-After") == "1") == (gateway.program == "nginx")


@pytest.mark.skipif(not TCP_CONNECTIONS.exists(), reason="this machine does not list connections")
def test_connections_to_keyledger_are_kept(gateway: Gateway) -> None:
    key = make(gateway)
    assert gateway.send(key.bearer).status_code == 200
    port = int(gateway.ledger.url.rpartition(":")[2])
    before = connections(port)
    for _ in range(50):
        assert gateway.send(key.bearer).status_code == 200
    assert connections(port) <= before + 2  # both ends of one


def connections(port: int) -> int:
    """Count the ends of connections to a port, the ones closed of late too."""
    lines = [line.split() for line in TCP_CONNECTIONS.read_text().splitlines()[1:]]
    ends = [(local, remote) for _, local, remote, state, *_ in lines if state != LISTENING]
    return sum(f":{port:04X}" in (local[-5:], remote[-5:]) for local, remote in ends)
