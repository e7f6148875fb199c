"""The pepper, the keys derived from it, and the digests of secrets.

The pepper is 32 random bytes outside the database. It is never used as a key itself: each purpose
has its own key, derived by HKDF-SHA-256 (RFC 5869).

A digest is HMAC-SHA-256 (RFC 2104) of a token's lookup id and secret. The lookup id binds it to one
key: copied to another key's row, it proves nothing. A secret has 256 random bits, so a fast
function is enough against guessing; without the pepper, someone who reads the database cannot even
test a guess. A digest only saves time: without it, the Argon2id verifier decides.
"""

import hashlib
import hmac
from dataclasses import dataclass, field

PEPPER_LENGTH = 32
_BLOCK_LENGTH = 64
_ID = "keyledger secret id v2"
_DIGESTS = "keyledger digests v2"


class Mac:
    """HMAC-SHA-256 with one key, for many messages."""

    __slots__ = ("inner", "outer")

    def __init__(self, key: bytes) -> None:
        """Hash the padded key once, as it is the same for every message (RFC 2104, section 4).

        Args:
            key: at most 64 bytes.
        """
        padded = key.ljust(_BLOCK_LENGTH, b"\x00")
        self.inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self.outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))

    def of(self, message: bytes) -> bytes:
        """Return the MAC of a message, 32 bytes."""
        # Called for each event of a replay; `hmac` takes twice as long.
        inner, outer = self.inner.copy(), self.outer.copy()
        inner.update(message)
        outer.update(inner.digest())
        return outer.digest()


@dataclass(frozen=True, slots=True)
class Pepper:
    """32 random bytes that are kept outside the database."""

    value: bytes = field(repr=False)
    pepper_id: str = field(init=False, compare=False)
    """Public id: 16 hex digits that distinguish peppers and reveal nothing of them."""
    _inner: "hashlib._Hash" = field(init=False, repr=False, compare=False)
    _outer: "hashlib._Hash" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Derive the keys once.

        Raises:
            ValueError: the value does not have 32 bytes.
        """
        if len(self.value) != PEPPER_LENGTH:
            message = f"a pepper has {PEPPER_LENGTH} bytes; this one has {len(self.value)}"
            raise ValueError(message)
        object.__setattr__(self, "pepper_id", self.derived(_ID).hex()[:16])
        digests = Mac(self.derived(_DIGESTS))
        object.__setattr__(self, "_inner", digests.inner)
        object.__setattr__(self, "_outer", digests.outer)

    def derived(self, label: str) -> bytes:
        """Derive a 32-byte key by HKDF-SHA-256 without a salt (RFC 5869).

        Args:
            label: purpose of the key; different labels give independent keys.
        """
        extracted = hmac.digest(bytes(hashlib.sha256().digest_size), self.value, "sha256")
        return hmac.digest(extracted, label.encode() + b"\x01", "sha256")

    def digest(self, lookup_id: str, secret: str) -> bytes:
        """Return the digest of a token's secret under this pepper, 32 bytes.

        Args:
            lookup_id: the token's; its length is fixed, so the concatenation is unambiguous.
            secret: the token's, in ASCII.
        """
        # Not with `Mac.of`: one more call per token verification is measurable.
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update((lookup_id + secret).encode("ascii"))
        outer.update(inner.digest())
        return outer.digest()


def same_digest(one: bytes, other: bytes) -> bool:
    """Compare two digests in constant time."""
    return hmac.compare_digest(one, other)
