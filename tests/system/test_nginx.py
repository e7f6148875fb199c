"""nginx, configured as the documentation says, in front of an application that knows no keys."""

import os
import shutil
import signal
import socket
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

CONFIGURATION = Path(__file__).parents[2] / "docs" / "gateways" / "nginx.conf"
ECHO = Path(__file__).with_name("echoing.py")
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
TCP_CONNECTIONS = Path("/proc/net/tcp")
LISTENING = "0A"

AUTH_HEADERS = ("X-Auth-Key-Id", "X-Auth-Workspace", "X-Auth-Scopes")
FOLDERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
# One process, in the foreground, that needs no rights and keeps all it writes in its own folder.
AROUND = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{}}
http {{
    access_log {folder}/access.log;
    {temporary}
    include {folder}/keyledger.conf;
}}
"""

pytestmark = [needs(NGINX, "nginx"), pytest.mark.only_on("sqlite")]


@dataclass
class Gateway:
    """nginx, and what stands behind it."""

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
        """Return all that nginx has written to its logs."""
        return "".join(log.read_text() for log in self.folder.glob("*.log"))


@dataclass(frozen=True)
class Key:
    key_id: str
    token: str

    @property
    def bearer(self) -> tuple[str, str]:
        return "Authorization", f"Bearer {self.token}"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def rendered(port: int, ledger: Server, application: int) -> str:
    """Return the documented configuration, with the addresses of this test."""
    text = CONFIGURATION.read_text()
    for documented, real in {
        "listen 80;": f"listen 127.0.0.1:{port};",
        "server 127.0.0.1:8080;": f"server {ledger.url.removeprefix('http://')};",
        "server 127.0.0.1:9000;": f"server 127.0.0.1:{application};",
    }.items():
        assert text.count(documented) == 1, documented
        text = text.replace(documented, real)
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
def running_nginx(folder: Path, ledger: Server, application: int) -> Iterator[str]:
    """Run nginx as documented, in front of the application; give its URL."""
    folder.mkdir()
    port = free_port()
    temporary = "".join(f"{name}_temp_path {folder}/{name};" for name in FOLDERS)
    (folder / "keyledger.conf").write_text(rendered(port, ledger, application))
    (folder / "nginx.conf").write_text(AROUND.format(folder=folder, temporary=temporary))
    assert NGINX is not None
    command = [NGINX, "-p", str(folder), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
    tested = subprocess.run([*command, "-t"], check=False, capture_output=True, text=True)
    assert tested.returncode == 0, tested.stderr
    assert "[warn]" not in tested.stderr
    nginx = subprocess.Popen(command)
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: nginx.poll() is not None or answers(url), "nginx answers")
        assert nginx.poll() is None, (folder / "error.log").read_text()
        yield url
    finally:
        nginx.terminate()
        nginx.wait(PATIENCE)


@contextmanager
def gateway_in(folder: Path) -> Iterator[Gateway]:
    """Run all three; those that still run at the end are ended."""
    with ExitStack() as running:
        servers = running.enter_context(servers_in(folder))
        ledger = servers.start()
        application = running.enter_context(echoing())
        nginx = folder / "nginx"
        url = running.enter_context(running_nginx(nginx, ledger, application))
        http = running.enter_context(httpx.Client(base_url=url, timeout=PATIENCE, trust_env=False))
        yield Gateway(http, ledger, ledger.client(admin_token(servers.data_dir)), nginx)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway_in(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture
def gateway_to_break(tmp_path: Path) -> Iterator[Gateway]:
    with gateway_in(tmp_path) as gateway:
        yield gateway


def answers(url: str) -> bool:
    try:
        httpx.get(url, trust_env=False)
    except httpx.TransportError:
        return False
    return True


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


def test_a_live_key_passes_and_the_application_learns_whose_it_is(gateway: Gateway) -> None:
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
def test_what_a_client_says_of_itself_never_arrives(
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


def test_what_is_for_the_gateway_alone_is_not_there_for_clients(gateway: Gateway) -> None:
    key = make(gateway)
    for path in ("/_keyledger/mcp:read", "/_keyledger/", "/_keyledger/../_keyledger/mcp:read"):
        assert gateway.http.get(path, headers=dict([key.bearer])).status_code == 404


def test_where_keyledger_does_not_answer_nobody_passes(gateway: Gateway) -> None:
    key = make(gateway)
    assert gateway.send(key.bearer).status_code == 200
    gateway.ledger.send(signal.SIGSTOP)
    try:
        assert gateway.send(key.bearer).status_code == 503
    finally:
        gateway.ledger.send(signal.SIGCONT)
    eventually(lambda: gateway.send(key.bearer).status_code == 200, "the key passes again")


def test_where_keyledger_is_down_nobody_passes(gateway_to_break: Gateway) -> None:
    gateway = gateway_to_break
    key = make(gateway)
    assert gateway.send(key.bearer).status_code == 200
    gateway.ledger.kill()
    for headers in ([key.bearer], [key.bearer], []):
        answer = gateway.send(*headers)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"


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
