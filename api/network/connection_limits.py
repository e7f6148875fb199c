"""Limits on the number of connections, in all and for each address."""

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
    """How many connections one process accepts.

    Args:
        total: from all addresses together.
        per_address: from one IPv4 address or one /64 network of IPv6.
        exempt: networks of trusted proxies, which speak for many clients: only ``total`` applies.
    """

    total: int
    per_address: int
    exempt: tuple[Network, ...] = ()


class Connections:
    """The connections of one process."""

    def __init__(self, limits: ClientLimits) -> None:
        self._limits = limits
        self._by_source: Counter[str] = Counter()
        self.total = 0
        """Number of connections that count."""
        self._turned_away = 0
        # Bound to this object's limits, since the networks are part of what it computes.
        self._source = lru_cache(maxsize=4096)(self._find_source)

    def enter(self, address: str | None) -> str | None:
        """Count a connection.

        Args:
            address: of the client; ``None`` if it has no IP address.

        Returns:
            What to pass to `leave`; ``None`` if there are too many connections already.
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
        """Tell whether a connection beyond the limits may stay open until it has its answer.

        Only a few may at a time, since each has a file descriptor. `turned_away` ends the time of
        one that may.
        """
        if self._turned_away >= _MOST_TURNED_AWAY:
            return False
        self._turned_away += 1
        return True

    def turned_away(self) -> None:
        """Stop counting a connection beyond the limits."""
        self._turned_away -= 1

    def _find_source(self, address: str) -> str:
        """Return the name under which a client is counted; empty if its address is exempt."""
        parsed = parsed_address(address)
        if parsed is None or any(parsed in network for network in self._limits.exempt):
            return ""
        if isinstance(parsed, IPv6Address):
            return str(ip_network((parsed, _IPV6_PREFIX), strict=False))
        return str(parsed)


def client_limits(
    total: int | None, per_address: int | None, trusted_proxies: str, database_connections: int
) -> ClientLimits:
    """Return the limits of this process; what is ``None`` is derived from its file descriptors.

    Args:
        total: of connections; no more than the file descriptors allow.
        trusted_proxies: addresses and networks, comma-separated.
        database_connections: of each pool; a pool has at most twice as many under load, and there
            is one for reading and one for writing.
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
    """Let this process and its children open as many files as the system permits it to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS_WANTED
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
