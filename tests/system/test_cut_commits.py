"""A commit whose answer was lost: a repeated request is told so, and creates nothing new."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import URL

from tests.postgresql import connected, create_database, initdb, running_server
from tests.programs import needs
from tests.system.clients import Client, answered, types
from tests.system.cut_commits import Proxy, cutting
from tests.system.processes import servers_in

HOUR = 3600

pytestmark = needs(initdb(), "postgresql")


@dataclass
class Cut:
    """A server behind a proxy."""

    proxy: Proxy
    client: Client
    database: URL

    def events(self) -> int:
        """Return how many events there are, asked past the proxy."""
        with connected(self.database) as connection:
            (count,) = connection.execute(b"SELECT count(*) FROM events").fetchone() or (0,)
        return int(str(count))


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cut]:
    with running_server() as postgresql, servers_in(tmp_path_factory.mktemp("cut")) as servers:
        url = postgresql.url("ledger")
        create_database(url)
        with cutting(url) as (proxy, through):
            address = through.render_as_string(hide_password=False)
            # What it records by itself is none of the commands that are counted.
            server = servers.start(database_url=address, expirer_seconds=HOUR)
            yield Cut(proxy, server.client(), url)


def test_a_key_is_made_once(cut: Cut) -> None:
    before = cut.events()
    cut.proxy.cut_next_commit_of("made once")
    refused = answered(cut.client.create("made once", idempotency_key="create-1"), 503)
    assert refused["code"] == "LEDGER_UNAVAILABLE"
    assert (cut.proxy.cut, cut.events()) == (1, before + 1)
    made = answered(cut.client.create("made once", idempotency_key="create-1"), 201)
    assert made["token"] is None
    assert [each["key_id"] for each in cut.client.list_keys(q="made once")] == [made["key_id"]]
    assert cut.events() == before + 1


def test_a_key_is_rotated_once(cut: Cut) -> None:
    made = answered(cut.client.create("rotated once"), 201)
    before, cuts = cut.events(), cut.proxy.cut
    cut.proxy.cut_next_commit_of("rotated once")
    answered(cut.client.rotate(made["key_id"], idempotency_key="rotate-1"), 503)
    assert (cut.proxy.cut, cut.events()) == (cuts + 1, before + 2)
    successor = answered(cut.client.rotate(made["key_id"], idempotency_key="rotate-1"), 201)
    assert successor["token"] is None
    assert cut.client.show(made["key_id"])["rotated_to"] == successor["key_id"]
    assert cut.client.verify(made["token"]) == "EXPIRED"
    assert cut.events() == before + 2


def test_a_key_is_revoked_once_and_refused_from_the_commit_on(cut: Cut) -> None:
    made = answered(cut.client.create("revoked once"), 201)
    assert cut.client.verify(made["token"]) == "VALID"
    cuts = cut.proxy.cut
    cut.proxy.cut_next_commit_of("leaked for once")
    answered(cut.client.revoke(made["key_id"], "leaked for once"), 503)
    assert cut.proxy.cut == cuts + 1
    assert cut.client.verify(made["token"]) == "REVOKED"
    revoked = answered(cut.client.revoke(made["key_id"], "said again"))
    assert revoked["revoke_reason"] == "leaked for once"
    assert types(cut.client.history(made["key_id"])) == ["Created", "Revoked"]
