"""Connection limits: per IPv4 address, per IPv6 /64 network, and in total."""

import resource
from collections.abc import Iterator

import pytest

from api.network.addresses import parsed_networks
from api.network.connection_limits import ClientLimits, Connections, client_limits

# None of these rules depends on where the ledger is kept.
pytestmark = pytest.mark.only_on("sqlite")


def of_an_address(*, exempt: str = "") -> Connections:
    return Connections(ClientLimits(total=5, per_address=2, exempt=parsed_networks(exempt)))


@pytest.mark.parametrize(
    ("first", "same", "other"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", "2001:db8:0:1::1"),
        ("::ffff:192.0.2.1", "192.0.2.1", "::ffff:192.0.2.2"),
    ],
)
def test_an_address_has_a_limit_and_closed_connections_free_it(
    first: str, same: str, other: str
) -> None:
    connections = of_an_address()
    sources = [connections.enter(each) for each in (first, same)]
    assert None not in sources
    assert connections.enter(first) is connections.enter(same) is None
    assert connections.enter(other) is not None
    assert sources[0] is not None
    connections.leave(sources[0])
    assert connections.enter(same) is not None
    assert connections.enter(first) is None


def test_trusted_proxies_have_no_share_and_count_in_all() -> None:
    connections = of_an_address(exempt="192.0.2.0/24, 2001:db8::/32")
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::1"):
        assert connections.enter(address) is not None
    assert connections.enter("198.51.100.1") is None


def test_a_client_without_an_address_counts_towards_the_total() -> None:
    connections = of_an_address()
    for _ in range(5):
        assert connections.enter(None) == ""
    assert connections.enter(None) is None
    connections.leave("")
    assert connections.enter(None) == ""


def test_few_of_those_beyond_the_limits_have_a_descriptor_at_a_time() -> None:
    connections = of_an_address()
    told = sum(connections.turn_away() for _ in range(1000))
    assert 0 < told < 100
    connections.turned_away()
    assert [connections.turn_away(), connections.turn_away()] == [True, False]


@pytest.fixture(params=[256, 1000])
def descriptors(request: pytest.FixtureRequest) -> Iterator[int]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (request.param, before[1]))
    yield request.param
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("total", [None, 1, 500, 100_000])
@pytest.mark.parametrize("database_connections", [2, 100])
def test_no_setting_takes_the_descriptors_of_files_and_the_database(
    descriptors: int, total: int | None, database_connections: int
) -> None:
    limits = client_limits(total, None, "", database_connections)
    assert limits.total >= 1
    assert limits.total <= max(16, descriptors - 4 * database_connections - 100)
    assert limits.per_address <= limits.total
    if total is not None and total < 16:
        assert limits.total == total
