"""What an attestation finds wrong, named so that somebody can go and look."""

from dataclasses import dataclass, field
from typing import Literal

MAX_FINDINGS = 100
"""More are counted and not listed."""

About = Literal["event", "entry", "key", "projection", "checkpoint", "schema", "row", "seal"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong.

    Args:
        about: what kind of thing it is about.
        name: which one.
        wrong: what is wrong with it.
        remedy: what to do next.
        leaf_index, position, key_id: of the entry, the event and the key, where it is about one.
    """

    about: About
    name: str
    wrong: str
    remedy: str
    leaf_index: int | None = None
    position: int | None = None
    key_id: str | None = None

    def __str__(self) -> str:
        """Return all of it as a line of text."""
        return f"{self.name}: {self.wrong}; {self.remedy}"


@dataclass(slots=True)
class Findings:
    """Takes findings down; from `MAX_FINDINGS` on it only counts them."""

    listed: list[Finding] = field(default_factory=list)
    not_listed: int = 0

    def add(self, finding: Finding) -> None:
        """Take down a finding."""
        if len(self.listed) < MAX_FINDINGS:
            self.listed.append(finding)
        else:
            self.not_listed += 1

    def names_position(self, position: int) -> bool:
        """Tell whether a finding about this event is listed already."""
        return any(finding.position == position for finding in self.listed)
