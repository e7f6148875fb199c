"""What a check of the doctor's says."""

from dataclasses import dataclass
from typing import Literal

Result = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Args:
        name: what was looked at.
        result: whether it is as it should be; ``warn`` is for what works and could be better.
        found: what was seen.
        remedy: what to do about it; ``None`` where there is nothing to do.
    """

    name: str
    result: Result
    found: str
    remedy: str | None = None
