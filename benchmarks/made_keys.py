"""Many real keys in few transactions: with their tokens, and verifiers of any cost."""

import secrets
from datetime import UTC, datetime
from pathlib import Path

from api.composition import OpenLedger, opened_ledger
from api.settings import read_settings
from domain.api_key import ApiKey
from domain.caller import system
from domain.credential import issue
from domain.key_ids import derived_uuid
from domain.names import DEFAULT_WORKSPACE
from domain.pepper import Pepper
from domain.verifiers import CHEAPEST, Argon2Gate, Argon2Profile
from projections.auth.pepper_file import read_or_make_pepper

SCOPE = "mcp:read"
_AT_ONCE = 500


def make_keys(
    data_dir: Path,
    count: int,
    *,
    profile: Argon2Profile = CHEAPEST,
    pepper: Pepper | None = None,
) -> list[str]:
    """Create keys in the ledger of a data folder, which is created if it does not exist.

    Args:
        profile: cost of an Argon2id call for a verifier.
        pepper: pepper of the digests instead of the ledger's own; the ledger then does not find the
            secrets by their digests, as after a change of its pepper.

    Returns:
        Their tokens.
    """
    with opened_ledger(read_settings(data_dir=data_dir), argon2_profile=profile) as opened:
        pepper = pepper or read_or_make_pepper(opened.settings.pepper_path, secrets.token_bytes)
        gate = Argon2Gate(at_once=1, waiting=0, profile=profile)
        return [
            token
            for start in range(0, count, _AT_ONCE)
            for token in _make(opened, min(_AT_ONCE, count - start), gate, pepper)
        ]


def _make(opened: OpenLedger, count: int, gate: Argon2Gate, pepper: Pepper) -> list[str]:
    tokens, keys, digests = [], [], []
    for number in range(count):
        token, credential = issue("key", random=secrets.token_bytes, gate=gate, pepper=pepper)
        tokens.append(token.reveal())
        digests.append(credential.digest)
        keys.append(
            ApiKey.create(
                credential,
                key_id=derived_uuid("lookup id", credential.lookup_id),
                workspace=DEFAULT_WORKSPACE,
                name=f"key {number}",
                scopes=[SCOPE],
                expires_at=None,
                by=system("bench"),
                at=datetime.now(UTC),
            )
        )
    opened.ledger.save(*keys, digests=digests)
    return tokens
