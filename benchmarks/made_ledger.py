"""A ledger on disk with a generated history, for benchmarks."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import URL, insert

from benchmarks.made_history import MadeHistory
from domain.api_key import ApiKey
from domain.pepper import PEPPER_LENGTH, Pepper
from domain.serialization import EventMapper
from projections.sealing.reseal import write_secret
from projections.store.database import Database, open_database
from projections.store.schema import events, upgrade_schema
from projections.store.seals import Seals

_AT_ONCE = 10_000
SEALS = Seals(Pepper(bytes(range(PEPPER_LENGTH))))
"""Seals of all generated ledgers, which no other program opens."""


def make_ledger(folder: Path, history: MadeHistory, count: int) -> Database:
    """Store the next ``count`` events of a history in a new database, without building views."""
    return store(folder, islice(history.events(), count))


def store(folder: Path, made: Iterable[ApiKey.Event]) -> Database:
    """Store events in a new database file, without building views."""
    return store_at(f"sqlite:///{folder / 'ledger.sqlite3'}", made)


def store_at(url: str | URL, made: Iterable[ApiKey.Event]) -> Database:
    """Store events in a new database, without building views."""
    database = open_database(url).sealed_by(SEALS)
    upgrade_schema(database)
    with database.write() as connection:
        write_secret(connection, SEALS)
    rows = to_rows(made)
    while batch := list(islice(rows, _AT_ONCE)):
        with database.write() as connection:
            connection.execute(insert(events), batch)
    return database


def to_rows(made: Iterable[ApiKey.Event]) -> Iterator[dict[str, Any]]:
    """Yield events as rows of the event store, without positions."""
    mapper = EventMapper()
    for event in made:
        stored = mapper.to_stored_event(event)
        key = event.originator_id.bytes
        yield {
            "originator_id": key,
            "originator_version": stored.originator_version,
            "topic": stored.topic,
            "state": stored.state,
            "seal": SEALS.event(key, stored.originator_version, stored.topic, stored.state),
        }
