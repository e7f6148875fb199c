"""A client of live streams, which parses server-sent events as in the HTML standard (9.2.6)."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from tests.system.clients import Client, Json


@dataclass
class Tail:
    """The events of a live stream so far, over several connections."""

    client: Client
    query: dict[str, str]
    last_id: str = ""
    came: list[Json] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)

    @contextmanager
    def opened(self) -> Iterator[Iterator[bytes]]:
        """Connect, and give the events as they come, each in its raw form."""
        headers = {"Accept": "text/event-stream"}
        if self.last_id:
            headers["Last-Event-ID"] = self.last_id
        with self.client.http.stream(
            "GET", "/v1/events", params=self.query, headers=headers
        ) as response:
            if response.status_code != httpx.codes.OK:
                response.read()
            assert response.status_code == httpx.codes.OK, response.text
            assert response.headers["Content-Type"].startswith("text/event-stream")
            yield response.iter_raw()

    def read_bytes(self, count: int) -> None:
        """Connect, take so many bytes or some more, and cut the connection in the midst of them.

        What comes after them, and an event whose end is missing, never arrived.
        """
        received = b""
        with self.opened() as chunks:
            for chunk in chunks:
                received += chunk
                if len(received) >= count:
                    break
        self.take(received[:count])

    def read_until(self, events: int) -> None:
        """Connect, and read until so many events came in all."""
        waiting = b""
        with self.opened() as chunks:
            for chunk in chunks:
                waiting = self.take(waiting + chunk)
                if len(self.came) >= events:
                    return

    def read_to_the_end(self) -> None:
        """Connect, and read until the server ends it."""
        waiting = b""
        with self.opened() as chunks:
            for chunk in chunks:
                waiting = self.take(waiting + chunk)
        assert waiting == b"", "it ended in the midst of an event"

    def take(self, received: bytes) -> bytes:
        """Note the events that are whole; return what is left over."""
        *whole, rest = received.split(b"\n\n")
        for block in whole:
            data = ""
            for line in block.decode().split("\n"):
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if name == "":
                    self.comments.append(value)
                if name == "id":
                    self.last_id = value
                if name == "data":
                    data += value
            if data:
                self.came.append(json.loads(data))
        return rest
