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
_BLOCK_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Pepper:
    """32 random bytes that live outside the database."""

    value: bytes = field(repr=False)
    _inner: "hashlib._Hash" = field(init=False, repr=False, compare=False)
    _outer: "hashlib._Hash" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Hash what is the same for every secret, once (RFC 2104, section 4).

        Raises:
            ValueError: it has not exactly 32 bytes.
        """
        if len(self.value) != PEPPER_LENGTH:
            message = f"a pepper has {PEPPER_LENGTH} bytes; this one has {len(self.value)}"
            raise ValueError(message)
        padded = self.value.ljust(_BLOCK_LENGTH, b"\x00")
        for name, pad in (("_inner", 0x36), ("_outer", 0x5C)):
            begun = hashlib.sha256(bytes(byte ^ pad for byte in padded))
            object.__setattr__(self, name, begun)

    @property
    def pepper_id(self) -> str:
        """A public name: 16 hex digits that tell two peppers apart and reveal neither."""
        return hashlib.sha256(b"keyledger pepper id\x00" + self.value).hexdigest()[:16]

    def digest(self, secret: str) -> bytes:
        """Return the 32 bytes that stand for ``secret`` under this pepper."""
        # On the path of each check; the standard library's own takes three times as long.
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(secret.encode("ascii"))
        outer.update(inner.digest())
        return outer.digest()


def same_digest(one: bytes, other: bytes) -> bool:
    """Compare two digests in a time that does not depend on where they differ."""
    return hmac.compare_digest(one, other)
