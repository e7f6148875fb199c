"""The scope catalogue: the scopes that the console offers when a key is created."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from domain import scopes
from domain.errors import Invalid

_OWN = Path(__file__).with_suffix(".toml")
_TITLE = "title"


@dataclass(frozen=True, slots=True)
class OfferedScope:
    """A scope, with a line about what it allows."""

    scope: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Resource:
    """The scopes of one resource."""

    name: str
    title: str
    scopes: tuple[OfferedScope, ...]


Catalogue = tuple[Resource, ...]


def read_catalogue(path: Path | None) -> Catalogue:
    """Read a catalogue; Keyledger's own if there is no path.

    Raises:
        ValueError: the file cannot be read, or is not a catalogue.
    """
    path = path or _OWN
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        message = f"{path} cannot be read as a scope catalogue: {error}"
        raise ValueError(message) from None
    return tuple(_resource(path, name, table) for name, table in tables.items())


def offered(catalogue: Catalogue) -> set[str]:
    """Return all the scopes of a catalogue."""
    return {each.scope for resource in catalogue for each in resource.scopes}


def _resource(path: Path, name: str, table: object) -> Resource:
    if not isinstance(table, dict) or not all(isinstance(text, str) for text in table.values()):
        message = f'{path}: write [{name}], then title = "..." and a line action = "..." for each'
        raise ValueError(message)
    actions = [OfferedScope(f"{name}:{key}", table[key]) for key in table if key != _TITLE]
    try:
        scopes.checked([each.scope for each in actions])
    except Invalid as error:
        message = f"{path}: [{name}]: {error.message}"
        raise ValueError(message) from None
    return Resource(name, table.get(_TITLE, name), tuple(actions))
