"""TLS connections end properly, immediately, and with the complete answer."""

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.api.http.test_tls import CERTIFICATE, KEY, client_context, write_certificate
from tests.system.processes import PATIENCE, eventually, servers_in

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

ADDRESS = re.compile(r"Uvicorn running on https://127\.0\.0\.1:(\d+)")
LAST = {
    "HTTP/1.0": (b"200", b"GET /openapi.json HTTP/1.0\r\n\r\n"),
    "last of the connection": (
        b"401",
        b"GET /v1/forward-auth HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    ),
    "refused": (b"400", b"nonsense\r\n\r\n"),
    "long body": (b"413", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 900000\r\n\r\n"),
}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder: Path = tmp_path_factory.mktemp("tls")
    write_certificate(folder, "ledger")
    with servers_in(folder) as servers:
        server = servers.begin(tls_certificate=folder / CERTIFICATE, tls_key=folder / KEY)
        eventually(lambda: "Application startup complete" in server.log, "the server listens")
        found = ADDRESS.search(server.log)
        assert found is not None
        yield int(found[1])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("unread", [0, 400_000])
@pytest.mark.parametrize("name", LAST)
def test_the_end_is_signalled_after_the_whole_answer(
    port: int, name: str, unread: int, version: ssl.TLSVersion
) -> None:
    status, sent = LAST[name]
    plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
    context = client_context(version)
    # An end that TLS does not tell of, or a reset, is an error here.
    with closing(context.wrap_socket(plain, suppress_ragged_eofs=False)) as wire:
        wire.sendall(sent + b"a" * unread)
        answer = b""
        while received := wire.recv(65_536):
            answer += received
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    assert head.startswith(b"HTTP/1.1 %b " % status)
    assert length is not None
    assert len(body) == int(length[1])
