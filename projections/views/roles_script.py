"""The lines of ``docs/postgresql-roles.sql`` that grant writing to the views.

``make docs`` writes the lines of the current views into the script.
"""

import re
import sys
from pathlib import Path
from textwrap import wrap

from projections.views.registry import WRITTEN

SCRIPT = Path(__file__).parents[2] / "docs" / "postgresql-roles.sql"
_HEAD = "        -- The views: `make docs` writes these lines.\n"
_LINES = re.compile(re.escape(_HEAD) + r"(?: +[('].*\n)*")
_WIDTH = 80


def with_grants(script: str) -> str:
    """Return the script with the grants of the current views."""
    return _LINES.sub(lambda _: _HEAD + "".join(map(_line, WRITTEN.items())), script)


def _line(written: tuple[str, str]) -> str:
    table, privileges = written
    text = "'\n            ' ".join(wrap(privileges, _WIDTH))
    return f"        ('{table}', '{text}'),\n"


if __name__ == "__main__":
    sys.stdout.write(with_grants(SCRIPT.read_text()))
