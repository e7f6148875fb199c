"""Attesting the ledger that is open, and what came of it the last time."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from tempfile import NamedTemporaryFile
from time import perf_counter

import orjson
import structlog

from api.composition import OpenLedger
from domain.errors import LedgerUnavailable
from domain.times import from_text, to_text
from projections.attestation import Attestation, attest, go_on
from projections.checkpoint_file import notes_in
from projections.database import Database
from projections.rebuild import Progress, ignore_progress

_log = structlog.get_logger()
_NUMBERS = ("position", "events", "entries", "keys", "checkpoints", "findings")


@dataclass(frozen=True, slots=True)
class LastFinding:
    """What is wrong with what, and what to do next."""

    name: str
    wrong: str
    remedy: str


@dataclass(frozen=True, slots=True)
class LastAttestation:
    """What the last attestation found, whichever process made it.

    Args:
        finished_at: when it ended.
        position: of the last event that it looked at.
        events, entries, keys, checkpoints: how many of them it looked at.
        findings: how many there were.
        listed: the first of them.
    """

    finished_at: datetime
    position: int
    events: int
    entries: int
    keys: int
    checkpoints: int
    findings: int
    listed: tuple[LastFinding, ...]


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
    last = LastAttestation(
        ledger.clock(),
        position=attestation.position,
        events=attestation.events,
        entries=attestation.entries,
        keys=attestation.keys,
        checkpoints=attestation.checkpoints,
        findings=attestation.found,
        listed=tuple(
            LastFinding(each.name, each.wrong, each.remedy) for each in attestation.findings
        ),
    )
    _keep(_path(ledger.database), last)
    return attestation


def last_attestation(database: Database) -> LastAttestation | None:
    """Return what came of the last attestation; ``None`` if there was none, or it is illegible."""
    try:
        kept = orjson.loads(_path(database).read_bytes())
        return LastAttestation(
            from_text(kept["finished_at"]),
            **{name: int(kept[name]) for name in _NUMBERS},
            listed=tuple(LastFinding(**each) for each in kept["listed"]),
        )
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, LookupError):
        # The next one writes it anew, and comes at once since there seems to have been none.
        return None


def log_attestation(attestation: Attestation) -> None:
    """Tell the log what came of an attestation."""
    _log.info(
        "ledger_attested",
        position=attestation.position,
        checkpoints=attestation.checkpoints,
        findings=attestation.found,
        seconds=round(attestation.seconds, 3),
    )
    for finding in attestation.findings:
        _log.error(
            "attestation_finding",
            name=finding.name,
            wrong=finding.wrong,
            remedy=finding.remedy,
        )


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
    content = orjson.dumps(asdict(last) | {"finished_at": to_text(last.finished_at)})
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
