"""Content negotiation: the header ``Accept`` (RFC 9110, section 12.5.1)."""

import re
from collections.abc import Iterable, Sequence

from starlette.exceptions import HTTPException

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110's word for it
_RANGE = re.compile(rf"\s*({_TOKEN})/({_TOKEN})\s*(.*)", re.ASCII | re.DOTALL)
_WEIGHT = re.compile(r";\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*(?:;|$)", re.IGNORECASE)


def form_of_answer(accept: Sequence[str], offered: Sequence[str]) -> str:
    """Return the offered content type that the client prefers.

    Args:
        accept: the lines of the header; without any, every type is accepted.
        offered: content types; the first one is the default.

    Raises:
        HTTPException: 406, if the client accepts none of them.
    """
    ranges = [*_ranges(accept)]
    if not ranges:
        return offered[0]
    weights = {each: _weight(each, ranges) for each in offered}
    best = max(offered, key=weights.__getitem__)
    if not weights[best]:
        raise HTTPException(
            406, f"the available formats are {', '.join(offered)}: accept one of them"
        )
    return best


def _ranges(accept: Iterable[str]) -> Iterable[tuple[str, str, float]]:
    """Yield each media range with its weight; ignore malformed ones."""
    for part in ",".join(accept).split(","):
        match = _RANGE.fullmatch(part)
        if match is not None:
            kind, subtype, parameters = match.groups()
            weight = _WEIGHT.search(parameters)
            yield kind.lower(), subtype.lower(), float(weight[1]) if weight else 1.0


def _weight(offered: str, ranges: Iterable[tuple[str, str, float]]) -> float:
    """Return the weight of the most specific range that includes a type; 0 if none does."""
    kind, _, subtype = offered.partition("/")
    found = {
        (kind_of, subtype_of): weight
        for kind_of, subtype_of, weight in ranges
        if kind_of in (kind, "*") and subtype_of in (subtype, "*")
    }
    for named in ((kind, subtype), (kind, "*"), ("*", "*")):
        if named in found:
            return found[named]
    return 0.0
