"""Environment variables that Kubernetes sets in each container for every Service of the namespace.

A Service named ``keyledger`` or ``keyledger-postgresql`` adds variables that begin like settings of
Keyledger and are not settings. (Kubernetes documentation, "Service: environment variables".)
"""

import re

_SERVICE = r"KEYLEDGER(?:_[A-Z0-9_]+)?"
_PROTOCOL = r"(?:tcp|udp|sctp)"
_PORT = rf"{_SERVICE}_PORT_\d+_{_PROTOCOL.upper()}"
_ADDRESS = r"[0-9a-fA-F:.]+"
_LINK = rf"{_PROTOCOL}://\[?{_ADDRESS}\]?:\d+"
_VARIABLES = tuple(
    (re.compile(name), re.compile(value, re.ASCII))
    for name, value in (
        (rf"{_SERVICE}_SERVICE_HOST", _ADDRESS),
        (rf"{_SERVICE}_SERVICE_PORT(?:_[A-Z0-9_]+)?", r"\d+"),
        (rf"{_SERVICE}_PORT", _LINK),
        (_PORT, _LINK),
        (rf"{_PORT}_ADDR", _ADDRESS),
        (rf"{_PORT}_PORT", r"\d+"),
        (rf"{_PORT}_PROTO", _PROTOCOL),
    )
)


def is_of_kubernetes(name: str, value: str) -> bool:
    """Return whether an environment variable describes a Service.

    Both name and value must match, so that a misspelt setting is still reported.
    """
    return any(named.fullmatch(name) and valued.fullmatch(value) for named, valued in _VARIABLES)
