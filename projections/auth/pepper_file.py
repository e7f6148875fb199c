"""The file of the pepper: created once, outside the database."""

from pathlib import Path

from domain.errors import LedgerUnavailable
from domain.pepper import PEPPER_LENGTH, Pepper
from domain.tokens import RandomSource
from projections.store.file_modes import OnRepair, keep_private, log_repair
from projections.store.private_files import FileOwner, make_private_file


def read_or_make_pepper(
    path: Path,
    random: RandomSource,
    *,
    owner: FileOwner | None = None,
    on_repair: OnRepair = log_repair,
) -> Pepper:
    """Read the pepper; create its file, readable by its owner only, if there is none.

    Several processes may do it at once. All get the same pepper, since the file appears under its
    name complete or not at all.

    Args:
        owner: of a new file; ``None`` for the owner of its folder.
        on_repair: is called with what was repaired, if others could open the file.

    Raises:
        LedgerUnavailable: the file cannot be read or created, is not a pepper, or can be opened by
            others.
    """
    try:
        if not path.exists():
            make_private_file(path, random(PEPPER_LENGTH), owner)
        keep_private(path, on_repair)
        return Pepper(path.read_bytes())
    except ValueError as error:
        message = f"{path}: {error}; restore the file, which the ledger is sealed with"
        raise LedgerUnavailable(message) from error
    except OSError as error:
        message = f"cannot read or make the pepper's file: {error}"
        raise LedgerUnavailable(message) from error
