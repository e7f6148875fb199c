"""The settings table of ``docs/configuration.md``, generated from the settings.

``make docs`` writes the table of the current settings into the page.
"""

import re
import sys
from pathlib import Path

from api.setting_errors import PREFIX
from api.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
_HEAD = "| variable | default | meaning |\n|---|---|---|\n"
_TABLE = re.compile(re.escape(_HEAD) + r"(?:\|.*\n)*")


def settings_table() -> str:
    """Return the Markdown table of all settings, in the order of their declaration."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = f"`{field.default}`" if field.default not in {None, ""} else ""
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |\n")
    return _HEAD + "".join(rows)


def with_settings_table(page: str) -> str:
    """Return the page with its settings table replaced by the current one."""
    return _TABLE.sub(lambda _: settings_table(), page)


if __name__ == "__main__":
    sys.stdout.write(with_settings_table(PAGE.read_text()))
