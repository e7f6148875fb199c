"""The caller of a command: the actor that the event records, and the scopes it may grant."""

from dataclasses import dataclass
from typing import Literal

ActorType = Literal["key", "cli", "system"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who made a change.

    Args:
        type: a key of this ledger, a person at the command line, or the ledger itself.
        id: the key's ``key_id``, the account's name on the machine, or a part of the ledger.
    """

    type: ActorType
    id: str

    def as_json(self) -> dict[str, str]:
        """Return the JSON form in events and answers."""
        return {"type": self.type, "id": self.id}


@dataclass(frozen=True, slots=True)
class Caller:
    """An actor that gives a command.

    Args:
        actor: the actor.
        holds: the scopes that it holds; it cannot grant others.
        request_id: id of the request, if any.
        source_ip: client address of the request, if any.
    """

    actor: Actor
    holds: tuple[str, ...]
    request_id: str | None = None
    source_ip: str | None = None


def system(part: str) -> Caller:
    """Return a part of the ledger as a caller that may grant anything."""
    return Caller(Actor("system", part), holds=("*",))
