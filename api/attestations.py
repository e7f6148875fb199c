"""Attesting the ledger that is open, and what came of it the last time."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import perf_counter

import orjson

from api.composition import OpenLedger
from domain.errors import LedgerUnavailable
from domain.times import from_text, to_text
from projections.attestation import Attestation, attest, go_on
from projections.checkpoint_file import notes_in
from projections.database import Database
from projections.rebuild import Progress, ignore_progress


@dataclass(frozen=True, slots=True)
class LastAttestation:
    """What the last attestation found, whichever process made it.

    Args:
        finished_at: when it ended.
        position: of the last event that it looked at.
        findings: how many there were.
    """

    finished_at: datetime
    position: int
    findings: int


def attest_ledger(
    ledger: OpenLedger,
    *,
    progress: Progress = ignore_progress,
    pause: Callable[[], None] = go_on,
) -> Attestation:
    """Attest a ledger by its own key and the checkpoints outside its database; keep the result.

    Raises:
        LedgerUnavailable: the database or the file of the checkpoints cannot be read.
    """
    attestation = attest(
        ledger.database,
        notes=_notes(ledger.signer.path),
        keys=[ledger.signer.key.verifier_key],
        progress=progress,
        pause=pause,
    )
    last = LastAttestation(ledger.clock(), attestation.position, attestation.found)
    _keep(_path(ledger.database), last)
    return attestation


def last_attestation(database: Database) -> LastAttestation | None:
    """Return what came of the last attestation; ``None`` if there was none, or it is illegible."""
    try:
        kept = orjson.loads(_path(database).read_bytes())
        return LastAttestation(
            from_text(kept["finished_at"]), int(kept["position"]), int(kept["findings"])
        )
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, LookupError):
        # The next one writes it anew, and comes at once since there seems to have been none.
        return None


class Stopping(Exception):
    """The work is to end, for the server does."""


class Pace:
    """A pause that leaves most of a core to others."""

    def __init__(self, share: float, stopped: threading.Event) -> None:
        """Work for ``share`` of the time, until ``stopped`` is set."""
        self._idle = 1 / share - 1
        self._stopped = stopped
        self._since = perf_counter()

    def __call__(self) -> None:
        """Wait as long as what was done since the last call calls for.

        Raises:
            Stopping: the work is to end.
        """
        worked = perf_counter() - self._since
        if self._stopped.wait(worked * self._idle):
            raise Stopping
        self._since = perf_counter()


def _path(database: Database) -> Path:
    return database.path.with_name(f"{database.path.name}.attestation.json")


def _keep(path: Path, last: LastAttestation) -> None:
    content = orjson.dumps(
        {
            "finished_at": to_text(last.finished_at),
            "position": last.position,
            "findings": last.findings,
        }
    )
    try:
        # It appears whole: others read it at any time. The file made here is its owner's alone.
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(content)
        os.replace(file.name, path)  # noqa: PTH105 - a name, not a Path
    except OSError as error:
        raise LedgerUnavailable(f"cannot keep what was found: {error}") from error


def _notes(path: Path) -> Iterator[str]:
    try:
        yield from notes_in(path)
    except ValueError as error:
        message = f"{path} is no file of checkpoints: {error}; restore it"
        raise LedgerUnavailable(message) from error
    except OSError as error:
        raise LedgerUnavailable(f"cannot read the checkpoints: {error}") from error
