"""Verification of a token: from the presented text to the verdict."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple, Protocol

import structlog

from domain.credential import Digest, digest_of
from domain.errors import LedgerUnavailable
from domain.pepper import Pepper, same_digest
from domain.tokens import LOOKUP_ID_LENGTH, parse, split
from domain.verdict import Code, Refused, Verdict, Verified, decide
from domain.verifiers import Argon2Gate
from projections.auth.argon2_limits import Argon2Limits
from projections.auth.cache import CachedKey, KeyCache
from projections.auth.freshness import Freshness, open_freshness_check
from projections.auth.new_events import Observed
from projections.store.database import Database
from projections.store.key_digests import store_digests
from projections.store.last_uses import OnUse, ignore_use

CACHE_SIZE = 100_000

_log = structlog.get_logger()
_MALFORMED = Refused(Code.MALFORMED)
_NOT_FOUND = Refused(Code.NOT_FOUND)
_NO_DIGEST = bytes(32)


class Answer(NamedTuple):
    """A verdict, and the position up to which the ledger was read for it."""

    verdict: Verdict
    position: int


class TryVerify(Protocol):
    """Decides in microseconds, or not at all."""

    def __call__(
        self, text: str, scopes: Sequence[str], *, workspace: str | None = None
    ) -> Answer | None:
        """Return the answer; ``None`` if it takes longer, and is for `Authentication.verify`.

        Raises:
            LedgerUnavailable, RowNotSealed: as for `Authentication.verify`.
        """


class Authentication:
    """Verifies tokens; for any number of threads.

    Rows are cached in memory, and each verification first checks freshness. So a verification that
    begins after a change was acknowledged sees that change, whichever process made it. In an event
    loop, use `projections.auth.verification`.
    """

    def __init__(
        self,
        database: Database,
        gate: Argon2Gate,
        pepper: Pepper,
        *,
        cache_size: int = CACHE_SIZE,
        on_use: OnUse = ignore_use,
        staleness_seconds: float = 0.0,
    ) -> None:
        """Read ``database``; compare digests under ``pepper``, or else use Argon2 via ``gate``.

        Args:
            cache_size: how many keys to keep in memory.
            on_use: is called for each valid use, before the answer is returned.
            staleness_seconds: maximum age of the last freshness check. Within that time, a revoked
                key may still be accepted.

        Raises:
            LedgerUnavailable: the database cannot be asked.
        """
        self._database = database
        self._pepper = pepper
        self._pepper_id = pepper.pepper_id
        self._on_use = on_use
        self._argon2 = Argon2Limits(gate)
        self._rows = open_freshness_check(database)
        self._cache = KeyCache(size=cache_size)
        self.freshness = Freshness(self._rows, self._cache, staleness_seconds)

    def verify(
        self,
        text: str,
        scopes: Sequence[str],
        *,
        now: datetime,
        workspace: str | None = None,
        source: str | None = None,
    ) -> Answer:
        """Decide whether a presented token may be used; blocks.

        Args:
            text: as presented, valid or not.
            scopes: that the use requires.
            now: the time of the decision.
            workspace: the only one whose keys exist for the caller; ``None`` for all.
            source: the address that presented it, which limits its share of Argon2.

        Raises:
            LedgerUnavailable: the database cannot be asked, so nothing is decided.
            RowNotSealed: the key's row is not as the ledger wrote it, so it grants nothing.
            Overloaded: too many Argon2 verifications are running.
            ProjectionInconsistent: the stored verifier is damaged.
        """
        self.freshness.check()
        answer = self._by_digest(text, scopes, workspace=workspace, now=now, reads=True)
        return answer or self._by_argon2(text, scopes, now, workspace, source)

    def try_verify(self, *, now: datetime) -> TryVerify:
        """Return a function for tokens that were presented before the last freshness check.

        Args:
            now: the time of the decisions.
        """
        return partial(self._by_digest, now=now, reads=self.freshness.is_immediate)

    def verify_again(self, key_id: str, lookup_id: str, *, now: datetime) -> Answer:
        """Decide about a key whose secret was verified before, without the secret; blocks.

        Args:
            key_id: the key.
            lookup_id: of the token that was verified.

        Raises:
            LedgerUnavailable, RowNotSealed: as for `verify`.
        """
        self.freshness.check()
        key, position = self._cached_or_read(lookup_id)
        if key is None or key.row.key_id != key_id:
            return Answer(_NOT_FOUND, position)
        return Answer(self._decide(key, (), now, None), position)

    def close(self) -> None:
        """Close the connection; nothing can be verified any more."""
        self._rows.close()

    def _by_digest(
        self,
        text: str,
        scopes: Sequence[str],
        *,
        workspace: str | None = None,
        now: datetime,
        reads: bool,
    ) -> Answer | None:
        """Decide without Argon2, and if not ``reads`` without reading the database."""
        public, secret, checksum = split(text)
        key, observed = self._cache.get(public[-LOOKUP_ID_LENGTH:])
        position = observed.position
        is_cached = key is not None
        if key is None or key.spelling != (public, checksum):
            # This spelling of the token was not seen before, so its form is checked.
            token = parse(text)
            if token is None:
                return Answer(_MALFORMED, position)
            if key is None and not reads:
                return None
            key = key or self._read(token.lookup_id, observed)
        # An unknown key takes the same work as a wrong secret, so that both take the same time.
        known = _NO_DIGEST if key is None else key.digest
        if known is None:
            return None
        lookup_id = public[-LOOKUP_ID_LENGTH:]
        proved = secret.isascii() and same_digest(self._pepper.digest(lookup_id, secret), known)
        # The checksum does not cover the prefix, and a token has one spelling only.
        if key is None or not proved or public != key.public:
            if not reads:
                return None
            if key is not None and is_cached:
                self._dummy_read(key.row.lookup_id)
            return Answer(_NOT_FOUND, position)
        key.spelling = public, checksum
        return Answer(self._decide(key, scopes, now, workspace), position)

    def _by_argon2(
        self,
        text: str,
        scopes: Sequence[str],
        now: datetime,
        workspace: str | None,
        source: str | None,
    ) -> Answer:
        token = parse(text)
        if token is None:
            return Answer(_MALFORMED, self._cache.observed.position)
        self.freshness.check()
        key, position = self._cached_or_read(token.lookup_id)
        if key is None:
            return Answer(_NOT_FOUND, position)
        digest = digest_of(token, self._pepper)
        claim = token.lookup_id, digest.digest
        # Another caller may have verified the secret while this one read the database.
        if key.digest is not None:
            proved = same_digest(digest.digest, key.digest)
        else:
            proved = self._argon2.verify(key.row.verifier, token.secret, claim, source)
        if not proved:
            return Answer(_NOT_FOUND, position)
        if key.digest is None:
            key.digest = digest.digest
            self._store(digest)
        if token.prefix != key.row.token_prefix:
            return Answer(_NOT_FOUND, position)
        return Answer(self._decide(key, scopes, now, workspace), position)

    def _cached_or_read(self, lookup_id: str) -> tuple[CachedKey | None, int]:
        key, observed = self._cache.get(lookup_id)
        return key or self._read(lookup_id, observed), observed.position

    def _read(self, lookup_id: str, observed: Observed) -> CachedKey | None:
        """Read a key from the auth lookup; ``observed`` is the state before the reading."""
        found = self._rows.find(lookup_id, self._pepper_id)
        return None if found is None else self._cache.put(found, observed)

    def _dummy_read(self, lookup_id: str) -> None:
        """Look up a row that does not exist, so that both refusals take the same time.

        Otherwise the time would tell a caller with a wrong secret whether the key exists.
        """
        self._rows.find(f"{lookup_id}-", self._pepper_id)

    def _decide(
        self, key: CachedKey, scopes: Sequence[str], now: datetime, workspace: str | None
    ) -> Verdict:
        """Decide about a key whose token was verified, secret and spelling."""
        if workspace not in (None, key.row.workspace):
            return _NOT_FOUND
        verdict = decide(key.row, scopes, now)
        if type(verdict) is Verified:
            self._on_use(key.row.position, now)
        return verdict

    def _store(self, digest: Digest) -> None:
        try:
            with self._database.write() as connection:
                store_digests(connection, [digest], self._database.seals)
        except LedgerUnavailable:
            # The verdict stands without it; after a restart, the secret needs Argon2 again.
            _log.warning("digest_not_kept", lookup_id=digest.lookup_id, exc_info=True)
