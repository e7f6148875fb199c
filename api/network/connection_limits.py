"""Limits on the number of connections, in total and per address."""

import resource
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_network

from api.network.addresses import Network, parsed_address, parsed_networks

_MOST_CONNECTIONS = 10_000
_FEWEST_CONNECTIONS = 16
_DESCRIPTORS_FOR_FILES = 128
_DESCRIPTORS_WANTED = 65_536
_IPV6_PREFIX = 64
_MOST_TURNED_AWAY = 32


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Maximum numbers of connections of one process.

    Args:
        total: from all addresses together.
        per_address: from one IPv4 address or one IPv6 /64 network.
        exempt: networks of trusted proxies, which connect for many clients; only ``total`` applies.
    """

    total: int
    per_address: int
    exempt: tuple[Network, ...] = ()


class Connections:
    """Counts the connections of one process."""

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._by_source: Counter[str] = Counter()
        self.total = 0
        """Number of connections that count towards the limits."""
        self._turned_away = 0
        # One cache per object, because the result depends on this object's limits.
        self._source = lru_cache(maxsize=4096)(self._find_source)

    def enter(self, address: str | None) -> str | None:
        """Count a connection.

        Args:
            address: address of the client; ``None`` if it has no IP address.

        Returns:
            The value to pass to `leave`; ``None`` if there are too many connections.
        """
        source = "" if address is None else self._source(address)
        if self.total >= self._limits.total:
            return None
        if source:
            if self._by_source[source] >= self._limits.per_address:
                return None
            self._by_source[source] += 1
        self.total += 1
        return source

    def leave(self, source: str) -> None:
        """Stop counting a connection."""
        self.total -= 1
        if source:
            self._by_source[source] -= 1
            if not self._by_source[source]:
                del self._by_source[source]

    def turn_away(self) -> bool:
        """Return whether a connection beyond the limits may stay open until it is answered.

        Only a few may at a time, because each uses a file descriptor. Call `turned_away` when one
        of these has ended.
        """
        if self._turned_away >= _MOST_TURNED_AWAY:
            return False
        self._turned_away += 1
        return True

    def turned_away(self) -> None:
        """Stop counting a connection that was beyond the limits."""
        self._turned_away -= 1

    def _find_source(self, address: str) -> str:
        """Return the name under which a client is counted; empty if it is exempt."""
        parsed = parsed_address(address)
        if parsed is None or any(parsed in network for network in self._limits.exempt):
            return ""
        if isinstance(parsed, IPv6Address):
            return str(ip_network((parsed, _IPV6_PREFIX), strict=False))
        return str(parsed)


def client_limits(
    total: int | None, per_address: int | None, trusted_proxies: str, database_connections: int
) -> ClientLimits:
    """Return the limits of this process; derive missing ones from its file descriptors.

    Args:
        total: number of connections; limited by the file descriptors.
        trusted_proxies: addresses and networks, separated by commas.
        database_connections: size of each pool. Under load a pool may have twice as many, and there
            is one pool for reading and one for writing.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        descriptors = _DESCRIPTORS_WANTED
    kept = _DESCRIPTORS_FOR_FILES + 4 * database_connections
    allowed = max(_FEWEST_CONNECTIONS, descriptors - kept)
    total = min(allowed, _MOST_CONNECTIONS if total is None else total)
    if per_address is None:
        per_address = max(1, total // 4)
    return ClientLimits(total, per_address, parsed_networks(trusted_proxies))


def raise_descriptor_limit() -> None:
    """Raise this process's limit of open files, up to what the system permits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS_WANTED
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
