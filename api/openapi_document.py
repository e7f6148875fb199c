"""The file ``docs/openapi.json``: the OpenAPI document of the HTTP API.

``make docs`` writes the file, and a test compares it with the program.
"""

import json
import sys
from pathlib import Path

from api.app import create_app
from api.settings import Settings

PAGE = Path(__file__).parents[1] / "docs" / "openapi.json"


def openapi_text() -> str:
    """Return the OpenAPI document as indented JSON."""
    return json.dumps(create_app(Settings()).openapi(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(openapi_text())
