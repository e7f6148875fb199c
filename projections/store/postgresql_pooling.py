"""Detect a connection pooler that does not keep a session for each connection.

Advisory locks, timeouts and prepared statements belong to a server session. PgBouncer with
``pool_mode = transaction`` runs each transaction in any free session, and with ``statement`` it
allows no transactions at all (PgBouncer documentation, "Features"). Locks would then be lost or
never released, without an error. So such a pooler is rejected when a database is opened.
"""

from collections.abc import Callable
from contextlib import closing

import psycopg

from domain.errors import LedgerUnavailable

_ATTEMPTS = 5
_PROCESS = b"SELECT pg_backend_pid()"
_STATEMENT_MODE = "transaction blocks not allowed"


class TransactionPooling(LedgerUnavailable):
    """The connection pooler in front of the database keeps no session for each connection."""


def is_pooled(connection: psycopg.Connection) -> bool:
    """Return whether there is a pooler between this program and the server.

    A server sends the process id of the session to each new connection, for cancelling. A pooler
    sends an id of its own, because it does not know yet which session will serve the connection.
    """
    return _process_of(connection) != connection.info.backend_pid


def check_sessions(connect: Callable[[], psycopg.Connection]) -> None:
    """Reject a pooler that does not keep a session for each connection.

    Two connections run transactions in turn. With sessions of their own, each always has the same
    server process, different from the other's. A pooler in transaction mode gives the second
    connection the process that the first has just released, or gives the first a new one each time.

    Args:
        connect: opens a connection in autocommit mode.

    Raises:
        TransactionPooling: the pooler does not keep sessions.
        psycopg.Error: the server cannot be reached.
    """
    try:
        with closing(connect()) as one, closing(connect()) as other:
            own = _process_of(one)
            for _ in range(_ATTEMPTS):
                with other.transaction():
                    shared = _process_of(other) == own
                if shared or _process_of(one) != own:
                    raise _refusal("transaction")
    except psycopg.Error as error:
        if _STATEMENT_MODE in str(error):
            raise _refusal("statement") from error
        raise


def _process_of(connection: psycopg.Connection) -> int:
    row = connection.execute(_PROCESS).fetchone()
    assert row is not None  # noqa: S101 - it always has one
    return int(row[0])


def _refusal(mode: str) -> TransactionPooling:
    return TransactionPooling(
        f"the connection pooler in front of the database pools by {mode}, but Keyledger needs a"
        " session for each connection: set pool_mode = session for this database, or connect"
        " directly to the server"
    )
