"""A server that is killed during a rebuild leaves the old view or the new one, complete."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from threading import Semaphore

from domain.names import ROOT_WORKSPACE
from tests.engines import address_of
from tests.projections.ledgers import KEY_VIEWS
from tests.raw_sql import raw, seal_auth_rows, tables_of
from tests.system.clients import LOST, Client, answered
from tests.system.ledgers import (
    MAKER,
    SOUND,
    MadeKey,
    admin_token,
    differences,
    make_keys,
)
from tests.system.processes import Server, Servers, eventually

KEYS = 2500
RENAMINGS = 3
EVENTS = KEYS * (1 + RENAMINGS)
NAMED = tuple(view.name for view in KEY_VIEWS)
"""The views that answer with the names of keys, so that an old row can be told from a new one."""

OLD = "old "
"""What all the names in a view begin with that was not made anew since it was marked."""


def test_a_killed_rebuild_leaves_the_old_view_or_the_new_one_and_can_be_repeated(
    servers: Servers,
) -> None:
    data_dir = servers.data_dir
    made = make_keys(data_dir, [f"key {n}" for n in range(KEYS)], renamings=RENAMINGS)
    admin, root = admin_token(data_dir), admin_token(data_dir, ROOT_WORKSPACE)
    tables = tables_of(address_of(data_dir))
    to_revoke = iter(made[1:])
    revoked: list[MadeKey] = []
    server = servers.start()
    for view, (stage, is_reached) in zip(cycle(NAMED), STAGES.items(), strict=False):
        _mark_as_old(data_dir, view)
        with _asking_until_killed(server, admin, made[0], to_revoke, revoked) as answers:
            answered(server.client(root).rebuild(view), 202)
            moment = Moment(data_dir, view, answers)
            eventually(partial(is_reached, moment), f"the rebuild can be killed {stage}")
        server = servers.start()
        assert moment.is_over() or stage != "when the tables are exchanged"
        assert differences(data_dir) == SOUND | {
            name: Moment(data_dir, name, answers).old_rows() for name in NAMED
        }
        for key in revoked:
            assert server.client(admin).verify(key.token) == "REVOKED"
    assert revoked
    client = server.client(root)
    for view in NAMED:
        answered(client.rebuild(view), 202)
        eventually(partial(_rebuilt, client, view), f"{view} is made anew")
    assert differences(data_dir) == SOUND
    assert tables_of(address_of(data_dir)) == tables


@dataclass(frozen=True)
class Moment:
    """How far the rebuild of a view has come, by what others see of it."""

    data_dir: Path
    view: str
    answers: Semaphore

    def old_rows(self) -> int:
        """Return how many rows are old: all of them, or none."""
        with raw(address_of(self.data_dir)) as connection:
            rows, old = connection.execute(
                f"SELECT count(*), count(*) FILTER (WHERE name LIKE '{OLD}%') FROM {self.view}"  # noqa: S608
            ).fetchone()
        assert old in (0, rows)
        return int(old)

    def has_come_to(self, position: int) -> bool:
        """Tell whether the new table has the events up to a position."""
        with raw(address_of(self.data_dir)) as connection:
            row = connection.execute(
                "SELECT position FROM projection_states WHERE table_name = ?",
                (f"{self.view}_rebuild",),
            ).fetchone()
        return self.is_over() or (row is not None and row[0] >= position)

    def is_over(self) -> bool:
        """Tell whether the new table has taken the old one's place."""
        return self.old_rows() == 0

    def has_answered(self, count: int) -> bool:
        """Tell, once, whether the server has given so many answers meanwhile."""
        return all(self.answers.acquire(timeout=30) for _ in range(count))


STAGES: dict[str, Callable[[Moment], bool]] = {
    "at once": lambda _: True,
    "when the new table is there": lambda moment: moment.has_come_to(0),
    "after ten answers": lambda moment: moment.has_answered(10),
    "when the first batch is in": lambda moment: moment.has_come_to(1),
    "when the last batch is in": lambda moment: moment.has_come_to(EVENTS),
    "when the tables are exchanged": Moment.is_over,
}


def _mark_as_old(data_dir: Path, view: str) -> None:
    with raw(address_of(data_dir)) as connection:
        connection.execute(
            f"UPDATE {view} SET name = '{OLD}' || name WHERE name NOT LIKE '{OLD}%'"  # noqa: S608 - ours
        )
    seal_auth_rows(data_dir)


def _rebuilt(client: Client, view: str) -> bool:
    state = client.projections()[view]["rebuild"]["state"]
    assert state in ("running", "done")
    return bool(state == "done")


@contextmanager
def _asking_until_killed(
    server: Server, token: str, key: MadeKey, to_revoke: Iterator[MadeKey], revoked: list[MadeKey]
) -> Iterator[Semaphore]:
    """Ask the server for all it has and count the answers; kill it when the block ends."""
    answers = Semaphore(0)
    clients = [Client(server.url, token) for _ in range(3)]
    calls = [
        _verified(clients[0], key),
        _listed(clients[1]),
        _revoked(clients[2], to_revoke, revoked),
    ]
    with ThreadPoolExecutor(len(calls)) as pool:
        loops = [pool.submit(_repeat, call, answers) for call in calls]
        try:
            yield answers
        finally:
            server.kill()
            wait(loops)
            for client in clients:
                client.close()
        for loop in loops:
            loop.result()


def _repeat(call: Callable[[], bool], answers: Semaphore) -> None:
    seen_new = False
    while True:
        try:
            old = call()
        except LOST:
            return
        assert not (seen_new and old)
        seen_new = not old
        answers.release()


def _verified(client: Client, key: MadeKey) -> Callable[[], bool]:
    """Verify a key that is good; tell whether the row behind it was an old one."""

    def call() -> bool:
        verdict = client.verdict(key.token)
        assert verdict["valid"]
        name: str = verdict["name"]
        assert name.removeprefix(OLD) == key.name
        return name.startswith(OLD)

    return call


def _listed(client: Client) -> Callable[[], bool]:
    """List keys; tell whether the rows were old ones, all of them."""
    query = {"created_by": MAKER.actor.id, "limit": "100"}

    def call() -> bool:
        page = answered(client.http.get("/v1/keys", params=query))["data"]
        assert len(page) == 100
        (old,) = {key["name"].startswith(OLD) for key in page}
        return bool(old)

    return call


def _revoked(
    client: Client, to_revoke: Iterator[MadeKey], revoked: list[MadeKey]
) -> Callable[[], bool]:
    """Revoke a key, which is to be refused from then on."""

    def call() -> bool:
        key = next(to_revoke)
        answered(client.revoke(key.key_id))
        revoked.append(key)
        assert client.verify(key.token) == "REVOKED"
        return False

    return call
