"""Check stored times and states that are not in any event and that something may depend on.

One rule holds for all of them: a time in the future is a finding, and never disables anything. If a
time decides when a task is due next, a time in the future is ignored.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, String, Table, func, select

from domain.times import from_text, to_text
from projections.integrity.findings import Finding
from projections.rebuild.view_states import ViewState
from projections.store.database import Database
from projections.store.events import last_position
from projections.store.invalid_utf8 import tolerate_invalid_utf8
from projections.store.schema import (
    checkpoints,
    last_attestation,
    last_uses,
    metadata,
    projection_states,
)
from projections.views.registry import VIEWS

SKEW = timedelta(minutes=5)
"""Maximum difference between the clocks of two machines."""

_TIME_LENGTH = 27
_SPELLING = "____-__-__T__:__:__.______Z"
_SHOWN = 10
"""Maximum number of findings about one column; a column may have one for each key."""

_MAY_BE_LATER = {("console_sessions", "expires_at")}
"""Times that are normally in the future."""

_PLANTED = "find out who else can write to the database, and "
_REMEDIES = {
    last_uses.name: "delete the row: it says only when a key was used",
    checkpoints.name: "compare the row with the note in the checkpoint file",
    last_attestation.name: "run: keyledger audit verify, which writes the row again",
    projection_states.name: "run: keyledger projections rebuild --all",
}
_OF_SHADOWS = ("rebuild", "check", "previous")


def is_in_the_future(at: datetime, now: datetime) -> bool:
    """Return whether a stored time is later than any clock of the ledger may be."""
    return at > now + SKEW


def check_stored_times(database: Database, now: datetime) -> list[Finding]:
    """Return a finding for each time in the durable tables that is malformed or in the future.

    Raises:
        LedgerUnavailable: the database did not answer.
    """
    findings: list[Finding] = []
    for table in metadata.sorted_tables:
        for column in table.c:
            is_time = isinstance(column.type, String) and column.type.length == _TIME_LENGTH
            if is_time and (table.name, column.name) not in _MAY_BE_LATER:
                with database.read() as connection, tolerate_invalid_utf8(connection):
                    findings += _times(connection, table, column.name, now)
    return findings


def check_states(database: Database) -> list[Finding]:
    """Return a finding for each projection state that cannot be true.

    Raises:
        LedgerUnavailable: the database did not answer.
    """
    with database.read() as connection, tolerate_invalid_utf8(connection):
        last = last_position(connection)
        rows = connection.execute(select(projection_states)).all()
        several = connection.scalar(select(func.count()).select_from(last_attestation)) or 0
    states = {str(row.table_name): ViewState(*row[1:]) for row in rows}
    findings = [
        _finding(projection_states, f"row {name!r}", wrong)
        for name, state in states.items()
        for wrong in _wrong_state(name, state, last)
    ]
    if several > 1:
        findings.append(
            _finding(last_attestation, "table", f"it has {several} rows instead of one")
        )
    return findings


def _times(connection: Connection, table: Table, name: str, now: datetime) -> Iterator[Finding]:
    column = table.c[name]
    limit = to_text(now + SKEW)
    # Malformed text may sort before, after or between valid times, so the pattern is compared too.
    odd = (
        select(table)
        .where(column.is_not(None), (column > limit) | column.not_like(_SPELLING))
        .limit(_SHOWN)
    )
    for row in connection.execute(odd):
        said = str(row._mapping[name])[:_TIME_LENGTH]  # noqa: SLF001 - SQLAlchemy's own name
        try:
            wrong = (
                f"{said} is in the future" if from_text(said) > now else f"{said!r} is not a time"
            )
        except ValueError:
            wrong = f"{said!r} is not a time"
        yield _finding(table, f"{name} of {_key_of(table, row)}", wrong)


def _key_of(table: Table, row: Row[Any]) -> str:
    values = [row._mapping[column.name] for column in table.primary_key]  # noqa: SLF001 - as above
    shown = [each.hex() if isinstance(each, bytes) else str(each) for each in values]
    return ", ".join(each[:64] for each in shown)


def _wrong_state(name: str, state: ViewState, last: int) -> Iterator[str]:
    # SQLite stores values of any type.
    position: object = state.position
    generation: object = state.generation
    if name in {view.name for view in VIEWS}:
        if state.position != last:
            yield f"its position is {state.position!r}, but the last event is at {last}"
        if state.filled_to is not None:
            yield f"it is only filled to {state.filled_to!r}"
    elif not any(name.startswith(f"{view.name}_{each}") for view in VIEWS for each in _OF_SHADOWS):
        yield "no projection has a table of this name"
    elif not isinstance(position, int) or position > last:
        yield f"its position is {state.position!r}, but the last event is at {last}"
    if not isinstance(generation, int) or generation < 1:
        yield f"its generation is {generation!r}"


def _finding(table: Table, where: str, wrong: str) -> Finding:
    remedy = _REMEDIES.get(table.name, "delete the row: everybody signs in again")
    return Finding("row", f"{where} in {table.name}", wrong, f"{_PLANTED}{remedy}")
