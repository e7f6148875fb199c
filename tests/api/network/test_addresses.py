"""The client of a request: an IP address, from a trusted proxy or from the connection."""

from typing import Any

import pytest

from api.network.addresses import Forwarded, parsed_address, parsed_networks

PROXY, CLIENT, SPOOFED = "192.0.2.1", "203.0.113.9", "198.51.100.7"


def client_of(
    *forwarded: str,
    peer: str | None = PROXY,
    trusted: str = "192.0.2.1,10.0.0.0/8,fd00::/8",
    protocol: str | None = None,
) -> tuple[str | None, str]:
    """Return the client and the scheme of a request."""
    headers = [(b"x-forwarded-for", each.encode("latin-1")) for each in forwarded]
    if protocol is not None:
        headers.append((b"x-forwarded-proto", protocol.encode()))
    scope: dict[str, Any] = {
        "type": "http",
        "scheme": "http",
        "client": peer and (peer, 50_000),
        "headers": headers,
    }
    Forwarded(parsed_networks(trusted)).set_client(scope)
    return scope["client"] and scope["client"][0], scope["scheme"]


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ([CLIENT], CLIENT),
        ([f"{SPOOFED}, {CLIENT}"], CLIENT),
        ([SPOOFED, CLIENT], CLIENT),
        ([f"{CLIENT}, 10.1.2.3, 192.0.2.1"], CLIENT),
        ([CLIENT, "10.1.2.3"], CLIENT),
        (["10.1.2.3"], "10.1.2.3"),
        ([f"{CLIENT}:4711"], CLIENT),
        (["2001:db8::9"], "2001:db8::9"),
        (["[2001:db8::9]:4711"], "2001:db8::9"),
        (['"[2001:db8::9]"'], "2001:db8::9"),
        ([f"::ffff:{CLIENT}"], CLIENT),
        (["fe80::1%eth0"], "fe80::1"),
        ([], PROXY),
        ([""], PROXY),
        (["unknown"], PROXY),
        ([f"{CLIENT}, unknown"], PROXY),
        ([f"{CLIENT}, "], PROXY),
        (["key_" + "A" * 65], PROXY),
        ([f"{SPOOFED}, nonsense, 10.1.2.3"], "10.1.2.3"),
        (["1" * 100_000], PROXY),
        (["\x00\xff"], PROXY),
        (["127.1"], PROXY),
    ],
)
def test_the_last_address_that_is_no_proxys_is_the_client(
    forwarded: list[str], client: str
) -> None:
    assert client_of(*forwarded) == (client, "http")


@pytest.mark.parametrize("peer", [SPOOFED, "2001:db8::1", f"::ffff:{SPOOFED}"])
def test_headers_from_untrusted_peers_are_ignored(peer: str) -> None:
    taken, scheme = client_of(CLIENT, peer=peer, protocol="https")
    assert (taken, scheme) == (str(parsed_address(peer)), "http")


@pytest.mark.parametrize(
    "trusted", [PROXY, f"::ffff:{PROXY}", "192.0.2.0/24", "::ffff:192.0.2.0/120"]
)
@pytest.mark.parametrize("peer", [PROXY, f"::ffff:{PROXY}"])
def test_ipv4_mapped_addresses_are_compared_and_recorded_as_ipv4(trusted: str, peer: str) -> None:
    assert client_of(CLIENT, peer=peer, trusted=trusted) == (CLIENT, "http")
    assert client_of(peer=peer, trusted=trusted) == (PROXY, "http")


@pytest.mark.parametrize(
    ("protocol", "scheme"),
    [
        ("https", "https"),
        ("HTTPS", "https"),
        ("http", "http"),
        ("https, http", "http"),
        ("x", "http"),
    ],
)
def test_the_scheme_is_what_the_nearest_proxy_says(protocol: str, scheme: str) -> None:
    assert client_of(CLIENT, protocol=protocol) == (CLIENT, scheme)


@pytest.mark.parametrize("peer", [None, "", "testclient", "/run/keyledger.sock"])
def test_a_client_that_is_not_an_address_is_unknown(peer: str | None) -> None:
    assert client_of(CLIENT, peer=peer, trusted="0.0.0.0/0,::/0")[0] is None


def test_no_proxy_is_trusted_unless_named() -> None:
    assert parsed_networks("") == parsed_networks("  ") == ()
    assert client_of(CLIENT, trusted="") == (PROXY, "http")
