"""Token prefixes as labels of metrics: those of the settings, and one label for all other texts.

The metrics can be read without a credential, and anybody can make keys with a prefix of their own.
So no prefix of a key or of a presented text becomes a label by itself.
"""

from collections.abc import Iterable

OTHER = "(other)"
"""Not a possible token prefix."""


class PrefixLabels:
    """The labels of one process."""

    def __init__(self, prefixes: Iterable[str]) -> None:
        """Count these token prefixes separately."""
        self._known = frozenset(prefixes)

    def label(self, token: str) -> str:
        """Return the label of a presented token, which may be any text."""
        prefix = token.partition("_")[0]
        return prefix if prefix in self._known else OTHER
