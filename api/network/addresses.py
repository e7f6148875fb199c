"""The client's address: the peer's, or the one that a trusted proxy reports."""

from collections.abc import Iterable
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Scope

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LONGEST_ADDRESS = 64
_MAPPED_PREFIX = 96
_SCHEMES = {b"http": "http", b"https": "https"}


def parsed_networks(proxies: str) -> tuple[Network, ...]:
    """Parse a comma-separated list of addresses and networks.

    Raises:
        ValueError: an entry is neither; the message quotes it.
    """
    entries = [each.strip() for each in proxies.split(",")] if proxies.strip() else []
    return tuple(_network(entry) for entry in entries)


def _network(entry: str) -> Network:
    if entry == "*":
        raise ValueError(
            "with * every client could choose its own address: name the proxies, or use"
            " 0.0.0.0/0,::/0 if only proxies can reach the port"
        )
    try:
        network = ip_network(entry)
    except ValueError:
        raise ValueError(
            f"{entry[:_LONGEST_ADDRESS]!r} is neither an IP address nor a network such as"
            " 10.0.0.0/8 (all bits after the prefix are 0)"
        ) from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is not None and network.prefixlen >= _MAPPED_PREFIX:
        return IPv4Network((mapped, network.prefixlen - _MAPPED_PREFIX))
    return network


def parsed_address(text: str) -> Address | None:
    """Parse an IP address, an IPv4-mapped one as IPv4; return ``None`` if the text is not one.

    A port after it is ignored, and so is the zone of a link-local address.
    """
    text = text.strip().strip('"')
    if len(text) > _LONGEST_ADDRESS:
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


class Forwarded:
    """Sets the client address and the scheme of each request.

    The client is an IP address or unknown. ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are used
    only if a trusted proxy sent them.
    """

    def __init__(self, trusted: Iterable[Network]) -> None:
        self._trusted = tuple(trusted)

    def set_client(self, scope: "Scope") -> None:
        """Set the client's address and scheme."""
        client = scope.get("client")
        peer = parsed_address(client[0]) if client else None
        if peer is not None and self._is_trusted(peer):
            headers = scope["headers"]
            # Each proxy appends the address of its client at the end (RFC 7239, section 5.2).
            hops = b",".join(value for name, value in headers if name == b"x-forwarded-for")
            peer = self._client_of(hops.decode("latin-1"), peer)
            said = [value for name, value in headers if name == b"x-forwarded-proto"]
            if said:
                nearest = said[-1].rpartition(b",")[2].strip().lower()
                scope["scheme"] = _SCHEMES.get(nearest, scope["scheme"])
        scope["client"] = None if peer is None else (str(peer), client[1] if client else 0)

    def _client_of(self, hops: str, peer: Address) -> Address:
        """Return the last address that is not a trusted proxy's, as far as the list is valid."""
        for hop in reversed(hops.split(",") if hops else []):
            address = parsed_address(hop)
            if address is None:
                return peer
            peer = address
            if not self._is_trusted(address):
                return peer
        return peer

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)
