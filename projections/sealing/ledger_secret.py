"""Check which secret a ledger is sealed with; seal a ledger of an older version.

The database has the id of the secret in one sealed row. If the row is missing, the ledger is empty,
or an older version of the program created it. It is then sealed at once if a signed checkpoint
proves every event. Someone who can write to the database could make a ledger look old, so events
that no checkpoint proves are sealed only when a person runs the command.
"""

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import Connection, inspect, select

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
    """The ledger has events without seals, and no checkpoint proves them."""

    code = "LEDGER_NOT_SEALED"


def check_secret(connection: Connection, seals: Seals) -> bool:
    """Check the secret that a ledger is sealed with; return whether the database names one.

    Raises:
        OtherSecret: it is another secret, or the row was changed.
    """
    rows = connection.execute(select(ledger_secret)).all()
    if not rows:
        return False
    if len(rows) == 1 and rows[0].secret_id == seals.secret_id:
        if seals.is_ledger_secret(rows[0].seal):
            return True
        message = (
            "the row in ledger_secret was changed: find out who else can write to the database,"
            f" check the ledger, and run: {COMMAND}"
        )
        raise OtherSecret(message)
    named = " and ".join(str(row.secret_id)[:16] for row in rows)
    message = (
        "the pepper of this machine is not that of the ledger: the ledger is sealed with the secret"
        f" {named}, and the pepper in the data folder has {seals.secret_id}. Copy the file `pepper`"
        f" from another machine of this ledger, or from a backup; if it is lost, run: {COMMAND}"
    )
    raise OtherSecret(message)


def check_pepper_exists(database: Database, path: Path) -> None:
    """Refuse to create a pepper for a ledger that is sealed with another one.

    Args:
        path: file of the pepper on this machine.

    Raises:
        OtherSecret: the file is missing, and the ledger is sealed.
        LedgerUnavailable: the database did not answer.
    """
    if path.exists():
        return
    with database.read() as connection:
        if not inspect(connection).has_table(ledger_secret.name):
            return
        secret = connection.scalar(select(ledger_secret.c.secret_id).limit(1))
    # Read again: another process may have created both just now, the pepper before the secret.
    if secret is not None and not path.exists():
        message = (
            f"the pepper is missing: {path} does not exist, and the ledger is sealed with the"
            f" secret {str(secret)[:16]}. Copy the file from another machine of this ledger, or"
            f" from a backup; if it is lost, run: {COMMAND}"
        )
        raise OtherSecret(message)


def accept_secret(
    database: Database,
    views: Sequence[View],
    signer: Signer,
    *,
    progress: Progress = ignore_progress,
) -> None:
    """Check that a ledger is sealed with the database's secret; seal it if that is proven.

    Args:
        signer: finds the last signed checkpoint outside the database.

    Raises:
        OtherSecret: the ledger is sealed with another secret.
        LedgerNotSealed: it is not sealed, and no checkpoint proves all of its events.
        NotOwner: only the owner of the tables may seal it.
        LedgerUnavailable: the database did not answer.
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
        # An interrupted sealing seals nothing, so this is not one.
        message = (
            "the events are sealed, but the row of ledger_secret that names their secret is"
            " missing: find out who else can write to the database, check the ledger, and run:"
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
        "the events of this ledger have no seals, and nothing proves that they are unchanged:"
        f" {why}. Restore the checkpoint file; if no checkpoint covers all events, run: {COMMAND}"
    )
    raise LedgerNotSealed(message)


def _begin(database: Database) -> None:
    """Store the id of the secret of an empty ledger, unless another process has done so."""
    with database.append() as connection:
        if not check_secret(connection, database.seals) and not last_position(connection):
            write_secret(connection, database.seals)
