"""Loads of token verifications, and the formatting of their results."""

from benchmarks.load import Demand, Load, http_request, result, start


def forward_auth(token: str) -> str:
    """Return a forward-auth request for the scope ``mcp:read``, as bytes on the wire."""
    return http_request("GET", "/v1/forward-auth?scope=mcp:read", token)


def answered(demand: Demand) -> Load:
    """Generate a load, and require the expected status for every answer."""
    load = result(start(demand))
    if load.wrong:
        raise RuntimeError(f"{load.wrong} answers were not {demand.status}")
    return load


def rate(load: Load) -> str:
    """Return the answers per second, as text."""
    return f"{load.rate:,.0f}/s"


def times(load: Load) -> str:
    """Return the response times, as text."""
    return f"p50 {load.p50 * 1e3:.2f} ms, p99 {load.p99 * 1e3:.2f} ms"


def figures(load: Load) -> str:
    """Return both, as text."""
    return f"{rate(load)}; {times(load)}"
