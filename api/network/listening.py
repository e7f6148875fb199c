"""Listening sockets: bound before anything else, and shared by all workers."""

import errno
import os
import socket
from ipaddress import ip_address

import structlog

_log = structlog.get_logger()


class CannotListen(Exception):
    """The server cannot listen on an address; the message says which and why."""


def bind(host: str, port: int) -> list[socket.socket]:
    """Bind a socket to each address of a host, without listening yet.

    The address ``::`` includes IPv4, whatever the system's default is.

    Raises:
        CannotListen: an address is in use or not usable.
    """
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:
        raise CannotListen(f"cannot listen on {host}: {_reason(error)}") from None
    bound: list[socket.socket] = []
    missing: CannotListen | None = None
    for family, address in dict.fromkeys((each[0], each[4]) for each in found):
        if port == 0 and bound:
            address = (address[0], bound[0].getsockname()[1], *address[2:])  # noqa: PLW2901
        try:
            bound.append(_bound(family, address))
        except OSError as error:
            refused = CannotListen(f"cannot listen on {_name(address)}: {_reason(error)}")
            if error.errno != errno.EADDRNOTAVAIL:
                close(bound)
                raise refused from None
            missing = refused
    if missing is not None and not bound:
        raise missing
    return bound


def close(sockets: list[socket.socket]) -> None:
    """Close all sockets."""
    for each in sockets:
        each.close()


def announce(sockets: list[socket.socket], host: str, *, tls: bool) -> None:
    """Log the address, and warn if tokens would cross a network unencrypted."""
    scheme = "https" if tls else "http"
    shown = f"[{host}]" if ":" in host else host or "0.0.0.0"  # noqa: S104 - only shown
    port = sockets[0].getsockname()[1]
    _log.info(f"Uvicorn running on {scheme}://{shown}:{port} (Press CTRL+C to quit)")
    open_to_others = [
        each
        for each in sockets
        if not ip_address(each.getsockname()[0].partition("%")[0]).is_loopback
    ]
    if open_to_others and not tls:
        _log.warning(
            "plain_http",
            address=_name(open_to_others[0].getsockname()),
            detail="tokens cross the network unencrypted unless a proxy terminates TLS: set"
            " KEYLEDGER_TLS_CERTIFICATE and KEYLEDGER_TLS_KEY, or use --host 127.0.0.1",
        )


def _bound(family: int, address: tuple[object, ...]) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            only = address[0] != "::"
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        bound.bind(address)
    except BaseException:
        bound.close()
        raise
    bound.set_inheritable(True)
    return bound


def _is_loopback(bound: socket.socket) -> bool:
    return ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback


def _name(address: tuple[object, ...]) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return "this is not a valid host name"
    reason = (error.strerror or str(error)).lower()
    if error.errno == errno.EADDRINUSE:
        return (
            f"{reason}; stop the program that listens there, or choose another port with --port or"
            " KEYLEDGER_PORT"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{reason}; choose an address of this machine with --host or KEYLEDGER_HOST"
    if error.errno == errno.EACCES and os.name == "posix":
        return f"{reason}; ports below 1024 need the capability CAP_NET_BIND_SERVICE"
    return reason
