"""A proxy for PostgreSQL that can cut a connection between a commit and its answer."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import URL

_COMMIT = b"COMMIT\0"
"""How a commit is asked for (PostgreSQL documentation, "Message Formats", Query)."""

_AT_ONCE = 65_536


class Proxy:
    """Passes on what is said, until somebody commits what has a certain word in it."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._word: bytes | None = None
        self.cut = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def cut_next_commit_of(self, word: str) -> None:
        """Keep back the answer to the next commit of a transaction that has the word in it."""
        self._word = word.encode()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                _Passage(self, client, socket.create_connection(self._server))

    def is_to_be_cut(self, said: bytes) -> bool:
        return self._word is not None and self._word in said and said.endswith(_COMMIT)

    def has_cut(self) -> None:
        self._word = None
        self.cut += 1


class _Passage:
    """One connection, in both directions."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._cut_by_answer = False
        for work in (self._ask, self._answer):
            threading.Thread(target=work, daemon=True).start()

    def _ask(self) -> None:
        said = b""
        with suppress(OSError):
            while asked := self._client.recv(_AT_ONCE):
                said = (said + asked)[-_AT_ONCE:]
                self._cut_by_answer = self._proxy.is_to_be_cut(said)
                if said.endswith(_COMMIT):
                    said = b""
                self._server.sendall(asked)
        self._close()

    def _answer(self) -> None:
        with suppress(OSError):
            while answer := self._server.recv(_AT_ONCE):
                if self._cut_by_answer:
                    # What it answers is that it is done; nobody hears of it.
                    self._proxy.has_cut()
                    break
                self._client.sendall(answer)
        self._close()

    def _close(self) -> None:
        for each in (self._client, self._server):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextmanager
def cutting(url: URL) -> Iterator[tuple[Proxy, URL]]:
    """Put a proxy before a server; give the URL of the way through it."""
    proxy = Proxy((url.host or "", url.port or 0))
    try:
        yield proxy, url.set(port=proxy.port)
    finally:
        proxy.close()
