"""Checks of the database."""

import os
from collections.abc import Iterator
from pathlib import Path

from api.causes import first_cause
from api.command_line.checks import Check
from api.command_line.file_checks import OWNER, check_private_file, readable_size
from api.command_line.local_ledger import NO_LEDGER, NO_LEDGER_ON_SERVER
from api.command_line.signing_checks import check_history
from api.command_line.terminal import counted
from api.settings import Settings
from domain.errors import LedgerError
from domain.pepper import PEPPER_LENGTH, Pepper
from projections.integrity.inspection import (
    Contents,
    FileInspection,
    ServerInspection,
    contents_of,
    inspect_file,
    inspect_server,
    kind_of_file,
)
from projections.rebuild.status import ProjectionStatus
from projections.sealing.ledger_secret import COMMAND, OtherSecret, check_secret
from projections.store.database import Database, open_database
from projections.store.postgresql_pooling import TransactionPooling
from projections.store.postgresql_tables import is_not_granted
from projections.store.schema import HEAD
from projections.store.seals import NoSeals, Seals
from projections.views import key_list
from projections.views.registry import VIEWS

_FULL = 2
_NAME = "database"
_FREE = "check that no other program locks the file; if it is damaged, restore a backup"
_REACHABLE = (
    "check that the server runs and accepts this account, and check the URL in"
    " KEYLEDGER_DATABASE_URL"
)
_GRANTED = "let the database administrator run docs/postgresql-roles.sql again"
_SESSIONS = "set pool_mode = session for this database, or connect to the server itself"
_RESTORE = "stop the server, keep a copy of the file, and restore a backup"


def check_database(settings: Settings, path: Path) -> Iterator[Check]:
    """Check the file, and what is in it if it is a ledger's that can be opened as it is."""
    try:
        kind = kind_of_file(path)
    except OSError as error:
        yield Check(_NAME, "fail", f"{path}: {error.strerror}", OWNER)
        return
    match kind:
        case "absent":
            yield Check(_NAME, "fail", f"{path} does not exist", NO_LEDGER)
        case "empty":
            yield Check(_NAME, "fail", f"{path} is empty", NO_LEDGER)
        case "foreign":
            yield Check(_NAME, "fail", f"{path} is not an SQLite database", "restore a backup")
        case "rollback journal":
            yield check_private_file(_NAME, path, readable_size(path.stat().st_size))
            yield Check(
                "journal",
                "fail",
                "journal_mode is not wal, so the content was not checked",
                "run any other command, such as keyledger keys list, which sets it",
            )
        case "wal":
            yield check_private_file(_NAME, path, readable_size(path.stat().st_size))
            yield from _check_inside(settings, path)


def check_server(settings: Settings) -> Iterator[Check]:
    """Check the server of a PostgreSQL database, and what is in it."""
    try:
        database = open_database(settings.url, settings.connection_limits)
        try:
            server = inspect_server(database)
            contents = _contents_of_server(database, settings)
        finally:
            database.close()
    except LedgerError as error:
        remedy = _GRANTED if is_not_granted(error) else _REACHABLE
        found = first_cause(error) or str(error)
        if isinstance(error, TransactionPooling):
            found, remedy = str(error), _SESSIONS
        yield Check(_NAME, "fail", found, remedy)
        return
    secured = "encrypted" if server.is_encrypted else "not encrypted"
    yield Check(_NAME, "ok", f"PostgreSQL {server.version}, {secured}, as {server.role}")
    if server.not_durable:
        lost = ", ".join(server.not_durable)
        yield Check("durability", "fail", f"{lost}: a crash may lose commits", "set it to on")
    else:
        yield Check("durability", "ok", "fsync, full_page_writes and synchronous_commit are on")
    if server.has_ledger:
        yield _check_role(server)
    yield from contents


def _contents_of_server(database: Database, settings: Settings) -> list[Check]:
    """Check the tables; a table that the role may not read must not hide the other checks."""
    found: list[Check] = []
    try:
        found.extend(_check_contents(database, settings, NO_LEDGER_ON_SERVER))
    except LedgerError as error:
        if not is_not_granted(error):
            raise
        found.append(Check("contents", "fail", first_cause(error) or str(error), _GRANTED))
    return found


def _check_inside(settings: Settings, path: Path) -> Iterator[Check]:
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        said = "this account cannot write to it, so the content was not checked"
        yield Check("contents", "fail", said, OWNER)
        return
    try:
        # It demands the settings of each connection, and changes nothing in a file that has WAL.
        database = open_database(settings.url)
        try:
            found = inspect_file(database)
            # In a damaged file there is nothing reliable to count.
            contents = [] if found.problems else [*_check_contents(database, settings, NO_LEDGER)]
        finally:
            database.close()
    except LedgerError as error:
        yield Check("contents", "fail", first_cause(error) or str(error), _FREE)
        return
    yield _check_durability(found)
    yield _check_soundness(found)
    yield from contents


def _check_role(server: ServerInspection) -> Check:
    name = "role"
    if server.not_granted:
        lacks = f"{server.role} lacks privileges of a server: {'; '.join(server.not_granted)}"
        return Check(name, "fail", lacks, _GRANTED)
    if server.may_change_history:
        said = f"{server.role} can change and delete events and entries"
        remedy = "run the server as a role that cannot: docs/postgresql-roles.sql"
        return Check(name, "warn", said, remedy)
    return Check(name, "ok", f"{server.role} cannot change or delete events and entries")


def _check_contents(database: Database, settings: Settings, no_ledger: str) -> Iterator[Check]:
    found = contents_of(database)
    yield _check_revision(found, no_ledger)
    for finding in found.schema:
        yield Check("schema", "fail", f"{finding.name}: {finding.wrong}", finding.remedy)
    yield from (_check_projection(status) for status in found.projections)
    if found.projections:
        keys = next(each.rows for each in found.projections if each.name == key_list.VIEW.name)
        contents = f"{counted(found.events, 'event')}, {counted(keys, 'key')}"
        yield Check("contents", "ok", contents)
        yield from _check_secret(_sealed(database, settings.pepper_path))
        sealed = _sealed(database, settings.pepper_path)
        yield from check_history(sealed, settings.signing_key_path, settings.checkpoint_path)


def _sealed(database: Database, pepper_path: Path) -> Database:
    """Return the database with the seals of the pepper, if that can be read."""
    try:
        return database.sealed_by(Seals(Pepper(pepper_path.read_bytes())))
    except (OSError, ValueError):
        # The check of the pepper's file says why.
        return database.sealed_by(NoSeals(Pepper(bytes(PEPPER_LENGTH))))


def _check_secret(database: Database) -> Iterator[Check]:
    """Check that the ledger is sealed with the pepper of this machine."""
    name = "seals"
    seals = database.given_seals
    if seals is None:
        return
    if isinstance(seals, NoSeals):
        remedy = f"restore the file `pepper`; if it is lost, run: {COMMAND}"
        yield Check(name, "fail", "the seals cannot be checked without the pepper", remedy)
        return
    try:
        with database.read() as connection:
            found = check_secret(connection, seals)
    except OtherSecret as error:
        yield Check(name, "fail", "the ledger is sealed with another secret", str(error))
        return
    if not found:
        said = "the row in ledger_secret is missing"
        yield Check(name, "fail", said, f"check the ledger, then run: {COMMAND}")
        return
    yield Check(name, "ok", f"sealed with the secret {seals.secret_id}")


def _check_durability(found: FileInspection) -> Check:
    said = f"journal_mode wal, synchronous {found.synchronous}"
    if found.synchronous == _FULL:
        return Check("durability", "ok", f"{said} (FULL)")
    return Check("durability", "fail", f"{said}, not FULL", "use another build of SQLite")


def _check_soundness(found: FileInspection) -> Check:
    if not found.problems:
        return Check("integrity_check", "ok", "no damage in the file")
    return Check("integrity_check", "fail", "; ".join(found.problems[:3]), _RESTORE)


def _check_revision(found: Contents, no_ledger: str) -> Check:
    name = "schema"
    if found.revision == HEAD:
        return Check(name, "ok", f"revision {HEAD}")
    if found.revision is None:
        return Check(name, "fail", "the database has no tables of a ledger", no_ledger)
    return Check(
        name,
        "fail",
        f"revision {found.revision}; this version of the program has {HEAD}",
        "if the database is newer, run the newer version; if it is older, run any other command,"
        " which upgrades it",
    )


def _check_projection(status: ProjectionStatus) -> Check:
    rebuild = f"keyledger projections rebuild {status.name}"
    version = next(view.version for view in VIEWS if view.name == status.name)
    found = f"version {status.view_version}, position {status.position:,}, lag {status.lag:,}"
    if status.view_version > version:
        remedy = "run the newer version of Keyledger, or: keyledger projections downgrade"
        found = f"{found}; this program has version {version} and refuses to start"
        return Check(status.name, "fail", found, remedy)
    if status.view_version != version:
        remedy = "run any other command or start the server: both rebuild it"
        return Check(status.name, "warn", f"{found}; this program has version {version}", remedy)
    if status.position != status.last_position:
        return Check(
            status.name, "fail", f"{found}; the last event is at {status.last_position:,}", rebuild
        )
    if status.rebuild_position is not None:
        found += f"; a rebuild is running or was interrupted at {status.rebuild_position:,}"
        return Check(status.name, "warn", found, f"wait until it ends, or resume it: {rebuild}")
    return Check(status.name, "ok", found)
