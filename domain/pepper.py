"""The pepper and the digests under it: how a known secret is recognised in microseconds.

A digest is HMAC-SHA-256 (RFC 2104) of a token's secret. The secret has 256 random bits, so that
a fast function is enough to keep it from being guessed; the pepper keeps whoever reads only the
database from testing a guess at all. A digest is an accelerator, never the truth: without it the
Argon2id verifier decides.
"""

import hashlib
import hmac
from dataclasses import dataclass, field

PEPPER_LENGTH = 32


@dataclass(frozen=True, slots=True)
class Pepper:
    """32 random bytes that live outside the database."""

    value: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse a pepper of another length.

        Raises:
            ValueError: it has not exactly 32 bytes.
        """
        if len(self.value) != PEPPER_LENGTH:
            message = f"a pepper has {PEPPER_LENGTH} bytes; this one has {len(self.value)}"
            raise ValueError(message)

    @property
    def pepper_id(self) -> str:
        """A public name: 16 hex digits that tell two peppers apart and reveal neither."""
        return hashlib.sha256(b"keyledger pepper id\x00" + self.value).hexdigest()[:16]

    def digest(self, secret: str) -> bytes:
        """Return the 32 bytes that stand for ``secret`` under this pepper."""
        return hmac.digest(self.value, secret.encode("ascii"), "sha256")


def same_digest(one: bytes, other: bytes) -> bool:
    """Compare two digests in a time that does not depend on where they differ."""
    return hmac.compare_digest(one, other)
