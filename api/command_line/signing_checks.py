"""Checks of the signing key and of the checkpoints outside the database."""

import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from api.command_line.checks import Check
from api.command_line.file_checks import OWNER, check_private_file
from api.composition import utc_now
from domain.errors import HistoryInDoubt
from projections.audit_log.checkpoint_file import last_note_in
from projections.audit_log.signer import Signer
from projections.store.database import Database
from projections.tlog.checkpoint import open_checkpoint
from projections.tlog.notes import SigningKey

_KEY = "signing key"
_CHECKPOINTS = "checkpoint file"
_FORK = "if it is lost, start a new log with a new key: keyledger audit fork --reason WHY"
_NEW = "if nothing was signed yet, any other command creates it"
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_signing(key_path: Path, checkpoint_path: Path) -> Iterator[Check]:
    """Check the signing key, whose private half is never shown, and the last checkpoint by it."""
    key: SigningKey | None = None
    try:
        # Whatever is in the file, no error shows a byte of it.
        key = SigningKey.from_text(key_path.read_text("latin-1").strip())
    except FileNotFoundError:
        found = f"{key_path} does not exist"
        yield Check(_KEY, "fail", found, f"{_NEW}; else restore it; {_FORK}")
    except OSError as error:
        yield Check(_KEY, "fail", f"{key_path}: {error.strerror}", OWNER)
    except ValueError as error:
        yield Check(_KEY, "fail", f"{key_path}: {error}", f"restore it; {_FORK}")
    else:
        yield check_private_file(_KEY, key_path, f"of {key.name}")
    yield _check_checkpoints(checkpoint_path, key)


def check_history(database: Database, key_path: Path, checkpoint_path: Path) -> Iterator[Check]:
    """Check that the log is the one that was signed, as each change does; unless it has no key.

    Raises:
        LedgerUnavailable: the database cannot be asked.
    """
    name = "history"
    try:
        key = SigningKey.from_text(key_path.read_text("latin-1").strip())
    except (OSError, ValueError):
        return
    try:
        status = Signer(database, key, checkpoint_path, utc_now).check_log()
    except HistoryInDoubt as error:
        remedy = "changes are refused: keyledger audit verify lists all differences"
        yield Check(name, "fail", str(error), remedy)
    else:
        # A server signs twice a second, so that more may be signed than when the file was read.
        yield Check(
            name, "ok", f"the log of {status.now.size:,} entries matches its signed checkpoints"
        )


def _check_checkpoints(path: Path, key: SigningKey | None) -> Check:
    try:
        note = last_note_in(path)
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        return _no_checkpoints(f"{path} does not exist", f"{_NEW}; else restore it; {_FORK}")
    except OSError as error:
        return _no_checkpoints(f"{path}: {error.strerror}", OWNER)
    except ValueError as error:
        return _no_checkpoints(f"{path}: {error}", f"restore it; {_FORK}")
    if note is None:
        return _no_checkpoints(f"{path} has no complete checkpoint", f"restore it; {_NEW}; {_FORK}")
    return _check_last(path, mode, note, key)


def _check_last(path: Path, mode: int, note: str, key: SigningKey | None) -> Check:
    found = f"{path}, mode {mode:04o}"
    if key is not None:
        try:
            size = open_checkpoint(note, [key.verifier_key]).size
        except ValueError as error:
            remedy = f"restore the file, or the matching key; {_FORK}"
            return _no_checkpoints(f"{path}: its last checkpoint: {error}", remedy)
        found += f", signed up to entry {size - 1:,}"
    # Everybody may read it: that is what it is for.
    if mode & _OTHERS_WRITE:
        remedy = f"chmod go-w {shlex.quote(str(path))}"
        return Check(_CHECKPOINTS, "fail", f"{found}: other accounts can write it", remedy)
    return Check(_CHECKPOINTS, "ok", found)


def _no_checkpoints(found: str, remedy: str) -> Check:
    return Check(_CHECKPOINTS, "fail", found, remedy)
