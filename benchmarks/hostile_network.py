"""The cost of clients without a credential: long heads, and connections that send nothing.

Costs are CPU times of the server, which depend little on the load of the machine.
"""

import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from api.network.connection_limits import raise_descriptor_limit
from benchmarks.checks import answered, forward_auth, times
from benchmarks.claims import Row, at_most
from benchmarks.load import Demand, Load
from benchmarks.servers import keyledger_on, root_token_of

_HEAD_BYTES = 65_536
_LONG_TIMES = 16
_REFUSALS = 400
_ROUNDS = 5
_IDLE = 10_000
_DESCRIPTORS_LEFT = 1_000
_SECONDS = 4.0
_RATE = 1_000.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def run(*, quick: bool) -> list[Row]:
    """Measure refusals of long heads, then verifications beside idle connections."""
    raise_descriptor_limit()
    rounds, refusals = (1, _REFUSALS // 4) if quick else (_ROUNDS, _REFUSALS)
    idle = min(_IDLE // 10 if quick else _IDLE, _most_connections())
    limits = {
        "max_connections": 2 * _IDLE,
        "max_connections_per_address": 2 * _IDLE,
        "keep_alive_seconds": 3600,
        "head_seconds": 600,
    }
    with TemporaryDirectory(prefix="keyledger-bench-") as folder:
        data_dir = Path(folder) / "data"
        with keyledger_on(data_dir, **limits) as served:
            token = root_token_of(data_dir)
            rows = _refusals(served.port, served.process_id, rounds, refusals)
            seconds = _SECONDS / 4 if quick else _SECONDS
            rows += _beside_idle(served.port, served.process_id, token, idle, seconds)
    return rows


def _refusals(port: int, process: int, rounds: int, count: int) -> list[Row]:
    """Compare refusing a long head with accepting a body of the same length."""
    start = b"GET /healthz HTTP/1.1\r\nhost: a\r\n"
    one_line = start + b"a: " + b"b" * _HEAD_BYTES
    short_lines = start + b"a: b\r\n" * (_HEAD_BYTES // 6 + 1)
    long_target = b"GET /" + b"a" * _HEAD_BYTES
    accepted = (
        b"POST /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: %d\r\n\r\n"
        % _HEAD_BYTES
    ) + b"b" * _HEAD_BYTES
    endless = start + b"a: " + b"b" * (_LONG_TIMES * _HEAD_BYTES)
    requests = {
        "accepted": (accepted, b"405"),
        "one line": (one_line, b"431"),
        "short lines": (short_lines, b"431"),
        "target": (long_target, b"414"),
        "endless": (endless, b"431"),
    }
    found: dict[str, list[float]] = {name: [] for name in requests}
    for _ in range(rounds):
        for name, (sent, status) in requests.items():
            found[name].append(_cost(process, count, partial(_ask, port, sent, status)))
    floor = median(found["accepted"])
    what = {
        "one line": f"CPU to refuse a head with a line of {_HEAD_BYTES:,} bytes",
        "short lines": f"CPU to refuse a head of {_HEAD_BYTES:,} bytes in short lines",
        "target": f"CPU to refuse a target of {_HEAD_BYTES:,} bytes",
        "endless": f"CPU to refuse a head of {_LONG_TIMES} times the limit",
    }
    rows = []
    for name, words in what.items():
        cost = median(found[name])
        ratio = median(
            one / other for one, other in zip(found[name], found["accepted"], strict=True)
        )
        shown = f"{floor * 1e3:.2f} ms for a request with a body of {_HEAD_BYTES:,} bytes"
        most = 4.0 if name == "endless" else 1.5
        rows.append(at_most(words, f"{cost * 1e3:.2f} ms", shown, ratio, most))
    return rows


def _beside_idle(port: int, process: int, token: str, idle: int, seconds: float) -> list[Row]:
    """Compare verifications with and without idle connections."""
    calm = _checks(port, token, seconds)
    memory = _resident(process)
    with _connected(port, idle):
        # The server answers this after it has accepted all connections before it.
        _ask(port, b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", b"200")
        grown = _resident(process) - memory
        beside = _checks(port, token, seconds)
    return [
        at_most(
            f"p99 of forward-auth beside {idle:,} idle connections",
            times(beside),
            f"{times(calm)} without",
            beside.p99 / calm.p99,
            1.5,
        ),
        Row("memory of the server for each idle connection", f"{grown / idle / 1024:.1f} KiB"),
    ]


def _checks(port: int, token: str, seconds: float) -> Load:
    return answered(Demand(port, [forward_auth(token)], 204, 8, seconds, _RATE))


def _cost(process: int, count: int, once: Callable[[], None]) -> float:
    before = _cpu_seconds(process)
    for _ in range(count):
        once()
    return (_cpu_seconds(process) - before) / count


def _ask(port: int, sent: bytes, status: bytes) -> None:
    """Send bytes on a new connection, and read the complete answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        answer = b""
        with suppress(ConnectionError):
            # The server may close the connection before it has received all bytes.
            connection.sendall(sent)
        with suppress(ConnectionError):
            while received := connection.recv(65_536):
                answer += received
    if answer[9:12] != status:
        raise RuntimeError(f"the answer is not {status!r}: {answer[:80]!r}")


@contextmanager
def _connected(port: int, count: int) -> Iterator[None]:
    """Hold idle connections open."""
    opened: list[socket.socket] = []
    try:
        opened += (socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(count))
        yield
    finally:
        for each in opened:
            each.close()


def _most_connections() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft - _DESCRIPTORS_LEFT


def _cpu_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _resident(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE
