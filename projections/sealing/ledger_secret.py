"""Which secret a ledger is sealed with, and what a machine with another one is told.

The database has the id of the secret in one row, with a seal. Where the row is missing, the ledger
is empty, or was made by an older version of the program. Then it is sealed by itself, if a signed
checkpoint proves every event. Whoever can write to the database could make it look old: what no
checkpoint proves is sealed only when a person says so.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, select

from domain.errors import HistoryInDoubt, LedgerError
from projections.audit_log.signer import Signer
from projections.rebuild.rebuild import Progress, ignore_progress
from projections.sealing.reseal import Proven, seal_all, write_secret
from projections.store.database import Database, check_owner
from projections.store.events import count_events, last_position
from projections.store.schema import events, ledger_secret
from projections.store.seals import Seals
from projections.views.view import View

COMMAND = "keyledger audit seal --reason WHY"
_START = "keyledger projections status"


class OtherSecret(LedgerError):
    """The pepper of this machine is not the one that the ledger is sealed with."""

    code = "OTHER_SECRET"


class LedgerNotSealed(LedgerError):
    """The ledger has events that are not sealed, and nothing proves that they may be."""

    code = "LEDGER_NOT_SEALED"


def check_secret(connection: Connection, seals: Seals) -> bool:
    """Check that a ledger is sealed with a secret; return whether the database says so at all.

    Raises:
        OtherSecret: it is sealed with another, or the row that says so was changed.
    """
    rows = connection.execute(select(ledger_secret)).all()
    if not rows:
        return False
    if len(rows) == 1 and rows[0].secret_id == seals.secret_id:
        if seals.is_ledger_secret(rows[0].seal):
            return True
        message = (
            "the row in ledger_secret is not as the ledger wrote it: find out who can write to the"
            f" database, check the ledger, and run: {COMMAND}"
        )
        raise OtherSecret(message)
    named = " and ".join(str(row.secret_id)[:16] for row in rows)
    message = (
        f"this machine's pepper is not the ledger's: the ledger is sealed with the secret {named},"
        f" and the pepper in the data folder is {seals.secret_id} (made by this program if the file"
        " was missing). Copy the file `pepper` from a machine that has the ledger's, or from a"
        f" backup; if it is lost for good, run: {COMMAND}"
    )
    raise OtherSecret(message)


def accept_secret(
    database: Database,
    views: Sequence[View],
    signer: Signer,
    *,
    progress: Progress = ignore_progress,
) -> None:
    """Check that a ledger is sealed with the secret of its seals; seal it if that is proven.

    Args:
        signer: knows the last signed checkpoint outside the database.

    Raises:
        OtherSecret: it is sealed with another one.
        LedgerNotSealed: it is not sealed, and no checkpoint proves all of its events.
        NotOwner: only the owner of the tables may seal it.
        LedgerUnavailable: the database cannot be asked.
    """
    seals = database.seals
    with database.read() as connection:
        if check_secret(connection, seals):
            return
        check_owner(connection, _START)
        count = count_events(connection)
        newest_is_sealed = connection.scalar(
            select(events.c.seal.is_not(None)).order_by(events.c.id.desc()).limit(1)
        )
    if not count:
        _begin(database)
        return
    if newest_is_sealed:
        # A sealing that was interrupted has sealed nothing.
        message = (
            "the events are sealed, and the row that says with which secret is missing from"
            " ledger_secret: find out who can write to the database, check the ledger, and run:"
            f" {COMMAND}"
        )
        raise LedgerNotSealed(message)
    try:
        checkpoint = signer.checkpoint_over(count)
        if checkpoint is not None:
            seal_all(database, views, seals, Proven(count, checkpoint.root), progress=progress)
            return
        why = f"no signed checkpoint in {signer.path} covers all {count} events"
    except HistoryInDoubt as error:
        why = str(error)
    message = (
        f"the events of this ledger have no seals, and nothing proves that they are as they were"
        f" written: {why}. Put the checkpoint file in its place; if there is none that covers them"
        f" all, run: {COMMAND}"
    )
    raise LedgerNotSealed(message)


def _begin(database: Database) -> None:
    """Write the secret of an empty ledger down, unless another process has done it."""
    with database.append() as connection:
        if not check_secret(connection, database.seals) and not last_position(connection):
            write_secret(connection, database.seals)
