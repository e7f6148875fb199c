"""What the tests of the whole product use: servers that end with the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.processes import Servers, servers_in


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with servers_in(tmp_path) as servers:
        yield servers
