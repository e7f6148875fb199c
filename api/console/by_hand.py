"""Checking an entry's proof without the ledger: a program of a few lines, with what it needs."""

from collections.abc import Sequence

from projections.tlog.merkle import Step

_SCRIPT = """\
from base64 import b64encode
from hashlib import sha256

entry = {entry!r}
neighbours = [
{neighbours}]
node = sha256(b"\\0" + entry).digest()
for side, neighbour in neighbours:
    other = bytes.fromhex(neighbour)
    node = sha256(b"\\1" + (other + node if side == "left" else node + other)).digest()
print(node.hex())
print(b64encode(node).decode())
"""


def script_by_hand(entry: bytes, steps: Sequence[Step]) -> str:
    """Return a program in Python 3 that prints the root to which an entry's proof leads.

    It needs nothing beyond the language, so that whoever reads it sees all that it does.
    """
    neighbours = "".join(
        f'    ("{"left" if step.sibling_is_left else "right"}", "{step.sibling.hex()}"),\n'
        for step in steps
    )
    return _SCRIPT.format(entry=entry, neighbours=neighbours)
