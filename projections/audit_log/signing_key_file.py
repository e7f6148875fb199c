"""The file of the signing key: created once, outside the database."""

from pathlib import Path

from domain.errors import LedgerUnavailable
from domain.tokens import RandomSource
from projections.store.file_modes import OnRepair, keep_private, log_repair
from projections.store.private_files import FileOwner, make_private_file
from projections.tlog.notes import SEED_LENGTH, SigningKey

_ORIGIN_LENGTH = 8


def read_or_make_signing_key(
    path: Path,
    random: RandomSource,
    *,
    owner: FileOwner | None = None,
    on_repair: OnRepair = log_repair,
) -> SigningKey:
    """Read the signing key of checkpoints; create one if there is no file.

    The key's name is the log's origin, which is unique to the ledger.

    Args:
        owner: owner of a new file; ``None`` for the owner of its folder.
        on_repair: called if other accounts could open the file and its mode was repaired.

    Raises:
        LedgerUnavailable: the file cannot be read or created, holds no signing key, or other
            accounts can open it.
    """
    try:
        if not path.exists():
            key = SigningKey(f"keyledger/{random(_ORIGIN_LENGTH).hex()}", random(SEED_LENGTH))
            make_private_file(path, f"{key.reveal()}\n".encode(), owner)
        keep_private(path, on_repair)
        return SigningKey.from_text(path.read_text("utf-8").strip())
    except ValueError as error:
        message = (
            f"{path}: {error}; restore the file. If it is lost, remove it, and start a new log"
            " with a new key: keyledger audit fork --reason WHY"
        )
        raise LedgerUnavailable(message) from error
    except OSError as error:
        message = f"cannot read or make the signing key's file: {error}"
        raise LedgerUnavailable(message) from error
