"""PostgreSQL is killed under two servers, and returns or is replaced: nothing is lost."""

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import TypeVar
from uuid import uuid4

import httpx
import pytest

from tests.postgresql import administration, connected, create_database, initdb
from tests.programs import needs
from tests.system.clients import LOST, Client, Json, answered, types
from tests.system.postgresql_pair import Pair, running_pair
from tests.system.processes import Server, Servers, eventually, run, servers_in

pytestmark = needs(initdb(), "postgresql")

CUSTOMERS = 4
WATCHERS = 2
ENOUGH = 40
"""Acknowledged changes before a kill, and as many after it."""

T = TypeVar("T")


@dataclass
class Acknowledged:
    """What the servers have told their customers."""

    created: dict[str, Json] = field(default_factory=dict)
    revoked: dict[str, str] = field(default_factory=dict)
    accepted_after_revocation: list[str] = field(default_factory=list)
    refused_for_a_while: int = 0

    @property
    def changes(self) -> int:
        return len(self.created) + len(self.revoked)


class Load:
    """Customers who make and revoke keys, and watchers who present keys that were revoked."""

    def __init__(self, servers: list[Server], token: str) -> None:
        self._servers = servers
        self._token = token
        self._stopped = threading.Event()
        self.acknowledged = Acknowledged()

    def customer(self, number: int) -> None:
        client = self._client(number)
        while not self._stopped.is_set():
            name, once = f"customer {number} {uuid4()}", uuid4().hex
            made = self._insist(partial(client.create, name, idempotency_key=once), 201)
            self.acknowledged.created[name] = made
            if made["token"] is None:
                continue
            self._insist(partial(client.revoke, made["key_id"]), 200)
            self.acknowledged.revoked[made["key_id"]] = made["token"]

    def watcher(self, number: int) -> None:
        """Present revoked keys to either server; one that cannot tell must not guess."""
        random, clients = Random(number), [self._client(n) for n in range(len(self._servers))]
        while not self._stopped.is_set():
            tokens = list(self.acknowledged.revoked.values())
            if not tokens:
                continue
            token = random.choice(tokens)
            try:
                answer = random.choice(clients).http.post("/v1/verify", json={"token": token})
            except LOST:
                continue
            if answer.status_code == httpx.codes.OK and answer.json()["code"] != "REVOKED":
                self.acknowledged.accepted_after_revocation.append(answer.text)

    def stop(self) -> None:
        self._stopped.set()

    def _client(self, number: int) -> Client:
        return self._servers[number % len(self._servers)].client(self._token)

    def _insist(self, call: Callable[[], httpx.Response], status: int) -> Json:
        """Ask until it is done, as a client does that is told to try again."""
        while True:
            answer = call()
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                return answered(answer, status)
            assert "Retry-After" in answer.headers
            self.acknowledged.refused_for_a_while += 1
            assert not self._stopped.wait(0.05), f"it never came back: {answer.text}"


@pytest.fixture
def pair() -> Iterator[Pair]:
    with running_pair() as pair:
        create_database(pair.primary.url("ledger"))
        yield pair


@pytest.fixture
def two(pair: Pair, tmp_path: Path) -> Iterator[Servers]:
    """Two servers as on two machines: each has a folder of its own, with the same two secrets."""
    with servers_in(tmp_path) as servers:
        url = pair.url("ledger")
        first = servers.start(database_url=url)
        second = tmp_path / "second"
        second.mkdir()
        for name in ("pepper", "signing-key"):
            shutil.copy(servers.data_dir / name, second / name)
        servers.start(database_url=url, data_dir=second)
        assert first.root_token
        yield servers


def a_commit_waits(pair: Pair) -> bool:
    """Tell whether a commit has waited for longer than any statement of these tests may take."""
    with administration(pair.primary.url("postgres")) as connection:
        rows = connection.execute(
            b"SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            b" AND now() - query_start > interval '2 seconds'"
        ).fetchall()
    return bool(rows)


def recorded_findings(pair: Pair) -> list[object]:
    """Return how many findings the last recorded integrity check had."""
    with connected(pair.primary.url("ledger")) as connection:
        rows = connection.execute(b"SELECT findings FROM last_attestation").fetchall()
    return [findings for (findings,) in rows]


def promote_the_standby(pair: Pair) -> None:
    pair.standby.promote()


def start_it_again(pair: Pair) -> None:
    pair.primary.start()


@pytest.mark.parametrize("recover", [promote_the_standby, start_it_again])
def test_acknowledged_changes_survive_a_failover_and_service_resumes(
    pair: Pair, two: Servers, recover: Callable[[Pair], None]
) -> None:
    token = two.started[0].root_token or ""
    load = Load(two.started, token)
    acknowledged = load.acknowledged
    with ThreadPoolExecutor(CUSTOMERS + WATCHERS) as pool, ExitStack() as ending:
        ending.callback(load.stop)
        working = [pool.submit(load.customer, number) for number in range(CUSTOMERS)]
        working += [pool.submit(load.watcher, number) for number in range(WATCHERS)]

        def is_told_of(changes: int) -> bool:
            for each in working:
                assert not each.done() or each.result() is None
            return acknowledged.changes >= changes

        eventually(lambda: is_told_of(ENOUGH), "the customers work")
        pair.primary.kill()
        before = acknowledged.changes
        recover(pair)
        eventually(lambda: is_told_of(before + ENOUGH), "the customers work again")
    for each in working:
        each.result()
    assert acknowledged.refused_for_a_while, "the kill was noticed"
    assert acknowledged.accepted_after_revocation == []
    one, other = (server.client(token) for server in two.started)
    listed = {each["name"]: each for each in one.list_keys(q="customer")}
    assert acknowledged.created.keys() <= listed.keys()
    for name, made in acknowledged.created.items():
        assert listed[name]["key_id"] == made["key_id"]
    assert len({each["name"] for each in one.list_keys()}) == len(one.list_keys())
    for key_id, revoked in acknowledged.revoked.items():
        assert one.verify(revoked) == other.verify(revoked) == "REVOKED"
        assert types(one.history(key_id)) == ["Created", "Revoked"]
    for folder in ("keyledger-data", "second"):
        verified = run(two.folder / folder, "audit", "verify", database_url=pair.url("ledger"))
        assert verified.code == 0, verified
        assert (two.folder / folder / "checkpoints.txt").stat().st_size


def test_nothing_is_acknowledged_while_the_standby_is_away_however_long_that_takes(
    pair: Pair, tmp_path: Path
) -> None:
    with servers_in(tmp_path) as servers, ThreadPoolExecutor() as pool:
        client = servers.start(
            database_url=pair.url("ledger"), database_statement_seconds=1
        ).client()
        pair.standby.kill()
        creating = pool.submit(client.create, "waits for the standby")

        eventually(lambda: a_commit_waits(pair), "the commit waits for the standby")
        assert not creating.done()
        pair.standby.start()
        made = answered(creating.result(), 201)
        assert client.verify(made["token"]) == "VALID"


def test_a_former_primary_is_never_used_for_verification(pair: Pair, tmp_path: Path) -> None:
    with servers_in(tmp_path) as servers, ExitStack() as ending:
        server = servers.start(database_url=pair.url("ledger"))
        client = server.client()
        made = answered(client.create("revoked on the new primary"), 201)
        assert client.verify(made["token"]) == "VALID"

        def verdicts() -> set[str]:
            """Return the answers to some checks, on both paths, of which each is asked anew."""
            bearer = {"Authorization": f"Bearer {made['token']}"}
            answers = [
                client.http.post("/v1/verify", json={"token": made["token"]}),
                client.http.get("/v1/forward-auth", headers=bearer),
                client.http.post("/v1/introspect", data={"token": made["token"]}),
            ]
            assert "VALID" not in answers[0].text
            assert not answers[1].is_success
            assert '"active":true' not in answers[2].text
            return {str(answer.status_code) for answer in answers}

        def is_ready() -> bool:
            return client.http.get("/readyz").status_code == httpx.codes.OK

        pair.primary.kill()
        pair.standby.promote()
        eventually(lambda: client.revoke(made["key_id"]).is_success, "it is revoked")
        assert client.verify(made["token"]) == "REVOKED"

        # Both take changes now, and the URL names the former primary first.
        pair.primary.start()
        with administration(pair.standby.url("postgres")) as connection:
            connection.execute(
                b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                b" WHERE application_name = 'keyledger'"
            )
        eventually(lambda: verdicts() == {"200", "401"}, "the new primary is found again")
        assert client.verify(made["token"]) == "REVOKED"
        eventually(is_ready, "it is ready")

        # Only the former primary is there.
        pair.standby.kill()
        ending.callback(pair.standby.start)
        eventually(lambda: not is_ready(), "it is not ready any more")
        assert verdicts() == {"503"}
        problem = client.http.post("/v1/verify", json={"token": made["token"]}).json()
        assert "former primary" in problem["detail"] or "has seen the event" in problem["detail"]
        assert "keyledger_ledger_went_back 1.0" in client.http.get("/metrics").text
        assert not is_ready()

        ending.pop_all()
        pair.standby.start()
        eventually(lambda: verdicts() == {"200", "401"}, "the new primary is back")
        assert client.verify(made["token"]) == "REVOKED"
        eventually(is_ready, "it is ready again")
        assert "keyledger_ledger_went_back 0.0" in client.http.get("/metrics").text
        assert len([line for line in server.log_lines if line["event"] == "ledger_went_back"]) == 1


def test_audit_verify_ends_with_its_findings_while_the_standby_is_away(
    pair: Pair, tmp_path: Path
) -> None:
    data_dir, url = tmp_path / "keyledger-data", pair.url("ledger")
    given = {"database_url": url, "database_lock_seconds": 1}
    create = ("keys", "create", "--scopes", "a:b", "--name")
    assert run(data_dir, *create, "first", **given).code == 0
    with connected(pair.primary.url("ledger")) as connection:
        damaged = connection.execute(b"UPDATE key_digests SET seal = sha256('forged')")
        assert damaged.rowcount == 1
    pair.standby.kill()

    verified = run(data_dir, "audit", "verify", **given)
    assert verified.code == 1
    assert "1 finding" in verified.output
    assert "it has no valid seal" in verified.output
    assert recorded_findings(pair) == [1], "the result is recorded without the standby"

    with (
        connected(pair.primary.url("ledger")) as connection,
        # A commit would wait for the standby.
        connection.transaction(force_rollback=True),
    ):
        connection.execute(b"LOCK TABLE last_attestation IN EXCLUSIVE MODE")
        verified = run(data_dir, "audit", "verify", **given)
    assert verified.code == 1
    assert "1 finding" in verified.output
    assert "The result was not recorded in the database: " in verified.errors

    with ThreadPoolExecutor() as pool, ExitStack() as ending:
        ending.callback(pair.standby.start)
        creating = pool.submit(run, data_dir, *create, "waits", **given)
        eventually(lambda: a_commit_waits(pair), "the commit waits for the standby")
        verified = run(data_dir, "audit", "verify", **given)
        assert verified.code == 1
        assert "it has no valid seal" in verified.output, "what was found before it had to wait"
        assert "error: " in verified.errors
        ending.close()
        assert creating.result().code == 0
