"""What Prometheus reads.

Where several workers share a port, each reading reaches one of them; prometheus_client then keeps
the numbers of all in files of a folder that they share, and adds them up.
"""

import os
from collections.abc import Collection, Iterator
from http import HTTPMethod
from typing import NamedTuple

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    multiprocess,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.composition import OpenLedger
from api.http.prefix_labels import OTHER, PrefixLabels
from domain.errors import EventNotSealed, RowNotSealed
from domain.times import from_text
from domain.verdict import Code, Verdict
from projections.audit_log.checkpoint_table import last_signed
from projections.integrity.last_result import read_last_result
from projections.rebuild.status import projection_status
from projections.store.unreadable_rows import readable

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client learns of the folder, before it is imported."""

NOT_SEALED = frozenset({EventNotSealed.code, RowNotSealed.code})
_METHODS = frozenset(HTTPMethod)
_FAST_TO_A_TIMED_ONE = 16
_LATENCIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Fast(NamedTuple):
    """How an answer of the fast path is counted."""

    code: Code
    prefix: str
    method: str
    route: str
    status: int


class Metrics:
    """The counters and the times of one server process."""

    def __init__(self, token_prefixes: Collection[str]) -> None:
        """Count from zero, and these token prefixes separately."""
        # A second series for each, with the time of the process's start, tells nobody anything.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "keyledger_requests",
            "Requests answered, all of them.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "keyledger_request_seconds",
            "Time to answer a request, in seconds. A sample: of the verifications on the fast path,"
            f" one in {_FAST_TO_A_TIMED_ONE} is timed; keyledger_requests_total counts all.",
            ("method", "route", "status"),
            buckets=_LATENCIES,
            registry=self.registry,
        )
        self._verdicts = Counter(
            "keyledger_verdicts",
            "Tokens verified for other services, all of them, by the verdict's code.",
            ("code",),
            registry=self.registry,
        )
        self._refusals = Counter(
            "keyledger_refusals",
            "Tokens refused to other services, by the verdict's code and the token's prefix,"
            f" which is `{OTHER}` for all but the default prefix and those of the settings.",
            ("code", "prefix"),
            registry=self.registry,
        )
        self._prefixes = PrefixLabels(token_prefixes)
        self._appends = Histogram(
            "keyledger_append_seconds",
            "Duration of the transactions that append events and update the views, in seconds.",
            buckets=_LATENCIES,
            registry=self.registry,
        )
        self._events = Counter(
            "keyledger_events_appended",
            "Events appended by this process.",
            registry=self.registry,
        )
        self._not_sealed = Counter(
            "keyledger_not_sealed",
            "Requests refused because a row or an event has no valid seal, by error code.",
            ("code",),
            registry=self.registry,
        )
        self._argon2 = Gauge(
            "keyledger_argon2_calls",
            "Argon2id calls that are running or waiting.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        # To find a series by its labels takes longer than to count, so it is done once.
        self._fast: dict[Fast, tuple[list[Counter], Histogram]] = {}
        self._fast_seen = 0
        for code in Code:
            self._verdicts.labels(code)
            if code is not Code.VALID:
                for prefix in token_prefixes:
                    self._refusals.labels(code, prefix)
        for not_sealed in NOT_SEALED:
            self._not_sealed.labels(not_sealed)

    def outcome(self, code: str) -> None:
        """Count a refusal for want of a right seal; other outcomes are counted elsewhere."""
        if code in NOT_SEALED:
            self._not_sealed.labels(code).inc()

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        labels = _method(method), route, str(status)
        self._requests.labels(*labels).inc()
        self._seconds.labels(*labels).observe(seconds)

    def verdict(self, verdict: Verdict, token: str) -> None:
        """Count a verdict about a presented token."""
        prefix = self._prefixes.label(token)
        self._verdicts.labels(verdict.code).inc()
        if verdict.code is not Code.VALID:
            self._refusals.labels(verdict.code, prefix).inc()

    def fast(self, verdict: Verdict, token: str, method: str, route: str, status: int) -> Fast:
        """Return how `turn` counts an answer of the fast path."""
        return Fast(verdict.code, self._prefixes.label(token), method, route, status)

    def turn(self, counted: Fast, *, count: int, seconds: float) -> None:
        """Count answers of the fast path in one turn of the event loop, and time one of sixteen.

        Timing them all would take a fifth of the time that a verification takes.

        Args:
            count: how many answers of this kind there were.
            seconds: from the arrival of the first one to the answer of the last one.
        """
        counters, timing = self._fast.get(counted) or self._series(counted)
        for counter in counters:
            counter.inc(count)
        timed = self._fast_seen // _FAST_TO_A_TIMED_ONE
        self._fast_seen += count
        if self._fast_seen // _FAST_TO_A_TIMED_ONE > timed:
            timing.observe(seconds)

    def _series(self, counted: Fast) -> tuple[list[Counter], Histogram]:
        labels = counted.method, counted.route, str(counted.status)
        counters = [self._verdicts.labels(counted.code), self._requests.labels(*labels)]
        if counted.code is not Code.VALID:
            counters.append(self._refusals.labels(counted.code, counted.prefix))
        self._fast[counted] = series = counters, self._seconds.labels(*labels)
        return series

    def append(self, events: int, seconds: float) -> None:
        """Count a transaction that appended events."""
        self._events.inc(events)
        self._appends.observe(seconds)

    def argon2(self, change: int) -> None:
        """Count an Argon2id call that begins to wait or run (1), or has ended (-1)."""
        self._argon2.inc(change)

    def watch(self, ledger: OpenLedger) -> None:
        """Let each reading ask the ledger for its position and its queues."""
        self._ledger = _LedgerCollector(ledger)

    def text(self) -> bytes:
        """Return all of it in Prometheus's text format.

        Raises:
            LedgerUnavailable: the ledger cannot be asked for its position.
        """
        registry = self.registry
        if SHARED_FOLDER in os.environ:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        ledger = CollectorRegistry()
        ledger.register(self._ledger)
        return generate_latest(registry) + generate_latest(ledger)

    def close(self) -> None:
        """Take this process's gauges out of what the others show."""
        if SHARED_FOLDER in os.environ:
            multiprocess.mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]


def _method(method: str) -> str:
    # A client may send any method, and each label is kept for ever.
    return method if method in _METHODS else "other"


class _LedgerCollector(Collector):
    def __init__(self, ledger: OpenLedger) -> None:
        self._ledger = ledger

    def describe(self) -> list[Metric]:
        """Name nothing in advance, so that registering does not ask the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Ask the ledger; one that lacks what this process has seen says nothing of itself."""
        refusal = self._ledger.database.known.refusal
        yield GaugeMetricFamily(
            "keyledger_ledger_went_back",
            "Whether verification is refused (1), because the database lacks an event or a"
            " timeline that this process has seen.",
            value=refusal is not None,
        )
        if refusal is not None:
            return
        statuses = projection_status(self._ledger.database)
        yield GaugeMetricFamily(
            "keyledger_position",
            "Position of the newest event.",
            value=max(status.last_position for status in statuses),
        )
        lag = GaugeMetricFamily(
            "keyledger_projection_lag",
            "Number of positions that a projection is behind the newest event.",
            labels=["projection"],
        )
        for status in statuses:
            lag.add_metric([status.name], status.lag)
        yield lag
        yield from self._about_checkpoints()
        yield from self._about_attestation()

    def _about_attestation(self) -> Iterator[Metric]:
        last = read_last_result(self._ledger.database, self._ledger.clock())
        if last is None:
            return
        yield GaugeMetricFamily(
            "keyledger_attestation_findings",
            "Number of findings of the last integrity check.",
            value=last.findings,
        )
        yield GaugeMetricFamily(
            "keyledger_attestation_timestamp_seconds",
            "End of the last integrity check, in seconds since 1970.",
            value=last.finished_at.timestamp(),
        )

    def _about_checkpoints(self) -> Iterator[Metric]:
        signer = self._ledger.signer
        yield GaugeMetricFamily(
            "keyledger_history_in_doubt",
            "Whether changes are refused (1), because the log does not match its signed"
            " checkpoints.",
            value=signer.doubt is not None,
        )
        with self._ledger.database.read() as connection:
            signed = last_signed(connection, signer.key.name)
        if signed is None:
            return
        size, written = signed
        with readable("checkpoints"):
            size = int(size)
            signed_at = from_text(written)
        yield GaugeMetricFamily(
            "keyledger_checkpoint_size",
            "Number of entries that the last signed checkpoint covers.",
            value=size,
        )
        yield GaugeMetricFamily(
            "keyledger_checkpoint_timestamp_seconds",
            "Time of the last signed checkpoint, in seconds since 1970.",
            value=signed_at.timestamp(),
        )
