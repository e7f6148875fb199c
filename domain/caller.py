"""Who gives a command: the actor that the event records, and what it may grant."""

from dataclasses import dataclass
from typing import Literal

ActorType = Literal["key", "cli", "system"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it.

    Args:
        type: a key of this ledger, a person at the command line, or the ledger itself.
        id: the key's ``key_id``, the account's name on the machine, or the part of the ledger.
    """

    type: ActorType
    id: str

    def as_json(self) -> dict[str, str]:
        """Return the form that events and answers carry."""
        return {"type": self.type, "id": self.id}


@dataclass(frozen=True, slots=True)
class Caller:
    """An actor in the act of giving a command.

    Args:
        actor: who.
        holds: the scopes that it holds, which bound what it can grant.
        request_id: the request that the command came with, if any.
        source_ip: the address that the request came from, if any.
    """

    actor: Actor
    holds: tuple[str, ...]
    request_id: str | None = None
    source_ip: str | None = None


def system(part: str) -> Caller:
    """Return the ledger itself, in one of its parts, as a caller that may grant anything."""
    return Caller(Actor("system", part), holds=("*",))
