"""Real reverse proxies in front of a server, each in its own process on a free port."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.system.processes import PATIENCE, eventually

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
# One process, in the foreground, that needs no rights and keeps all it writes in its own folder.
_NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{}}
http {{
    access_log {folder}/access.log;
    {temporary}
    {http}
}}
"""
_NGINX_FOLDERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
_NGINX_PROXY = """
    map $http_upgrade $upgrade_or_nothing {{
        default upgrade;
        "" "";
    }}
    upstream keyledger {{
        server {upstream};
        keepalive 1;
    }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 1m;
        large_client_header_buffers 4 128k;
        location / {{
            proxy_pass http://keyledger;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            {connection}
        }}
    }}
"""
_HAPROXY = """
global
    nbthread 1
    tune.bufsize 131072
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout http-keep-alive 30s
frontend clients
    bind 127.0.0.1:{port}
    option forwardfor
    default_backend keyledger
backend keyledger
    http-reuse always
    server keyledger {upstream}
"""
_CADDY = """
{{
    admin off
    auto_https off
    storage file_system {folder}/storage
}}
{sites}
"""
_CADDY_PROXY = """
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy {upstream}
}}
"""


def program(name: str) -> str | None:
    """Return where a program is, also where only root's PATH would find it."""
    return shutil.which(name, path=_PATH)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True)
class Proxy:
    """A kind of proxy: the program, and its configuration for one server behind it."""

    name: str
    program: str
    configuration: Callable[[Path, int, str], str]

    def __str__(self) -> str:
        return self.name

    @contextmanager
    def running(self, folder: Path, server_url: str) -> Iterator[str]:
        """Run it in front of a server; give its URL.

        Args:
            folder: does not exist yet; the configuration and all that the proxy writes go there.
            server_url: the server behind it.
        """
        folder.mkdir()
        port = free_port()
        text = self.configuration(folder, port, server_url.removeprefix("http://"))
        with running(self.program, folder, text, port) as url:
            yield url


def nginx_around(folder: Path, http: str) -> str:
    """Return a configuration for nginx whose ``http`` block has these lines."""
    temporary = "".join(f"{name}_temp_path {folder}/{name};" for name in _NGINX_FOLDERS)
    return _NGINX.format(folder=folder, temporary=temporary, http=http)


def caddy_around(folder: Path, sites: str) -> str:
    """Return a configuration for Caddy with these sites."""
    return _CADDY.format(folder=folder, sites=sites)


def _nginx(connection: str) -> Callable[[Path, int, str], str]:
    def configuration(folder: Path, port: int, upstream: str) -> str:
        http = _NGINX_PROXY.format(upstream=upstream, port=port, connection=connection)
        return nginx_around(folder, http)

    return configuration


NGINX = Proxy("nginx", "nginx", _nginx('proxy_set_header Connection "";'))
NGINX_PASSING_UPGRADES = Proxy(
    "nginx-passing-upgrades",
    "nginx",
    _nginx(
        "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrade_or_nothing;"
    ),
)


def _haproxy(_folder: Path, port: int, upstream: str) -> str:
    return _HAPROXY.format(port=port, upstream=upstream)


def _caddy(folder: Path, port: int, upstream: str) -> str:
    return caddy_around(folder, _CADDY_PROXY.format(port=port, upstream=upstream))


HAPROXY = Proxy("haproxy", "haproxy", _haproxy)
CADDY = Proxy("caddy", "caddy", _caddy)
PROXIES = (NGINX, NGINX_PASSING_UPGRADES, HAPROXY, CADDY)


@contextmanager
def running(name: str, folder: Path, configuration: str, port: int) -> Iterator[str]:
    """Run a proxy's program until the block ends; give the URL of its port.

    Args:
        name: ``nginx``, ``haproxy`` or ``caddy``.
        folder: an existing folder for everything that the program writes.
        configuration: the text of its configuration file, which listens on the port.
        port: on 127.0.0.1.
    """
    file = folder / f"{name}.conf"
    file.write_text(configuration)
    path = program(name)
    assert path is not None, f"{name} is not installed"
    commands: dict[str, tuple[list[str | Path], list[str | Path]]] = {
        "nginx": (["-c", file], ["-t", "-c", file]),
        "haproxy": (["-db", "-f", file], ["-c", "-f", file]),
        "caddy": (
            ["run", "--config", file, "--adapter", "caddyfile"],
            ["adapt", "--validate", "--config", file, "--adapter", "caddyfile"],
        ),
    }
    start, test = commands[name]
    own: list[str | Path] = ["-p", folder, "-e", folder / "error.log"] if name == "nginx" else []
    environment = os.environ | {
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
    }
    tested = subprocess.run(
        [path, *own, *test], check=False, capture_output=True, text=True, env=environment
    )
    assert tested.returncode == 0, tested.stderr
    assert "[warn]" not in tested.stderr.lower(), tested.stderr
    url = f"http://127.0.0.1:{port}"
    output = folder / "output.log"
    with output.open("wb") as log:
        process = subprocess.Popen([path, *own, *start], stdout=log, stderr=log, env=environment)
    try:
        eventually(lambda: process.poll() is not None or _answers(url), f"{name} answers")
        assert process.poll() is None, output.read_text()
        yield url
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _answers(url: str) -> bool:
    try:
        httpx.get(url, trust_env=False)
    except httpx.TransportError:
        return False
    return True
