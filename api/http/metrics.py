"""What Prometheus reads.

Where several workers share a port, each reading reaches one of them; prometheus_client then keeps
the numbers of all in files of a folder that they share, and adds them up.
"""

import os
from collections.abc import Iterator
from http import HTTPMethod

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
from domain.errors import EventNotSealed, RowNotSealed
from domain.times import from_text
from domain.verdict import Code
from projections.audit_log.checkpoint_table import last_signed
from projections.integrity.last_result import read_last_result
from projections.rebuild.status import projection_status
from projections.store.unreadable_rows import readable

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client learns of the folder, before it is imported."""

NOT_SEALED = frozenset({EventNotSealed.code, RowNotSealed.code})
_CODES = frozenset(Code)
_METHODS = frozenset(HTTPMethod)
_CHECKS_TO_A_TIMED_ONE = 16
_LATENCIES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


class Metrics:
    """The counters and the times of one server process."""

    def __init__(self) -> None:
        # A second series for each, with the time of the process's start, tells nobody anything.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._requests = Histogram(
            "keyledger_request_seconds",
            "Time to answer a request, in seconds.",
            ("method", "route", "status"),
            buckets=_LATENCIES,
            registry=self.registry,
        )
        self._verdicts = Counter(
            "keyledger_verdicts",
            "Tokens verified for other services, by the verdict's code.",
            ("code",),
            registry=self.registry,
        )
        self._appends = Histogram(
            "keyledger_append_seconds",
            "Time of a transaction that appends events and updates the views, in seconds.",
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
            "Requests refused because a row or an event has no right seal, by the code.",
            ("code",),
            registry=self.registry,
        )
        self._argon2 = Gauge(
            "keyledger_argon2_calls",
            "Argon2id calls that run or wait at this moment.",
            multiprocess_mode="livesum",
            registry=self.registry,
        )
        # What is behind the labels is looked up once: that takes longer than counting.
        self._checks: dict[tuple[str, str, str, int], tuple[Counter | None, Histogram]] = {}
        self._checks_seen = 0
        for code in Code:
            self._verdicts.labels(code)
        for not_sealed in NOT_SEALED:
            self._not_sealed.labels(not_sealed)

    def outcome(self, code: str) -> None:
        """Count a refusal for want of a right seal; other outcomes are counted elsewhere."""
        if code in NOT_SEALED:
            self._not_sealed.labels(code).inc()

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        self._timed(method, route, status).observe(seconds)

    def verdict(self, code: Code) -> None:
        """Count a verdict."""
        self._verdicts.labels(code).inc()

    def checks(
        self, code: str, method: str, route: str, status: int, *, count: int, seconds: float
    ) -> None:
        """Count checks that were answered in one turn of the event loop, and time one of sixteen.

        Timing them all would take a fifth of the time that a check takes.

        Args:
            count: how many there were with this verdict.
            seconds: from the first one's arrival to the last one's answer.
        """
        counted = self._checks.get((code, method, route, status))
        if counted is None:
            verdict = self._verdicts.labels(code) if code in _CODES else None
            counted = verdict, self._timed(method, route, status)
            if method in _METHODS:
                self._checks[code, method, route, status] = counted
        verdict, requests = counted
        if verdict is not None:
            verdict.inc(count)
        timed = self._checks_seen // _CHECKS_TO_A_TIMED_ONE
        self._checks_seen += count
        if self._checks_seen // _CHECKS_TO_A_TIMED_ONE > timed:
            requests.observe(seconds)

    def _timed(self, method: str, route: str, status: int) -> Histogram:
        # A client may call its method as it likes, and each label is kept for ever.
        return self._requests.labels(method if method in _METHODS else "other", route, str(status))

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
            "Whether verification is refused (1), since the database lacks an event or a timeline"
            " that this process has seen.",
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
            "How many positions a projection is behind the newest event.",
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
            "How many things the last attestation found wrong.",
            value=last.findings,
        )
        yield GaugeMetricFamily(
            "keyledger_attestation_timestamp_seconds",
            "When the last attestation ended, in seconds since 1970.",
            value=last.finished_at.timestamp(),
        )

    def _about_checkpoints(self) -> Iterator[Metric]:
        signer = self._ledger.signer
        yield GaugeMetricFamily(
            "keyledger_history_in_doubt",
            "Whether changes are refused (1), since the log is not the one that was signed.",
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
            "Entries under the last signed checkpoint.",
            value=size,
        )
        yield GaugeMetricFamily(
            "keyledger_checkpoint_timestamp_seconds",
            "When the last checkpoint was signed, in seconds since 1970.",
            value=signed_at.timestamp(),
        )
