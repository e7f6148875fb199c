"""A server that is killed at work loses no acknowledged change."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random
from signal import SIGTERM
from threading import Semaphore

import pytest

from tests.projections.audit_log.signed_logs import (
    Said,
    check_what_was_signed,
    entries_of,
    said_in_table,
)
from tests.system.clients import Client, Json, answered, types
from tests.system.customers import Customer, Key, facts_in
from tests.system.ledgers import SOUND, admin_token, differences, direct
from tests.system.processes import Server, Servers, eventually, run_json

ROUNDS = 6
CUSTOMERS = 4


def test_acknowledged_changes_survive_every_kill(servers: Servers) -> None:
    random = Random(3)
    server = servers.start()
    admin = answered(server.client().create("admin", ["*"], workspace="default"), 201)
    customers = [Customer(number, Random(number)) for number in range(CUSTOMERS)]
    left_unanswered = 0
    signed: list[Said] = []
    for _ in range(ROUNDS):
        _work_until_killed(server, customers, admin["token"], acknowledged=random.randrange(50))
        left_unanswered += sum(customer.unanswered is not None for customer in customers)
        signed += _check_checkpoints(servers.data_dir)
        server = servers.start()
        client = server.client(admin["token"])
        for customer in customers:
            customer.settle(client)
        keys = {key.key_id: key for customer in customers for key in customer.keys.values()}
        listed = {each["key_id"]: each for each in client.list_keys()}
        assert listed.keys() == keys.keys() | {admin["key_id"]}
        for key in keys.values():
            _check_row(key, listed[key.key_id])
        for customer in customers:
            for key_id in customer.touched:
                _check_life(keys[key_id], client)
            customer.touched.clear()
        assert differences(servers.data_dir) == SOUND
    for key in keys.values():
        _check_life(key, client)
    assert left_unanswered > 0
    assert server.stop() == -SIGTERM
    last = _check_checkpoints(servers.data_dir)
    assert last[-1].size == len(entries_of(servers.data_dir)), "all is signed when it has stopped"
    assert set(signed) <= set(last), "no checkpoint that was seen is ever lost"


def _check_checkpoints(data_dir: Path) -> list[Said]:
    """Hold what was signed to what is on the disk, just as a killed server has left it."""
    return check_what_was_signed(data_dir) if (data_dir / "checkpoints.txt").exists() else []


def test_a_server_killed_between_commit_and_checkpoint_or_in_writing_one_goes_on(
    servers: Servers,
) -> None:
    """Changes one by one, killed a little later each time: before, while or after it is signed."""
    token = admin_token(servers.data_dir)
    with direct(servers.data_dir) as opened:
        opened.signer.sign()
    file = servers.data_dir / "checkpoints.txt"
    unsigned, seen = set(), set[Said]()
    for number in range(8):
        server = servers.start()
        client = server.client(token)
        size = file.stat().st_size
        for _ in range(3):
            answered(client.create(f"key {number}"), 201)
            seen.update(check_what_was_signed(servers.data_dir))
        if number % 2:
            eventually(partial(_has_grown, file, size), "another checkpoint is being written")
        server.kill()
        found = check_what_was_signed(servers.data_dir)
        assert seen <= set(found)
        unsigned.add(len(entries_of(servers.data_dir)) - found[-1].size)
        # As if the kill had come in the middle of the next note.
        whole = b"".join(each.note.encode() + b"\n" for each in found)
        file.write_bytes(whole + found[-1].note.encode()[: 25 * number])
    with direct(servers.data_dir) as opened:
        assert opened.signer.doubt is None
        opened.signer.sign()
    assert len(unsigned) > 1, "some kills came before what was committed was signed"
    signed = check_what_was_signed(servers.data_dir)
    assert seen <= set(signed)
    assert signed[-1].size == len(entries_of(servers.data_dir)) == 25
    assert set(said_in_table(servers.data_dir)) == set(signed)


def _has_grown(file: Path, size: int) -> bool:
    return file.stat().st_size > size


def _work_until_killed(
    server: Server, customers: list[Customer], token: str, *, acknowledged: int
) -> None:
    """Let all customers work at once; kill the server when they were told that much is done."""
    done = Semaphore(0)
    with ThreadPoolExecutor(len(customers)) as pool:
        # The clients outlive the server here: its end is what they are to notice.
        clients = [Client(server.url, token) for _ in customers]
        works = [
            pool.submit(customer.work, client, done)
            for customer, client in zip(customers, clients, strict=True)
        ]
        for _ in range(acknowledged):
            assert done.acquire(timeout=30)
        server.kill()
        for work in works:
            work.result(timeout=30)
        for client in clients:
            client.close()


def _check_row(key: Key, listed: Json) -> None:
    assert listed["name"] == key.name
    assert listed["scopes"] == key.scopes
    assert listed["rotated_from"] == key.rotated_from
    assert listed["rotated_to"] == key.rotated_to
    assert (listed["status"] == "revoked") == key.revoked


def _check_life(key: Key, client: Client) -> None:
    history = client.history(key.key_id)
    assert facts_in(history) == key.history
    assert types(history).count("Expired") <= (1 if key.ended else 0)
    if key.token is not None:
        verdict = client.verdict(key.token)
        assert verdict["code"] == key.verdict
        assert (verdict["name"], verdict["scopes"]) == (key.name, key.scopes)


STAGES: dict[str, Callable[[Path], bool]] = {
    "the pepper is there": lambda data_dir: (data_dir / "pepper").exists(),
    "the write-ahead log is there": lambda data_dir: any(data_dir.glob("*-wal")),
    "a view is being built": lambda data_dir: any(data_dir.glob("*.lock")),
}


@pytest.mark.parametrize(
    "stage",
    [
        "the pepper is there",
        pytest.param("the write-ahead log is there", marks=pytest.mark.only_on("sqlite")),
        pytest.param("a view is being built", marks=pytest.mark.only_on("sqlite")),
    ],
)
def test_a_killed_first_start_can_be_repeated(stage: str, servers: Servers) -> None:
    first = servers.begin()
    eventually(lambda: STAGES[stage](servers.data_dir), stage)
    first.kill()
    second = servers.start()
    token = first.root_token or second.root_token
    if token is None:
        # Killed after the commit and before the print: nobody knows the key's secret.
        assert [each["name"] for each in run_json(servers.data_dir, *_LIST_ROOT)["data"]] == [
            "root"
        ]
        created = run_json(servers.data_dir, *_CREATE_ROOT)
        token = created["token"]
    client = second.client(token)
    assert client.verify(token, workspace="root") == "VALID"
    assert answered(client.create("the first of many"), 201)["status"] == "active"
    assert differences(servers.data_dir) == SOUND


_LIST_ROOT = ("keys", "list", "--workspace", "root")
_CREATE_ROOT = ("keys", "create", "--workspace", "root", "--name", "root 2", "--scopes", "*")
