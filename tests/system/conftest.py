"""Fixtures of the system tests: servers that stop with the test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.processes import Servers, servers_in


@pytest.fixture
def servers(data_dir: Path) -> Iterator[Servers]:
    with servers_in(data_dir.parent) as servers:
        assert servers.data_dir == data_dir
        yield servers
