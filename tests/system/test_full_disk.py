"""A full disk stops changes, and affects neither answers nor history."""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

import httpx
import pytest

from tests.system.clients import Client, answered, types
from tests.system.ledgers import SOUND, admin_token, differences, make_keys
from tests.system.processes import Server, Servers, eventually

pytestmark = [
    pytest.mark.skipif(
        sys.platform != "linux", reason="only there can a running process be given limits"
    ),
    # The disk of a server is the server's.
    pytest.mark.only_on("sqlite"),
]


@dataclass(frozen=True)
class Served:
    """A ledger with a server, a client of it, and one of the root workspace."""

    servers: Servers
    server: Server
    token: str
    client: Client
    operator: Client


@pytest.fixture
def served(servers: Servers) -> Served:
    token, root = admin_token(servers.data_dir), admin_token(servers.data_dir, "root")
    server = servers.start(expirer_seconds=0.02)
    make_keys(servers.data_dir, [f"key {n}" for n in range(100)])
    return Served(servers, server, token, server.client(token), server.client(root))


def _check_refused(response: httpx.Response) -> None:
    assert answered(response, 503)["code"] == "LEDGER_UNAVAILABLE"
    assert response.headers["Content-Type"] == "application/problem+json"
    assert int(response.headers["Retry-After"]) > 0


def test_changes_are_refused_whole_and_verification_goes_on(served: Served) -> None:
    client = served.client
    good = answered(client.create("good"), 201)
    bad = answered(client.create("bad"), 201)
    answered(client.revoke(bad["key_id"]))
    keys = client.list_keys()
    with served.server.full_disk():
        for _ in range(3):
            _check_refused(client.create("made at last", idempotency_key="once"))
            _check_refused(client.revoke(good["key_id"]))
            _check_refused(client.rotate(good["key_id"], 60))
            _check_refused(client.update(good["key_id"], name="never", scopes=["never:ever"]))
            assert client.verify(good["token"]) == "VALID"
            assert client.verify(bad["token"]) == "REVOKED"
            assert client.list_keys() == keys
            assert types(client.history(good["key_id"])) == ["Created"]
            assert client.http.get("/readyz").status_code == 200
    # There is room again, and nobody needs to restart anything.
    answered(client.revoke(good["key_id"]))
    assert client.verify(good["token"]) == "REVOKED"
    made = answered(client.create("made at last", idempotency_key="once"), 201)
    assert client.verify(made["token"]) == "VALID"
    assert len(client.list_keys()) == len(keys) + 1
    assert differences(served.servers.data_dir) == SOUND


def test_nothing_is_half_done_after_a_restart(served: Served) -> None:
    good = answered(served.client.create("good"), 201)
    keys = served.client.list_keys()
    with served.server.full_disk():
        _check_refused(served.client.revoke(good["key_id"]))
        _check_refused(served.client.create("never made"))
        served.server.kill()
    client = served.servers.start().client(served.token)
    assert client.list_keys() == keys
    assert client.verify(good["token"]) == "VALID"
    answered(client.revoke(good["key_id"]))
    assert client.verify(good["token"]) == "REVOKED"
    assert differences(served.servers.data_dir) == SOUND


def test_expired_keys_are_refused_and_recorded_once_there_is_disk_space(served: Served) -> None:
    client = served.client
    end = datetime.now(UTC) + timedelta(seconds=1)
    (key,) = make_keys(served.servers.data_dir, ["short-lived"], expires_at=end)
    with served.server.full_disk():
        eventually(lambda: "expirer_failed" in served.server.log, "the expirer has failed")
        assert client.verify(key.token) == "EXPIRED"
        assert types(client.history(key.key_id)) == ["Created"]
    failed = next(line for line in served.server.log_lines if line["event"] == "expirer_failed")
    # It may come every second: why, in a line, and no traceback.
    assert failed["cause"]
    assert "exception" not in failed
    eventually(lambda: len(client.history(key.key_id)) > 1, "the end is recorded")
    assert types(client.history(key.key_id)) == ["Created", "Expired"]


def test_a_rebuild_fails_leaves_the_old_view_and_can_be_repeated(served: Served) -> None:
    keys = served.client.list_keys()
    with served.server.full_disk():
        answered(served.operator.rebuild("key_list"), 202)
        eventually(partial(_is_over, served.operator, "failed"), "the rebuild has failed")
        assert served.client.list_keys() == keys
    answered(served.operator.rebuild("key_list"), 202)
    eventually(partial(_is_over, served.operator, "done"), "the rebuild is done")
    assert served.client.list_keys() == keys
    assert differences(served.servers.data_dir) == SOUND


def _is_over(operator: Client, end: str) -> bool:
    state = operator.projections()["key_list"]["rebuild"]["state"]
    assert state in ("running", end)
    return bool(state == end)
