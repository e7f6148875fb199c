"""Checks of the database."""

import os
from collections.abc import Iterator
from pathlib import Path

from api.command_line.checks import Check
from api.command_line.failures import first_cause
from api.command_line.file_checks import NO_LEDGER, OWNER, check_private_file, readable_size
from api.command_line.terminal import counted
from api.settings import Settings
from domain.errors import LedgerError
from projections.database import open_database
from projections.inspection import (
    Contents,
    FileInspection,
    contents_of,
    inspect_file,
    inspect_server,
    kind_of_file,
)
from projections.schema import HEAD
from projections.status import ProjectionStatus
from projections.views import VIEWS

_FULL = 2
_NAME = "database"
_FREE = "see that no other program holds the file; if it is damaged, restore a backup"
_REACHABLE = "see that the server runs and lets this account in; the URL is KEYLEDGER_DATABASE_URL"
_RESTORE = "stop the server, keep a copy of the file, and restore a backup"


def check_database(url: str, path: Path) -> Iterator[Check]:
    """Check the file, and what is in it if it is a ledger's that can be opened as it is."""
    try:
        kind = kind_of_file(path)
    except OSError as error:
        yield Check(_NAME, "fail", f"{path}: {error.strerror}", OWNER)
        return
    match kind:
        case "absent":
            yield Check(_NAME, "fail", f"{path} is not there", NO_LEDGER)
        case "empty":
            yield Check(_NAME, "fail", f"{path} is empty", NO_LEDGER)
        case "foreign":
            yield Check(_NAME, "fail", f"{path} is no SQLite database", "restore a backup")
        case "rollback journal":
            yield check_private_file(_NAME, path, readable_size(path.stat().st_size))
            yield Check(
                "journal",
                "fail",
                "journal_mode is not wal, so that the database was not looked into",
                "open it with any other command, such as keyledger keys list, which sets it",
            )
        case "wal":
            yield check_private_file(_NAME, path, readable_size(path.stat().st_size))
            yield from _check_inside(url, path)


def check_server(settings: Settings) -> Iterator[Check]:
    """Check the server of a PostgreSQL database, and what is in it."""
    try:
        database = open_database(settings.url, settings.connection_limits)
        try:
            server, contents = inspect_server(database), contents_of(database)
        finally:
            database.close()
    except LedgerError as error:
        yield Check(_NAME, "fail", first_cause(error) or str(error), _REACHABLE)
        return
    secured = "encrypted" if server.is_encrypted else "not encrypted"
    yield Check(_NAME, "ok", f"PostgreSQL {server.version}, {secured}, as {server.role}")
    if server.not_durable:
        lost = ", ".join(server.not_durable)
        yield Check("durability", "fail", f"{lost}: a crash may lose commits", "set it to on")
    else:
        yield Check("durability", "ok", "fsync, full_page_writes and synchronous_commit are on")
    if server.may_change_history:
        said = f"{server.role} may change and delete events and entries"
        yield Check("role", "warn", said, "let the server run as a role that may not: see docs")
    else:
        yield Check("role", "ok", f"{server.role} may not change or delete events and entries")
    yield from _check_contents(contents)


def _check_inside(url: str, path: Path) -> Iterator[Check]:
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        said = "this account cannot write to it, so that it was not looked into"
        yield Check("contents", "fail", said, OWNER)
        return
    try:
        # It demands the settings of each connection, and changes nothing in a file that has WAL.
        database = open_database(url)
        try:
            found = inspect_file(database)
            # In a damaged file there is nothing reliable to count.
            contents = None if found.problems else contents_of(database)
        finally:
            database.close()
    except LedgerError as error:
        yield Check("contents", "fail", first_cause(error) or str(error), _FREE)
        return
    yield _check_durability(found)
    yield _check_soundness(found)
    if contents is not None:
        yield from _check_contents(contents)


def _check_contents(found: Contents) -> Iterator[Check]:
    yield _check_revision(found)
    yield from (_check_projection(status) for status in found.projections)
    if found.projections:
        keys = max(status.rows for status in found.projections)
        contents = f"{counted(found.events, 'event')}, {counted(keys, 'key')}"
        yield Check("contents", "ok", contents)


def _check_durability(found: FileInspection) -> Check:
    said = f"journal_mode wal, synchronous {found.synchronous}"
    if found.synchronous == _FULL:
        return Check("durability", "ok", f"{said} (FULL)")
    return Check("durability", "fail", f"{said}, not FULL", "use another build of SQLite")


def _check_soundness(found: FileInspection) -> Check:
    if not found.problems:
        return Check("quick_check", "ok", "no damage in the file")
    return Check("quick_check", "fail", "; ".join(found.problems[:3]), _RESTORE)


def _check_revision(found: Contents) -> Check:
    name = "schema"
    if found.revision == HEAD:
        return Check(name, "ok", f"revision {HEAD}")
    if found.revision is None:
        return Check(name, "fail", "none of the ledger's tables", NO_LEDGER)
    return Check(
        name,
        "fail",
        f"revision {found.revision}; this version of the program has {HEAD}",
        "run the version that made it, or, if it is older, any other command, which upgrades it",
    )


def _check_projection(status: ProjectionStatus) -> Check:
    rebuild = f"keyledger projections rebuild {status.name}"
    version = next(view.version for view in VIEWS if view.name == status.name)
    found = f"version {status.view_version}, position {status.position:,}, lag {status.lag:,}"
    if status.view_version != version:
        remedy = "any other command builds it anew, as does a start of the server"
        return Check(status.name, "warn", f"{found}; the program has version {version}", remedy)
    if status.position != status.last_position:
        return Check(status.name, "fail", f"{found}; the last is {status.last_position:,}", rebuild)
    if status.rebuild_position is not None:
        found += f"; a rebuild is running or was interrupted at {status.rebuild_position:,}"
        return Check(status.name, "warn", found, f"wait for it, or go on with it: {rebuild}")
    return Check(status.name, "ok", found)
