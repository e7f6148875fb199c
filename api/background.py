"""The server's own regular work: recording that keys have expired."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from api.composition import OpenLedger
from domain.errors import LedgerError
from projections.expirer import expire_due_keys

_log = structlog.get_logger()


@contextmanager
def expiring(ledger: OpenLedger) -> Iterator[None]:
    """Look for keys that are due, now and every few seconds, until the block ends.

    A look that fails is logged, and the next one does its work too: the clock has decided already
    whom to refuse, and the events are found due for as long as they are missing.
    """
    stopped = threading.Event()
    thread = threading.Thread(target=_expire_until, args=(ledger, stopped), name="expirer")
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


def _expire_until(ledger: OpenLedger, stopped: threading.Event) -> None:
    while not stopped.is_set():
        try:
            expired = expire_due_keys(ledger.database, ledger.ledger, now=ledger.clock())
        except LedgerError as error:
            _log.warning("expirer_failed", code=error.code, detail=str(error), exc_info=error)
        except Exception:  # noqa: BLE001 - and the next look may do better
            # A thread that dies of a bug would do so in silence; this one complains each time.
            _log.exception("expirer_failed")
        else:
            if expired:
                _log.info("keys_expired", count=expired, actor="system:expirer")
        stopped.wait(ledger.settings.expirer_seconds)
