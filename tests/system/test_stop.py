"""A server that is asked to stop answers requests in progress, and ends cleanly."""

import os
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from threading import Semaphore

import httpx
import pytest

from tests.engines import address_of
from tests.raw_sql import sql
from tests.system.clients import LOST, Client, Json, answered
from tests.system.ledgers import SOUND, MadeKey, admin_token, differences, make_keys
from tests.system.processes import Server, Servers, eventually

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")

_STARTED = re.compile(r"Started server process \[(\d+)\]")
CLEAN = {0, -signal.SIGTERM}
"""After the work is done, a process may as well end by the signal itself."""


def _check_quiet(server: Server) -> None:
    assert "Traceback" not in server.log
    assert {line["level"] for line in server.log_lines} == {"info"}
    assert server.output_path.read_bytes() == b""


def _client_of_each_worker(server: Server, token: str) -> list[Client]:
    """Connect to each worker, which is sure to get the connection while the others are halted."""
    eventually(lambda: server.log.count("Application startup complete") == 2, "both are ready")
    workers = [int(number) for number in _STARTED.findall(server.log)]
    assert len(workers) == 2
    clients = []
    for halted in workers:
        os.kill(halted, signal.SIGSTOP)
        eventually(partial(_is_halted, halted), "the worker is halted")
        client = server.client(token)
        client.list_keys(q="this opens the connection, which is kept")
        clients.append(client)
        os.kill(halted, signal.SIGCONT)
    return clients


def _is_halted(process: int) -> bool:
    state = subprocess.run(
        ["ps", "-o", "state=", "-p", str(process)],  # noqa: S607
        capture_output=True,
        check=True,
    )
    return state.stdout.strip() == b"T"


class HastyClient:
    """A client that goes on asking until the server is gone, and writes down what it was told."""

    def __init__(self, url: str, token: str, to_revoke: list[MadeKey]) -> None:
        self._to_revoke = to_revoke
        self._client = Client(url, token)
        self._client.http.event_hooks["response"].append(self._begin)
        self.begun = self.ended = 0
        self.revoked: list[str] = []
        self.created: list[str] = []

    def work(self, told: Semaphore) -> None:
        with closing(self._client), suppress(*LOST):
            for key in self._to_revoke:
                self.revoked += [self._told(self._client.revoke(key.key_id))["key_id"]]
                self.created += [self._told(self._client.create("in haste"), 201)["key_id"]]
                self._told(self._client.http.get("/v1/keys", params={"limit": "100"}))
                told.release()
            pytest.fail("the server has outlived the work")

    def _begin(self, _response: httpx.Response) -> None:
        # The head of an answer has come, and nothing of its body.
        self.begun += 1

    def _told(self, response: httpx.Response, status: int = 200) -> Json:
        self.ended += 1
        return answered(response, status)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_answer_given_before_the_stop_is_durable_and_none_is_cut_off(
    workers: int, servers: Servers
) -> None:
    token = admin_token(servers.data_dir)
    server = servers.start("--workers", str(workers))
    clients = [
        HastyClient(
            server.url, token, make_keys(servers.data_dir, [f"{client}.{n}" for n in range(200)])
        )
        for client in range(4)
    ]
    told = Semaphore(0)
    with ThreadPoolExecutor(len(clients)) as pool:
        works = [pool.submit(client.work, told) for client in clients]
        try:
            for _ in range(12):
                assert told.acquire(timeout=30)
        finally:
            code = server.stop()
        for work in works:
            work.result(timeout=30)
    assert code in CLEAN
    _check_quiet(server)
    after = servers.start().client(token)
    created = {key["key_id"] for key in after.list_keys(q="in haste")}
    revoked = {key["key_id"] for key in after.list_keys(status="revoked")}
    for client in clients:
        assert client.begun == client.ended > 0
        assert created.issuperset(client.created)
        assert revoked.issuperset(client.revoked)
    assert differences(servers.data_dir) == SOUND


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_it_without_complaint(workers: int, servers: Servers) -> None:
    server = servers.start("--workers", str(workers))
    server.interrupt()
    assert server.wait() == 0
    _check_quiet(server)


def test_a_stop_interrupts_a_rebuild_which_can_be_resumed(
    servers: Servers,
) -> None:
    make_keys(servers.data_dir, [f"key {n}" for n in range(1500)], renamings=7)
    server = servers.start()
    root = admin_token(servers.data_dir, "root")
    answered(server.client(root).rebuild("key_list"), 202)
    assert server.stop() in CLEAN
    _check_quiet(server)
    client = servers.start().client(root)
    answered(client.rebuild("key_list"), 202)
    eventually(
        lambda: client.projections()["key_list"]["rebuild"]["state"] == "done",
        "the view is made anew",
    )
    assert differences(servers.data_dir) == SOUND


def test_due_keys_do_not_delay_a_stop(servers: Servers) -> None:
    end = datetime.now(UTC) + timedelta(seconds=8)
    make_keys(servers.data_dir, [f"key {n}" for n in range(1000)], expires_at=end)
    address = address_of(servers.data_dir)
    recorded = "SELECT count(*) FROM events WHERE topic = 'ApiKey.Expired'"
    eventually(lambda: datetime.now(UTC) > end, "the keys have ended")
    server = servers.start()
    eventually(lambda: sql(address, recorded) != [(0,)], "the first ends are recorded")
    assert server.stop() in CLEAN
    _check_quiet(server)
    assert sql(address, recorded) < [(1000,)]
    servers.start()
    eventually(lambda: sql(address, recorded) == [(1000,)], "all ends are recorded")
    assert differences(servers.data_dir) == SOUND


def test_all_workers_of_one_port_see_a_revocation_at_once(servers: Servers) -> None:
    token = admin_token(servers.data_dir)
    server = servers.start("--workers", "2")
    workers = _client_of_each_worker(server, token)
    for key in make_keys(servers.data_dir, [f"revoked {n}" for n in range(50)]):
        for client in workers:
            assert client.verify(key.token) == "VALID"
        answered(workers[0].revoke(key.key_id))
        for client in workers:
            assert client.verify(key.token) == "REVOKED"
        workers.reverse()
    assert server.stop() in CLEAN
    _check_quiet(server)
