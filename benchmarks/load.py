"""A load generator: each of its connections sends the next request when it has an answer.

It runs as a process of its own (``python -m benchmarks.load``), on uvloop, and parses only the
status and the length of an answer, so that it costs less than the server that it measures.
"""

import asyncio
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import cycle
from typing import cast

import uvloop


@dataclass(frozen=True, slots=True)
class Load:
    """The result of a load.

    Args:
        requests: number of answers.
        seconds: duration.
        wrong: number of answers with an unexpected status.
        p50: median response time, in seconds.
        p99: 99th percentile of the response times, in seconds.
    """

    requests: int
    seconds: float
    wrong: int
    p50: float
    p99: float

    @property
    def rate(self) -> float:
        """Answers per second."""
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Demand:
    """A load to generate.

    Args:
        port: port on this machine.
        requests: requests to send in turn, as bytes on the wire.
        status: expected status of every answer.
        connections: number of concurrent connections.
        seconds: duration.
        rate: maximum requests per second over all connections; 0 for no limit.
        once: send each request only once, on any free connection, and stop.
    """

    port: int
    requests: list[str]
    status: int
    connections: int
    seconds: float
    rate: float = 0.0
    once: bool = False


def http_request(
    method: str, target: str, token: str | None, body: str = "", **headers: str
) -> str:
    """Return a request as bytes on the wire."""
    lines = [f"{method} {target} HTTP/1.1", "host: 127.0.0.1"]
    if token is not None:
        lines.append(f"authorization: Bearer {token}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body:
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join(lines) + "\r\n\r\n" + body


def start(demand: Demand) -> subprocess.Popen[str]:
    """Start generating a load, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None  # noqa: S101 - it is a pipe, as asked for
    process.stdin.write(json.dumps(asdict(demand)))
    process.stdin.close()
    return process


def result(process: subprocess.Popen[str]) -> Load:
    """Wait for the end of a load, and return its result."""
    assert process.stdout is not None  # noqa: S101 - it is a pipe, as asked for
    said = process.stdout.read()
    if process.wait() != 0:
        raise RuntimeError("the load generator failed")
    return Load(**json.loads(said))


class _Caller(asyncio.Protocol):
    """A connection."""

    def __init__(self, demand: Demand, requests: Iterator[bytes], ends: float) -> None:
        self._requests = requests
        self._expected = f"HTTP/1.1 {demand.status} ".encode()
        self._ends = ends
        self._pause = demand.connections / demand.rate if demand.rate else 0.0
        self._sent = 0.0
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self.times: list[float] = []
        self.wrong = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transport does not inherit from asyncio's, but behaves the same.
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        received = self._received + data
        head = received.find(b"\r\n\r\n")
        if head < 0 or len(received) < head + 4 + _body_length(received[:head]):
            self._received = received
            return
        self._received = b""
        now = time.perf_counter()
        self.times.append(now - self._sent)
        self.wrong += not received.startswith(self._expected)
        if now >= self._ends:
            self._finish()
        elif self._pause:
            wait = max(0.0, self._sent + self._pause - now)
            asyncio.get_running_loop().call_later(wait, self._send)
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))

    def _send(self) -> None:
        assert self._transport is not None  # noqa: S101 - it is set when the connection is made
        request = next(self._requests, None)
        if request is None:
            self._finish()
            return
        self._sent = time.perf_counter()
        self._transport.write(request)

    def _finish(self) -> None:
        self.done.set_result(None)
        assert self._transport is not None  # noqa: S101 - as above
        self._transport.close()


def _body_length(head: bytes) -> int:
    _, found, after = head.lower().partition(b"content-length: ")
    return int(after.partition(b"\r\n")[0]) if found else 0


def _itself(caller: _Caller) -> _Caller:
    return caller


async def _make(demand: Demand) -> Load:
    loop = asyncio.get_running_loop()
    requests = [request.encode("latin-1") for request in demand.requests]
    all_once = iter(requests)
    started = time.perf_counter()
    ends = math.inf if demand.once else started + demand.seconds
    callers: list[_Caller] = []
    for at in range(demand.connections):
        turned = requests[at % len(requests) :] + requests[: at % len(requests)]
        caller = _Caller(demand, all_once if demand.once else cycle(turned), ends)
        await loop.create_connection(partial(_itself, caller), "127.0.0.1", demand.port)
        callers.append(caller)
    await asyncio.gather(*(caller.done for caller in callers))
    times = sorted(time_ for caller in callers for time_ in caller.times)
    return Load(
        requests=len(times),
        seconds=time.perf_counter() - started,
        wrong=sum(caller.wrong for caller in callers),
        p50=times[len(times) // 2],
        p99=times[math.ceil(len(times) * 0.99) - 1],
    )


if __name__ == "__main__":
    asked = Demand(**json.load(sys.stdin))
    print(json.dumps(asdict(uvloop.run(_make(asked)))))
