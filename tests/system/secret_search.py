"""Search everything that is left behind for secrets, in every encoding."""

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.engines import address_of
from tests.raw_sql import raw, schema_of, tables_of

_PIECE = 8
"""So many bytes in a row are no accident; half a secret in a log is a leak as well."""


def forms(secret: bytes) -> set[bytes]:
    """Return what to look for: pieces of a secret, as they are and in other ways of writing."""
    texts = [(secret, _PIECE), (secret.hex().encode(), 2 * _PIECE)]
    texts += [(secret.hex().upper().encode(), 2 * _PIECE)]
    texts += [(secret.decode("latin-1").encode("utf-16-le"), 2 * _PIECE)]
    texts += [(secret[::-1], _PIECE)]
    for skipped in range(3):
        # Base64 looks different for each place at which the secret can begin in a longer text.
        whole = (len(secret) - skipped) // 3 * 3
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            texts.append((encode(secret[skipped : skipped + whole]), 12))
    return {piece for text, length in texts for piece in _pieces(text, length)}


def _pieces(text: bytes, length: int) -> Iterator[bytes]:
    """Cut a text into pieces, so that whatever is twice as long as a piece has one in it."""
    for start in range(0, len(text) - length + 1, length):
        yield text[start : start + length]


class Search:
    """Looks for the same secrets in one place after the other."""

    def __init__(self, secrets: Mapping[str, bytes]) -> None:
        """Look for secrets; the names given to them are what is found."""
        self._sought = {name: forms(secret) for name, secret in secrets.items()}

    def found_in(self, data: bytes) -> set[str]:
        """Return the names of the secrets that data has at least a piece of."""
        return {
            name for name, pieces in self._sought.items() if any(piece in data for piece in pieces)
        }

    def found_in_files(self, folder: Path) -> dict[str, set[str]]:
        """Return for each file of a folder and all below it what it has, if it has anything."""
        found = {
            str(path.relative_to(folder)): self.found_in(path.name.encode() + path.read_bytes())
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        return {path: names for path, names in found.items() if names}

    def found_in_tables(self, data_dir: Path) -> dict[str, set[str]]:
        """Return for each table what it has, if it has anything: in any row, text or bytes."""
        address = address_of(data_dir)
        with raw(address) as connection:
            tables = [schema_of(address), *sorted(tables_of(address))]
            found = {
                table: self.found_in(
                    b"\n".join(
                        value if isinstance(value, bytes) else str(value).encode()
                        for row in connection.execute(f"SELECT * FROM {table}")  # noqa: S608 - theirs
                        for value in row
                    )
                )
                for table in tables
            }
        return {table: names for table, names in found.items() if names}
