"""PostgreSQL databases for benchmarks, with the durability of a production server."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from sqlalchemy import URL, make_url

from tests.postgresql import administration, running_server

SERVER = "BENCHMARK_DATABASE_URL"
"""Names a PostgreSQL server and a user who may create databases."""

_DURABLE = {
    "fsync": "on",
    "full_page_writes": "on",
    "shared_buffers": "512MB",
    "max_wal_size": "4GB",
}


@contextmanager
def server() -> Iterator[URL]:
    """Yield the server that is named, or a new one from the programs of this machine."""
    if SERVER in os.environ:
        yield make_url(os.environ[SERVER])
        return
    with running_server(**_DURABLE) as started:
        yield started.url("postgres")


@contextmanager
def new_database(on: URL) -> Iterator[URL]:
    """Yield an empty database of a server, and drop it at the end."""
    url = on.set(database=f"keyledger_benchmark_{uuid4().hex}")
    with administration(on) as connection:
        connection.execute(f'CREATE DATABASE "{url.database}" TEMPLATE template0'.encode())
        try:
            yield url
        finally:
            connection.execute(f'DROP DATABASE "{url.database}" WITH (FORCE)'.encode())
