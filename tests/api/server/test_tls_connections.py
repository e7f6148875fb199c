"""TLS handshakes have a deadline, and count as connections."""

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import httpx
import pytest

from tests.api.http.test_tls import CERTIFICATE, KEY, client_context, write_certificate
from tests.system.processes import Servers, eventually, servers_in

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

PATIENCE = 30.0
URL = re.compile(r"Uvicorn running on https://127\.0\.0\.1:(\d+)")


def first_flight() -> bytes:
    """Return the first message of a client's handshake."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(to_client, to_server)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return to_server.read()


HELLO = first_flight()
UNFINISHED = {
    "nothing": b"",
    "one byte": HELLO[:1],
    "half of the first message": HELLO[: len(HELLO) // 2],
    "the first message and no more": HELLO,
}


def started(servers: Servers, folder: Path, **settings: float) -> int:
    write_certificate(folder, "first")
    server = servers.begin(
        tls_certificate=folder / CERTIFICATE, tls_key=folder / KEY, data_dir=None, **settings
    )
    eventually(lambda: URL.search(server.log) is not None, "it says where it listens")
    match = URL.search(server.log)
    assert match, server.log
    port = int(match[1])
    eventually(lambda: answers(port), "it answers")
    return port


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)


def wait_for_end(connection: socket.socket) -> None:
    """Read until the server ends the connection; a timeout fails the test."""
    with suppress(ConnectionError):
        while connection.recv(65_536):
            pass


def answers(port: int) -> bool:
    with httpx.Client(verify=client_context(), trust_env=False) as client:
        try:
            return client.get(f"https://127.0.0.1:{port}/healthz").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("tls")
    with servers_in(folder) as servers:
        yield started(servers, folder, head_seconds=2)


@pytest.mark.parametrize("sent", UNFINISHED)
def test_an_unfinished_handshake_is_ended(port: int, sent: str) -> None:
    with closing(connected(port)) as connection:
        connection.sendall(UNFINISHED[sent])
        wait_for_end(connection)
    assert answers(port)


def test_connections_without_a_finished_handshake_count(servers: Servers, tmp_path: Path) -> None:
    port = started(
        servers, tmp_path, max_connections=4, max_connections_per_address=4, head_seconds=600
    )
    with ExitStack() as silent:
        for _ in range(4):
            silent.enter_context(closing(connected(port)))
        eventually(lambda: not answers(port), "the silent connections are counted")
    eventually(lambda: answers(port), "they are not counted any more")


def test_a_request_with_the_last_message_of_the_handshake_is_answered(port: int) -> None:
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context().wrap_bio(to_client, to_server)
    with closing(connected(port)) as connection:
        answer = b""
        asked = False
        while b"\r\n\r\n" not in answer:
            with suppress(ssl.SSLWantReadError):
                client.do_handshake()
                if not asked:
                    client.write(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
                    asked = True
                answer += client.read()
                continue
            # The request and the last handshake message are sent together.
            connection.sendall(to_server.read())
            received = connection.recv(65_536)
            assert received, "the server ended the connection without an answer"
            to_client.write(received)
    assert answer.startswith(b"HTTP/1.1 200 ")
