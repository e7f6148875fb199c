"""Issue a credential: a token, and the part of it that is stored."""

from dataclasses import dataclass, field

from domain.names import checked_token_prefix
from domain.pepper import Pepper
from domain.tokens import RandomSource, Token, mint
from domain.verifiers import Argon2Gate


@dataclass(frozen=True, slots=True)
class Digest:
    """A row of the digest table: HMAC of a lookup id and secret under a pepper."""

    lookup_id: str
    pepper_id: str
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credential:
    """The stored part of a token: never the secret."""

    token_prefix: str
    lookup_id: str
    verifier: str = field(repr=False)
    digest: Digest


def issue(
    prefix: str, *, random: RandomSource, gate: Argon2Gate, pepper: Pepper
) -> tuple[Token, Credential]:
    """Mint a token and compute what will be stored; this runs Argon2id once.

    Returns:
        The token, to be shown once, and the credential, to be stored.

    Raises:
        Invalid: the prefix breaks a rule.
        Overloaded: too many secrets are being hashed.
    """
    token = mint(checked_token_prefix(prefix), random)
    return token, Credential(
        token_prefix=token.prefix,
        lookup_id=token.lookup_id,
        verifier=gate.make(token.secret),
        digest=digest_of(token, pepper),
    )


def digest_of(token: Token, pepper: Pepper) -> Digest:
    """Return the digest of a token's secret under a pepper."""
    return Digest(token.lookup_id, pepper.pepper_id, pepper.digest(token.lookup_id, token.secret))
