"""An unavailable or overloaded ledger is answered with 503, never with a guess."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
import structlog
from httpx2 import Response

from api.settings import Settings
from domain.verifiers import Argon2Profile
from tests.api.served import Api, Key, NewLedger, refused, served
from tests.conftest import SettableClock
from tests.raw_sql import appends_locked, raw, sql
from tests.system.processes import eventually

# Many passes over little memory: a call takes a second or more, and occupies its place.
SLOW = Argon2Profile(memory_kib=1024, passes=1500, lanes=1)
ACME = {"workspace": "acme"}
ASKED = {"name": "a", "scopes": ["a:b"]}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Without a server's log configuration, each 503 would print a long traceback."""
    with structlog.testing.capture_logs():
        yield


def database_files(api: Api) -> list[Path]:
    folder = api.settings.data_dir
    return [path for path in folder.iterdir() if path.name.startswith("keyledger.sqlite3")]


def changes(api: Api, keys: list[Key]) -> list[Callable[[], Response]]:
    """Return one change of every kind, each for another key."""
    revoked, rotated, renamed = keys
    return [
        lambda: api.post("/v1/keys", json=ASKED),
        lambda: api.post(f"{revoked.path}/revoke", params=ACME),
        lambda: api.post(f"{rotated.path}/rotate", params=ACME),
        lambda: api.patch(renamed.path, params=ACME, json={"name": "new"}),
    ]


class TestLocked:
    """Another process holds the append lock longer than a change waits for it."""

    def test_changes_are_refused_and_reads_and_verifications_go_on(self, api: Api) -> None:
        keys = [api.make() for _ in range(3)]
        known, unknown, admin = api.make(), api.make(), api.admin()
        assert verdict(api, known) == "VALID"
        before = api.position()
        calls = changes(api, keys)
        with ThreadPoolExecutor(len(calls)) as threads, appends_locked(api.address):
            waiting = [threads.submit(call) for call in calls]
            while not all(each.done() for each in waiting):
                assert verdict(api, known) == verdict(api, unknown) == "VALID"
                assert api.get("/v1/keys", by=admin).status_code == 200
                assert api.get("/v1/forward-auth", by=known).status_code == 204
                assert {api.show(key)["version"] for key in keys} == {1}
                assert api.get("/readyz", by=None).status_code == 200
            for each in waiting:
                problem = refused(each.result(), 503, "LEDGER_UNAVAILABLE")
                assert "sqlite" not in problem["detail"].lower()
        assert api.position() == before
        assert [call().is_success for call in calls] == [True] * 4
        assert [len(api.history(key)) for key in keys] == [2, 2, 2]

    def test_a_lock_released_in_time_is_only_a_wait(self, api: Api) -> None:
        key = api.make()
        held, let_go = Event(), Event()

        def hold() -> None:
            with appends_locked(api.address):
                held.set()
                let_go.wait()

        with ThreadPoolExecutor(2) as threads:
            holding = threads.submit(hold)
            held.wait()
            revoking = threads.submit(api.revoke, key)
            assert verdict(api, key) == "VALID"
            let_go.set()
            revoking.result()
            holding.result()
        assert verdict(api, key) == "REVOKED"


def verdict(api: Api, key: Key) -> str:
    asked = {"token": key.token}
    code: str = api.post("/v1/verify", params=ACME, json=asked).json()["code"]
    return code


def as_client(key: Key) -> dict[str, str]:
    """Return the form with which an OAuth client introspects its own token."""
    return {"client_id": key.key_id, "client_secret": key.token, "token": key.token}


def overwrite(api: Api) -> None:
    """Overwrite the database's files in place, like a failing disk or a faulty script."""
    for path in database_files(api):
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.write(b"garbage!" * (size // 8))


def drop_events(api: Api) -> None:
    sql(api.address, "DROP TABLE events")


@pytest.mark.parametrize(
    "destroy", [pytest.param(overwrite, marks=pytest.mark.only_on("sqlite")), drop_events]
)
class TestDestroyed:
    """The database can no longer be read, not even from what was cached before."""

    def test_nothing_that_needs_the_ledger_is_answered(
        self, api: Api, destroy: Callable[[Api], None]
    ) -> None:
        keys = [api.make() for _ in range(3)]
        assert verdict(api, keys[0]) == "VALID"
        destroy(api)
        calls: list[Callable[[], Response]] = [
            lambda: api.get("/v1/keys"),
            lambda: api.get(keys[0].path, params=ACME),
            lambda: api.get(f"{keys[0].path}/events", params=ACME),
            lambda: api.post("/v1/verify", json={"token": keys[0].token}),
            lambda: api.post("/v1/verify", params=ACME, json={"token": keys[0].token}),
            lambda: api.post("/v1/verify/batch", json={"tokens": [{"token": keys[0].token}]}),
            lambda: api.post("/v1/introspect", data={"token": keys[0].token}),
            lambda: api.post("/v1/introspect", by=None, data=as_client(api.root)),
            lambda: api.get("/v1/forward-auth", by=keys[0]),
            lambda: api.get("/v1/projections"),
            lambda: api.get("/readyz", by=None),
            lambda: api.get("/metrics", by=None),
            *changes(api, keys),
        ]
        for call in calls:
            refused(call(), 503, "LEDGER_UNAVAILABLE")

    def test_the_process_says_that_it_lives(self, api: Api, destroy: Callable[[Api], None]) -> None:
        destroy(api)
        assert api.get("/healthz", by=None).json() == {"status": "ok"}


class TestDamaged:
    """Damaged rows affect only the answers that need them."""

    @contextmanager
    def damaged(self, api: Api, statement: str) -> Iterator[None]:
        with raw(api.address) as connection:
            connection.execute(statement)
            yield

    def test_an_event_that_cannot_be_read_stops_what_needs_it(self, api: Api) -> None:
        key = api.make()
        # The newest event that a process has seen must stay unchanged.
        api.make()
        with self.damaged(api, "UPDATE events SET state = '{' WHERE id = 2"):
            refused(api.get(f"{key.path}/events", params=ACME), 503, "POISON_EVENT")
            refused(api.post(f"{key.path}/revoke", params=ACME), 503, "EVENT_NOT_SEALED")
            assert api.show(key)["status"] == "active"
            assert api.make().document["status"] == "active"

    def test_a_row_that_contradicts_the_events_stops_the_change(self, api: Api) -> None:
        key = api.make()
        with self.damaged(api, "DELETE FROM key_list WHERE position = 2"):
            before = api.position()
            answer = api.post(f"{key.path}/revoke", params=ACME)
            refused(answer, 503, "PROJECTION_INCONSISTENT")
            assert api.position() == before
            assert verdict(api, key) == "VALID"


class TestOverload:
    """More secrets must be hashed than there are places."""

    @pytest.fixture
    def slow(
        self, served_settings: Settings, new_ledger: NewLedger, clock: SettableClock
    ) -> Iterator[Api]:
        """An app that hashes one secret at a time, slowly, while one other may wait."""
        # With so many workers, each has one core.
        limits = {"argon2_waiting": 1, "workers": 64}
        settings = served_settings.model_copy(update=limits)
        with served(settings, new_ledger.root, clock, argon2_profile=SLOW) as api:
            yield api

    def test_a_connection_beyond_the_limit_is_refused_and_the_others_are_served(
        self, slow: Api
    ) -> None:
        def calls() -> float:
            return slow.metrics()["keyledger_argon2_calls"]

        before = slow.position()
        assert calls() == 0
        with ThreadPoolExecutor(2) as threads:
            made = [threads.submit(slow.post, "/v1/keys", json=ASKED) for _ in range(2)]
            eventually(lambda: calls() == 2, "one call runs and one waits")
            problem = refused(slow.post("/v1/keys", json=ASKED), 503, "OVERLOADED")
            assert "try again" in problem["detail"]
            # A cached key needs no Argon2id call, and is not delayed by those that wait for one.
            asked = {"token": slow.root.token}
            assert slow.post("/v1/verify?workspace=root", json=asked).json()["code"] == "VALID"
            assert slow.get("/v1/forward-auth").status_code == 204
            assert calls() > 0
            assert {each.result().status_code for each in made} == {201}
        assert slow.position() == before + 2
        assert calls() == 0
