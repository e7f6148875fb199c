"""Token prefixes as labels of metrics: a limited number of them, and never another part of a token.

Anybody can present a text that begins like a token. So only prefixes of keys that exist become
labels, each once the secret of such a key was verified, and all other texts share one label.
"""

from domain.verdict import Verdict

OTHER = "other"
MAX_PREFIXES = 20


class PrefixLabels:
    """The labels of one process."""

    def __init__(self, default: str) -> None:
        """Begin with the default prefix of new tokens."""
        self._known = {default}

    def label(self, verdict: Verdict, token: str) -> str:
        """Return the label of a presented token, which may be any text."""
        prefix = token.partition("_")[0]
        if prefix in self._known:
            return prefix
        # A verdict has a key only if the secret was right, so this is the prefix of a key.
        if verdict.key is None or len(self._known) >= MAX_PREFIXES:
            return OTHER
        self._known.add(prefix)
        return prefix
