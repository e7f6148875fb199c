"""Check the history of each key: which event may follow which.

The rules are those of the offline verifier. Events are read key by key, so at most one key's
history is in memory.
"""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from sqlalchemy import Row, literal, select, tuple_, type_coerce

from domain.audit_log import Forked, Resealed
from domain.key_ids import to_key_id
from domain.public_event import entry_of
from projections.integrity.entries_check import RESTORE, OnBatch
from projections.integrity.findings import Finding, Findings
from projections.store.column_types import any_aggregate_id
from projections.store.database import Database
from projections.store.events import decode_canonical
from projections.store.invalid_utf8 import tolerate_invalid_utf8
from projections.store.schema import events
from projections.tlog.offline_verifier import BROKEN_RULE, Histories, Report, match_entry

_AT_ONCE = 2_000
_OF_THE_LOG = ([Forked.TOPIC], [Resealed.TOPIC])
_place = tuple_(type_coerce(events.c.originator_id, any_aggregate_id), events.c.originator_version)


def check_key_histories(
    database: Database, until: int, findings: Findings, on_batch: OnBatch
) -> int:
    """Check the events of every key up to a position; return the number of keys.

    The history of a key ends at an event that cannot be read; the check of the log reports it.
    """
    keys = 0
    for _, history in groupby(
        _by_key(database, until, on_batch), key=lambda row: row.originator_id
    ):
        rows = list(history)
        if [row.topic for row in rows] not in _OF_THE_LOG:
            keys += 1
            _check_history(rows, findings)
    return keys


def _check_history(history: list[Row[Any]], findings: Findings) -> None:
    report = Report("")
    histories = Histories(report)
    key_id = None
    before = None
    for row in history:
        try:
            event = decode_canonical(row)
            key_id = to_key_id(event.originator_id)
            histories.take(row.id, *match_entry(entry_of(event)))
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            if key_id is not None and report.findings == []:
                wrong = (
                    f"version {row.originator_version} of its history cannot be checked: {error}"
                )
                findings.add(_finding(key_id, row.id, wrong, RESTORE))
            break
        if before is not None and row.id < before:
            wrong = f"version {event.originator_version} is recorded before the preceding version"
            findings.add(_finding(key_id, row.id, f"{wrong} it", RESTORE))
        before = row.id
    for each in report.findings:
        assert each.leaf_index is not None  # noqa: S101 - it is the position given to `take`
        findings.add(_finding(key_id or "a key", each.leaf_index, each.wrong, BROKEN_RULE))


def _finding(key_id: str, position: int, wrong: str, remedy: str) -> Finding:
    name = f"{key_id}, at position {position}"
    return Finding("key", name, wrong, remedy, position=position, key_id=key_id)


def _by_key(database: Database, until: int, on_batch: OnBatch) -> Iterator[Row[Any]]:
    """Read events in the order of their keys and versions, one page per transaction."""
    query = (
        select(events)
        .where(events.c.id <= until)
        .order_by(events.c.originator_id, events.c.originator_version)
        .limit(_AT_ONCE)
    )
    page = query
    done = 0
    while True:
        with database.read() as connection, tolerate_invalid_utf8(connection):
            rows = connection.execute(page).all()
        yield from rows
        if not rows:
            return
        done += len(rows)
        on_batch(min(done, until), until)
        last = rows[-1]
        here = literal(last.originator_id, any_aggregate_id), last.originator_version
        page = query.where(_place > tuple_(*here))
