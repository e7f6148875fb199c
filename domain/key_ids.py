"""Key ids: ``apikey_<uuid>``, in exactly one form."""

import hashlib
import re
from uuid import UUID

from domain.errors import KeyNotFound

PREFIX = "apikey_"

_KEY_ID = re.compile(r"apikey_([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.ASCII)


def to_key_id(uuid: UUID) -> str:
    """Return the key id for an aggregate id."""
    return f"{PREFIX}{uuid}"


def to_uuid(key_id: str) -> UUID:
    """Return the aggregate id for a key id.

    Raises:
        KeyNotFound: the text does not have the form of a key id, so no key has it.
    """
    match = _KEY_ID.fullmatch(key_id)
    if match is None:
        message = f"there is no key {key_id[:60]!r}: a key id is apikey_ and a UUID"
        raise KeyNotFound(message)
    return UUID(match[1])


def derived_uuid(*parts: str) -> UUID:
    """Return a UUID derived from texts by SHA-256 (RFC 9562, section 5.8, version 8).

    Different lists of texts give different UUIDs, as far as SHA-256 is free of collisions.
    """
    # This accepts any text, even lone surrogates; others validate the parts.
    encoded = [part.encode(errors="surrogatepass") for part in parts]
    spelled = b"".join(b"%d:%b" % (len(part), part) for part in encoded)
    number = int.from_bytes(hashlib.sha256(spelled).digest()[:16])
    number = number & ~(0xF << 76) | 8 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    return UUID(int=number)
