"""The commands of docs/tour.md, run against a real server, print what the page shows."""

import shutil
from pathlib import Path

from tests.page_sessions import DOCS, session_of
from tests.programs import needs


@needs(shutil.which("curl"), "curl")
def test_the_tour_prints_what_the_page_shows(tmp_path: Path) -> None:
    with session_of(DOCS / "tour.md", tmp_path, "Run it") as session:
        session.hold("A tour", at_least=10)
