"""The integrity check: is everything in the ledger as it was when it was written?

It works on a live ledger: everything up to the end of the log at the beginning of the check is read
in short transactions, and replaying a view takes the append lock only for moments. Memory use does
not depend on the number of events.

The result is only as good as the checkpoints from outside the database. Without such a checkpoint,
a ledger cannot be distinguished from one that someone put in its place.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from time import perf_counter, sleep

from domain.errors import LedgerUnavailable, PoisonEvent, RebuildRunning
from projections.integrity.checkpoint_check import check_checkpoints
from projections.integrity.checkpoint_copies_check import collecting_sizes, compare_copies
from projections.integrity.entries_check import RESTORE, LogCheck, OnBatch, extent_of
from projections.integrity.findings import Finding, Findings
from projections.integrity.index_check import index_findings
from projections.integrity.key_history_check import check_key_histories
from projections.integrity.schema_check import changed_tables, schema_findings
from projections.integrity.seal_check import check_seals
from projections.integrity.stored_times_check import check_states, check_stored_times
from projections.rebuild.comparison import Difference
from projections.rebuild.rebuild import Progress, check, ignore_progress
from projections.store.database import Database
from projections.tlog.notes import VerifierKey
from projections.views import entries
from projections.views.registry import VIEWS
from projections.views.view import View

_RETRY_SECONDS = 0.05
_TREE_COLUMNS = frozenset({"leaf_index", "position", "hashes", "entry"})
"""Columns of entries that the check of the log has already compared."""


def no_pause() -> None:
    """Do not pause."""


@dataclass(frozen=True, slots=True)
class IntegrityReport:
    """The result of an integrity check; nothing is wrong if there are no findings.

    Args:
        position: position of the last event when the check began.
        events, entries, keys, checkpoints: how many of them were checked.
        root: root of the tree over the entries; ``None`` if an entry is missing.
        findings: the first `projections.integrity.findings.MAX_FINDINGS` of them.
        not_listed: number of further findings.
        seconds: duration, including pauses.
    """

    position: int
    events: int
    entries: int
    keys: int
    checkpoints: int
    root: bytes | None
    findings: tuple[Finding, ...]
    not_listed: int
    seconds: float

    @property
    def found(self) -> int:
        """Number of findings, listed or not."""
        return len(self.findings) + self.not_listed


def check_integrity(
    database: Database,
    *,
    notes: Iterable[str],
    keys: Iterable[VerifierKey] | None,
    now: datetime | None = None,
    progress: Progress = ignore_progress,
    pause: Callable[[], None] = no_pause,
    findings: Findings | None = None,
) -> IntegrityReport:
    """Check everything in a ledger while it continues to serve.

    Args:
        notes: signed checkpoints from outside the database; those inside are checked as well.
        keys: the ledger's public keys; ``None`` to skip checkpoints.
        now: the current time, which no stored time may exceed; ``None`` to check only the log, and
            not the schema or rows without events, as before a migration is complete.
        progress: called after each batch with the current step and how far it is.
        pause: called after each batch, outside transactions; may raise to abort the check.
        findings: receives each finding as soon as it is known.

    Raises:
        LedgerUnavailable: the database did not answer.
    """
    started = perf_counter()

    def reporting(what: str) -> OnBatch:
        def on_batch(done: int, last: int) -> None:
            progress(what, done, last)
            pause()

        return on_batch

    findings = Findings() if findings is None else findings
    schema = schema_findings(database) if now is not None else []
    for finding in schema:
        findings.add(finding)
    if now is not None:
        _check_other_tables(database, now, findings)
    with database.read() as connection:
        extent = extent_of(connection)
    log = LogCheck(database, findings)
    log.run(extent, reporting("log"))
    key_count = check_key_histories(database, extent.position, findings, reporting("key histories"))
    for finding in index_findings(database, reporting("indexes")):
        findings.add(finding)
    checkpoints = 0
    if keys is not None:
        keys, sizes = tuple(keys), dict[str, list[int]]()
        on_batch = reporting("checkpoints")
        checkpoints = check_checkpoints(
            database, collecting_sizes(notes, sizes), keys, findings, on_batch
        )
        for key in keys if now is not None else ():
            for finding in compare_copies(database, key.name, sizes.get(key.name, [])):
                findings.add(finding)
    check_seals(database, findings, reporting("seals"), changed=changed_tables(schema))
    # Events that cannot be read cannot be replayed into views.
    for view in VIEWS if log.can_be_replayed else ():
        _check_view(database, view, findings, reporting(view.name))
    return IntegrityReport(
        position=extent.position,
        events=log.events,
        entries=log.entries,
        keys=key_count,
        checkpoints=checkpoints,
        root=log.root,
        findings=tuple(findings.listed),
        not_listed=findings.not_listed,
        seconds=perf_counter() - started,
    )


def _check_other_tables(database: Database, now: datetime, findings: Findings) -> None:
    try:
        for finding in (*check_states(database), *check_stored_times(database, now)):
            findings.add(finding)
    except LedgerUnavailable:
        # A missing table cannot be read, and the schema check has reported it.
        if not findings.listed:
            raise


def _check_view(database: Database, view: View, findings: Findings, on_batch: OnBatch) -> None:
    def progress(_name: str, done: int, last: int) -> None:
        on_batch(done, last)

    while True:
        try:
            report = check(database, view, progress=progress)
        except RebuildRunning:
            # Another process is comparing this view; wait until it has finished.
            sleep(_RETRY_SECONDS)
            on_batch(0, 0)
            continue
        except PoisonEvent as error:
            if not findings.names_position(error.position):
                name = f"the event at position {error.position}"
                wrong = f"it cannot be replayed into {view.name}: {error.reason}"
                findings.add(Finding("event", name, wrong, RESTORE, position=error.position))
            return
        break
    for difference in report.differences:
        if view is not entries.VIEW or _is_outside_tree(difference):
            findings.add(_finding(view, difference))
    findings.not_listed += report.differing - len(report.differences)


def _is_outside_tree(difference: Difference) -> bool:
    return not difference.columns.keys() <= _TREE_COLUMNS


def _finding(view: View, difference: Difference) -> Finding:
    if difference.problem == "different":
        said = ", ".join(
            f"{name} is {live!r} and should be {right!r}"
            for name, (live, right) in difference.columns.items()
        )
    elif difference.problem == "missing":
        said = "it is missing"
    else:
        said = "no event explains it"
    return Finding(
        "projection",
        f"the row of {difference.key_id} in {view.name}",
        said,
        "find out who else can write to the database, and run: keyledger projections rebuild"
        f" {view.name}",
        key_id=difference.key_id,
    )
