"""Listening addresses of a server; SIGHUP stops it like SIGTERM."""

import signal
import socket
from contextlib import closing

import httpx
import pytest
from structlog.testing import capture_logs

from api.network.listening import CannotListen, announce, bind, close
from tests.system.processes import Servers, eventually


@pytest.mark.parametrize(
    ("host", "reached_at"),
    [
        ("127.0.0.1", {"127.0.0.1"}),
        ("0.0.0.0", {"127.0.0.1"}),  # noqa: S104 - for the time of this test
        ("::1", {"::1"}),
        ("::", {"127.0.0.1", "::1"}),
    ],
)
def test_an_address_is_reached_over_its_own_protocol_and_two_colons_over_both(
    host: str, reached_at: set[str]
) -> None:
    sockets = bind(host, 0)
    port = sockets[0].getsockname()[1]
    for each in sockets:
        each.listen()
    reached = set()
    for address in ("127.0.0.1", "::1"):
        try:
            socket.create_connection((address, port)).close()
        except ConnectionRefusedError:
            continue
        reached.add(address)
    close(sockets)
    assert reached == reached_at


def test_a_name_is_bound_at_each_of_its_addresses_on_one_port() -> None:
    sockets = bind("localhost", 0)
    assert len({each.getsockname()[1] for each in sockets}) == 1
    close(sockets)


@pytest.mark.parametrize(
    ("host", "port", "said"),
    [
        ("192.0.2.1", 0, "cannot listen on 192.0.2.1:0: cannot assign requested address"),
        ("2001:db8::1", 0, r"cannot listen on \[2001:db8::1\]:0: "),
        ("no such host", 0, "cannot listen on no such host: "),
        ("a" * 300, 0, "cannot listen on a+: "),
    ],
)
def test_an_address_that_cannot_be_bound_is_reported_in_one_line(
    host: str, port: int, said: str
) -> None:
    with pytest.raises(CannotListen, match=f"^{said}"):
        bind(host, port)


def test_a_port_in_use_is_reported() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        with pytest.raises(CannotListen, match=f"127.0.0.1:{port}: address already in use; stop"):
            bind("127.0.0.1", port)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "0.0.0.0", "::"])  # noqa: S104 - as above
@pytest.mark.parametrize("tls", [True, False])
def test_plain_http_beyond_this_machine_is_warned_of_once(host: str, *, tls: bool) -> None:
    sockets = bind(host, 0)
    with capture_logs() as logged:
        announce(sockets, host, tls=tls)
    close(sockets)
    warnings = [line["event"] for line in logged if line["log_level"] == "warning"]
    assert warnings == (["plain_http"] if host in {"0.0.0.0", "::"} and not tls else [])  # noqa: S104
    assert f"{'https' if tls else 'http'}://" in logged[0]["event"]


@pytest.mark.only_on("sqlite")
def test_sighup_stops_a_server_of_one_process(servers: Servers) -> None:
    server = servers.start("--host", "::")
    assert server.log.count("plain_http") == 1
    event = server.client().create("mapped").json()
    history = server.client().history(event["key_id"])
    assert history[0]["source_ip"] == "127.0.0.1"
    server.send(signal.SIGHUP)
    assert server.wait() in {0, -signal.SIGTERM}
    assert "Application shutdown complete" in server.log
    assert "Traceback" not in server.log
    with pytest.raises(httpx.ConnectError):
        httpx.get(server.url, trust_env=False)


@pytest.mark.only_on("sqlite")
def test_a_server_with_two_workers_listens_at_two_colons_for_ipv4_too(servers: Servers) -> None:
    server = servers.begin("--host", "::", "--workers", "2")
    eventually(lambda: server.log.count("Application startup complete") == 2, "both are ready")
    port = server.log.partition("Uvicorn running on http://[::]:")[2].partition(" ")[0]
    for address in ("127.0.0.1", "[::1]"):
        assert httpx.get(f"http://{address}:{port}/healthz", trust_env=False).status_code == 200
