"""Loads of checks of tokens, and how their figures are written."""

from benchmarks.load import Demand, Load, http_request, result, start


def forward_auth(token: str) -> str:
    """Return a gateway's question whether a token may read, as it goes over the wire."""
    return http_request("GET", "/v1/forward-auth?scope=mcp:read", token)


def answered(demand: Demand) -> Load:
    """Make a load, and demand that each answer has the status that was expected."""
    load = result(start(demand))
    if load.wrong:
        raise RuntimeError(f"{load.wrong} answers were not {demand.status}")
    return load


def rate(load: Load) -> str:
    """Return the answers to a second, in words."""
    return f"{load.rate:,.0f}/s"


def times(load: Load) -> str:
    """Return the times of answers, in words."""
    return f"p50 {load.p50 * 1e3:.2f} ms, p99 {load.p99 * 1e3:.2f} ms"


def figures(load: Load) -> str:
    """Return both, in words."""
    return f"{rate(load)}; {times(load)}"
