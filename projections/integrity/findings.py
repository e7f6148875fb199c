"""Findings of an integrity check, named so that a person can find the place."""

from dataclasses import dataclass, field
from typing import Literal

MAX_FINDINGS = 100
"""Further findings are counted and not listed."""

About = Literal["event", "entry", "key", "projection", "checkpoint", "schema", "row", "seal"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem in the ledger.

    Args:
        about: kind of the object.
        name: name of the object.
        wrong: what is wrong with it.
        remedy: what to do next.
        leaf_index, position, key_id: the entry, the event and the key, if it is about one.
    """

    about: About
    name: str
    wrong: str
    remedy: str
    leaf_index: int | None = None
    position: int | None = None
    key_id: str | None = None

    def __str__(self) -> str:
        """Return the finding as one line of text."""
        return f"{self.name}: {self.wrong}; {self.remedy}"


@dataclass(slots=True)
class Findings:
    """A list of findings; beyond `MAX_FINDINGS` they are only counted."""

    listed: list[Finding] = field(default_factory=list)
    not_listed: int = 0

    def add(self, finding: Finding) -> None:
        """Add a finding."""
        if len(self.listed) < MAX_FINDINGS:
            self.listed.append(finding)
        else:
            self.not_listed += 1

    def names_position(self, position: int) -> bool:
        """Return whether a finding about this event is listed already."""
        return any(finding.position == position for finding in self.listed)
