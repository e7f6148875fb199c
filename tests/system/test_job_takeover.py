"""Another process takes over the jobs of a killed one."""

from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection as Pipe
from pathlib import Path

from domain.times import to_text
from projections.integrity.last_result import read_last_result
from projections.store.database import Database, open_database
from projections.store.locks import task_lock
from projections.views.entries import size_of
from tests.engines import address_of, sealed_database
from tests.projections.processes import CONTEXT, start
from tests.raw_sql import raw
from tests.system.clients import Client, answered
from tests.system.ledgers import admin_token
from tests.system.processes import Servers, eventually

TASKS = ("signing", "expiring", "attestation")
AT_ONCE = 1e-7
"""Hours: a third of a millisecond."""


def hold_every_task(data_dir: Path, told: Pipe) -> None:
    with closing(open_database(address_of(data_dir))) as database, ExitStack() as held:
        told.send([held.enter_context(task_lock(database, task)) for task in TASKS])
        told.recv()


def ends_recorded(database: Database) -> int:
    with raw(database.url) as connection:
        row = connection.execute("SELECT count(*) FROM events WHERE topic = 'ApiKey.Expired'")
        return int(row.fetchone()[0])


def signed(client: Client) -> int:
    """Return how many entries the last checkpoint is of."""
    answer = client.http.get("/v1/checkpoint")
    return int(answer.text.splitlines()[1]) if answer.status_code == 200 else 0


def entries(database: Database) -> int:
    with database.read() as connection:
        return size_of(connection)


def test_another_process_takes_over_signing_expiry_and_checks(
    servers: Servers,
) -> None:
    token = admin_token(servers.data_dir)
    ours, theirs = CONTEXT.Pipe()
    with start(hold_every_task, servers.data_dir, theirs) as holder:
        assert ours.recv() == [True, True, True]
        server = servers.start(expirer_seconds=0.01, attestation_hours=AT_ONCE)
        client = server.client(token)
        end = datetime.now(UTC) + timedelta(seconds=1)
        answered(client.create("short-lived", expires_at=to_text(end)), 201)
        seconds_later = end + timedelta(seconds=2)
        eventually(lambda: datetime.now(UTC) > seconds_later, "the key has ended for a while")
        with closing(sealed_database(servers.data_dir)) as database:
            assert (ends_recorded(database), signed(client)) == (0, 0)
            assert read_last_result(database, datetime.now(UTC)) is None
            holder.kill()
            eventually(lambda: ends_recorded(database) == 1, "another records the end")
            eventually(lambda: signed(client) == entries(database), "another signs all there is")
            eventually(
                lambda: read_last_result(database, datetime.now(UTC)) is not None, "another attests"
            )
