"""Keys expire by the clock; the servers only record it, once, however many they are."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from domain.times import to_text
from tests.engines import address_of
from tests.raw_sql import raw
from tests.system.clients import Client, answered, types
from tests.system.ledgers import SOUND, MadeKey, admin_token, differences, make_keys
from tests.system.processes import Servers, eventually

LIFE = timedelta(seconds=2)


def _short_lived(servers: Servers, names: list[str]) -> list[MadeKey]:
    """Make keys whose lives are long enough to make them in, on however busy a machine."""
    return make_keys(servers.data_dir, names, expires_at=datetime.now(UTC) + LIFE)


def _recorded(servers: Servers) -> int:
    with raw(address_of(servers.data_dir)) as connection:
        row = connection.execute("SELECT count(*) FROM events WHERE topic = 'ApiKey.Expired'")
        count: int = row.fetchone()[0]
    return count


def _check_ended_once(client: Client, keys: Sequence[MadeKey]) -> None:
    for key in keys:
        history = client.history(key.key_id)
        assert types(history) == ["Created", "Expired"]
        assert history[1]["actor"] == {"type": "system", "id": "expirer"}
        assert client.verify(key.token) == "EXPIRED"
        assert client.show(key.key_id)["status"] == "expired"


def test_a_key_is_refused_from_its_end_even_without_an_expired_event(
    servers: Servers,
) -> None:
    token = admin_token(servers.data_dir)
    client = servers.start(expirer_seconds=3600).client(token)
    end = datetime.now(UTC) + timedelta(seconds=1.5)
    created = answered(client.create("short-lived", expires_at=to_text(end)), 201)
    codes = set()
    while (asked := datetime.now(UTC)) < end:
        code = client.verify(created["token"])
        if datetime.now(UTC) < end:
            codes.add(code)
    assert codes == {"VALID"}
    assert asked >= end
    assert client.verify(created["token"]) == "EXPIRED"
    assert client.show(created["key_id"])["status"] == "expired"
    assert [key["key_id"] for key in client.list_keys(status="expired")] == [created["key_id"]]
    assert types(client.history(created["key_id"])) == ["Created"]
    # Its own token opens nothing either.
    own = {"Authorization": f"Bearer {created['token']}"}
    assert answered(client.http.get("/v1/keys", headers=own), 401)["code"] == "EXPIRED"


def test_two_servers_record_each_end_once_and_after_a_pause_they_catch_up(
    servers: Servers,
) -> None:
    token = admin_token(servers.data_dir)
    for _ in range(2):
        servers.start(expirer_seconds=0.01)
    one, other = (server.client(token) for server in servers.started)
    together = _short_lived(servers, [f"together {n}" for n in range(50)])
    apart = [key for n in range(50) for key in _short_lived(servers, [f"apart {n}"])]
    eventually(lambda: _recorded(servers) >= 100, "all ends are recorded")
    _check_ended_once(one, together)
    _check_ended_once(other, apart)
    for server in servers.started:
        server.stop()
    missed = _short_lived(servers, [f"missed {n}" for n in range(50)])
    ended = datetime.now(UTC) + LIFE
    eventually(lambda: datetime.now(UTC) > ended, "the keys have ended")
    assert _recorded(servers) == 100
    again = [servers.begin(expirer_seconds=0.01) for _ in range(2)]
    clients = [server.wait_until_ready().client(token) for server in again]
    # Whoever asks at once need not wait until it is recorded.
    assert clients[0].verify(missed[0].token) == "EXPIRED"
    eventually(lambda: _recorded(servers) >= 150, "the missed ends are recorded")
    _check_ended_once(clients[1], missed)
    assert _recorded(servers) == 150
    assert differences(servers.data_dir) == SOUND
