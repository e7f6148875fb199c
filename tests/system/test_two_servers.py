"""Two servers on one file: the other one knows an acknowledged change at its next call."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import cycle, islice

import pytest

from domain.times import from_text, to_text
from tests.system.clients import Client, answered, at_once, types
from tests.system.ledgers import SOUND, admin_token, differences, make_keys
from tests.system.processes import Servers, servers_in


@dataclass(frozen=True)
class Pair:
    """Two servers on one ledger, and a client of each."""

    servers: Servers
    token: str

    @property
    def clients(self) -> tuple[Client, Client]:
        one, other = self.servers.started
        return one.client(self.token), other.client(self.token)

    def many(self, count: int) -> list[Client]:
        """Return clients with connections of their own, of both servers in turn."""
        return [server.client(self.token) for server in islice(cycle(self.servers.started), count)]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with servers_in(tmp_path_factory.mktemp("pair")) as servers:
        token = admin_token(servers.data_dir)
        both = [servers.begin(expirer_seconds=0.05) for _ in range(2)]
        for server in both:
            server.wait_until_ready()
        yield Pair(servers, token)
        assert differences(servers.data_dir) == SOUND


def test_two_servers_that_start_on_a_new_ledger_at_once_make_one_root_key(
    servers: Servers,
) -> None:
    for _ in range(2):
        servers.begin()
    (token,) = [
        server.root_token
        for server in [each.wait_until_ready() for each in servers.started]
        if server.root_token is not None
    ]
    for server in servers.started:
        assert [key["name"] for key in server.client(token).list_keys(workspace="root")] == ["root"]


def test_a_revoked_key_is_refused_by_the_other_server_at_its_very_next_call(pair: Pair) -> None:
    keys = make_keys(pair.servers.data_dir, [f"revoked {n}" for n in range(300)])
    for key, (one, other) in zip(keys, cycle((pair.clients, pair.clients[::-1])), strict=False):
        assert other.verify(key.token) == "VALID"
        answered(one.revoke(key.key_id))
        assert other.verify(key.token) == "REVOKED"


def test_a_revoked_credential_is_refused_by_the_other_server_at_its_very_next_call(
    pair: Pair,
) -> None:
    keys = make_keys(pair.servers.data_dir, [f"caller {n}" for n in range(50)])
    one, other = pair.clients
    for key in keys:
        caller = {"Authorization": f"Bearer {key.token}"}
        assert other.http.get("/v1/keys", headers=caller).status_code == 403
        answered(one.revoke(key.key_id))
        refused = answered(other.http.get("/v1/keys", headers=caller), 401)
        assert refused["code"] == "REVOKED"


def test_a_key_rotated_without_grace_is_refused_by_the_other_server_at_its_very_next_call(
    pair: Pair,
) -> None:
    keys = make_keys(pair.servers.data_dir, [f"rotated {n}" for n in range(50)])
    one, other = pair.clients
    for key in keys:
        assert other.verify(key.token) == "VALID"
        successor = answered(one.rotate(key.key_id), 201)
        assert other.verify(key.token) == "EXPIRED"
        assert other.verify(successor["token"]) == "VALID"


def test_the_other_server_sees_a_change_at_its_next_call(pair: Pair) -> None:
    (key,) = make_keys(pair.servers.data_dir, ["changed"])
    one, other = pair.clients
    for number in range(100):
        scopes = [f"change:{number}"]
        answered(one.update(key.key_id, name=f"changed {number}", scopes=scopes))
        verdict = other.verdict(key.token)
        assert (verdict["name"], verdict["scopes"]) == (f"changed {number}", scopes)
        assert other.show(key.key_id)["name"] == f"changed {number}"


def test_an_end_that_one_server_sets_is_kept_by_the_other_to_the_moment(pair: Pair) -> None:
    one, other = pair.clients
    for key in make_keys(pair.servers.data_dir, [f"ended {n}" for n in range(5)]):
        assert other.verify(key.token) == "VALID"
        end = datetime.now(UTC) + timedelta(milliseconds=500)
        changed = answered(one.update(key.key_id, expires_at=to_text(end)))
        assert from_text(changed["expires_at"]) == end
        code = "VALID"
        while code == "VALID":
            asked = datetime.now(UTC)
            code = other.verify(key.token)
            # Both servers read this machine's clock.
            if code == "VALID":
                assert asked < end
            else:
                assert datetime.now(UTC) >= end
        assert code == "EXPIRED"


def test_nothing_that_is_created_through_both_at_once_is_lost(pair: Pair) -> None:
    clients = pair.many(8)

    def create(client: Client, number: int) -> list[str]:
        created = [client.create(f"together {number}.{n}", ["mcp:read"]) for n in range(8)]
        return [answered(each, 201)["key_id"] for each in created]

    made = at_once([partial(create, client, number) for number, client in enumerate(clients)])
    key_ids = {key_id for some in made for key_id in some}
    assert len(key_ids) == 64
    one, other = (client.list_keys(q="together") for client in pair.clients)
    assert one == other
    assert {key["key_id"] for key in one} == key_ids


def test_revoking_a_key_many_times_at_once_revokes_it_once(pair: Pair) -> None:
    clients = pair.many(8)
    for key in make_keys(pair.servers.data_dir, [f"revoked at once {n}" for n in range(15)]):
        revoked = [
            answered(each)
            for each in at_once(
                [
                    partial(client.revoke, key.key_id, f"by {number}")
                    for number, client in enumerate(clients)
                ]
            )
        ]
        history = clients[0].history(key.key_id)
        assert types(history) == ["Created", "Revoked"]
        # All were told of the one revocation that there is.
        assert {each["revoke_reason"] for each in revoked} == {history[1]["data"]["reason"]}
        assert {each["version"] for each in revoked} == {2}


def test_a_revocation_is_not_lost_to_changes_made_at_the_same_time(pair: Pair) -> None:
    clients = pair.many(6)
    for key in make_keys(pair.servers.data_dir, [f"disputed {n}" for n in range(30)]):

        def rename(client: Client, name: str, key_id: str = key.key_id) -> int:
            return client.update(key_id, name=name).status_code

        def revoke(key_id: str = key.key_id) -> int:
            return clients[0].revoke(key_id).status_code

        calls: list[Callable[[], int]] = [revoke]
        calls += [partial(rename, client, f"{n}") for n, client in enumerate(clients[1:])]
        statuses = at_once(calls)
        assert statuses[0] == 200
        assert set(statuses[1:]) <= {200, 409}
        recorded = types(clients[0].history(key.key_id))
        assert recorded == ["Created", *["Renamed"] * statuses[1:].count(200), "Revoked"]
        assert {client.verify(key.token) for client in clients} == {"REVOKED"}


def test_of_many_rotations_at_once_one_succeeds(pair: Pair) -> None:
    clients = pair.many(6)
    for number, key in enumerate(make_keys(pair.servers.data_dir, [f"spun {n}" for n in range(6)])):
        grace = 3600 * (number % 2)
        answers = at_once([partial(client.rotate, key.key_id, grace) for client in clients])
        (won,) = [each.json() for each in answers if each.status_code == 201]
        lost = [each for each in answers if each.status_code != 201]
        assert {answered(each, 409)["code"] for each in lost} == {"ALREADY_ROTATED"}
        successors = [
            each["key_id"]
            for each in clients[0].list_keys(q=key.name)
            if each["rotated_from"] == key.key_id
        ]
        assert successors == [won["key_id"]]
        assert clients[1].show(key.key_id)["rotated_to"] == won["key_id"]
        assert types(clients[0].history(key.key_id))[:2] == ["Created", "Rotated"]


def test_every_change_that_was_answered_with_success_is_in_the_history_once(pair: Pair) -> None:
    clients = pair.many(8)
    conflicts = 0
    for key in make_keys(pair.servers.data_dir, [f"renamed {n}" for n in range(10)]):

        def rename(client: Client, number: int, key_id: str = key.key_id) -> list[tuple[str, int]]:
            names = [f"{number}.{n}" for n in range(4)]
            return [(name, client.update(key_id, name=name).status_code) for name in names]

        answers = at_once([partial(rename, client, n) for n, client in enumerate(clients)])
        outcomes = [outcome for some in answers for outcome in some]
        assert {status for _, status in outcomes} <= {200, 409}
        history = clients[0].history(key.key_id)
        recorded = [event["data"]["name"] for event in history[1:]]
        assert sorted(recorded) == sorted(name for name, status in outcomes if status == 200)
        assert clients[1].show(key.key_id)["name"] == recorded[-1]
        conflicts += len(outcomes) - len(recorded)
    assert conflicts > 0


def test_of_many_changes_of_the_same_version_one_succeeds(pair: Pair) -> None:
    clients = pair.many(8)

    def rename(client: Client, key_id: str, number: int) -> int:
        return client.http.patch(
            f"/v1/keys/{key_id}",
            json={"name": f"the name by {number}"},
            headers={"If-Match": '"1"'},
        ).status_code

    for key in make_keys(pair.servers.data_dir, [f"matched {n}" for n in range(10)]):
        calls = [partial(rename, client, key.key_id, n) for n, client in enumerate(clients)]
        statuses = at_once(calls)
        assert statuses.count(200) == 1
        assert set(statuses) <= {200, 409, 412}
        assert types(clients[0].history(key.key_id)) == ["Created", "Renamed"]


@pytest.mark.parametrize("action", ["create", "rotate"])
def test_a_request_that_is_sent_to_both_at_once_makes_one_key(pair: Pair, action: str) -> None:
    clients = pair.many(6)
    for key in make_keys(pair.servers.data_dir, [f"{action} once {n}." for n in range(5)]):
        if action == "create":
            send = partial(Client.create, name=f"{key.name} again", idempotency_key=key.key_id)
        else:
            send = partial(Client.rotate, key_id=key.key_id, idempotency_key=key.key_id)
        answers = [
            answered(each, 201) for each in at_once([partial(send, client) for client in clients])
        ]
        (made,) = {each["key_id"] for each in answers}
        (token,) = [each["token"] for each in answers if each["token"] is not None]
        assert clients[0].verify(token) == "VALID"
        listed = {each["key_id"] for each in clients[1].list_keys(q=key.name)}
        assert listed == {key.key_id, made}
