"""Verifying a token: from the presented text to the verdict."""

import threading
from collections.abc import Sequence
from datetime import datetime
from time import monotonic
from typing import NamedTuple

import structlog

from domain.credential import Digest, digest_of
from domain.errors import LedgerUnavailable
from domain.judge import Code, Refused, Verdict, Verified, judge
from domain.pepper import Pepper, same_digest
from domain.tokens import LOOKUP_ID_LENGTH, parse, split
from domain.verifiers import Argon2Gate
from projections.auth.argon2_limits import ColdProofs
from projections.auth.cache import RememberedKey, RememberedKeys
from projections.auth.freshness import News, Seen, open_fence
from projections.store.database import Database
from projections.store.key_digests import keep_digests
from projections.store.last_uses import OnUse, ignore_use

REMEMBERED_KEYS = 100_000

_log = structlog.get_logger()
_MALFORMED = Refused(Code.MALFORMED)
_NOT_FOUND = Refused(Code.NOT_FOUND)
_NO_DIGEST = bytes(32)


class Answer(NamedTuple):
    """A verdict, and the position up to which the ledger was read for it."""

    verdict: Verdict
    position: int


class Authentication:
    """Tells who may in; for any number of threads.

    Rows are kept in memory, and each call first asks the fence whether the ledger has moved. So a
    call that begins after a change was acknowledged sees that change, whichever process made it.
    """

    def __init__(
        self,
        database: Database,
        gate: Argon2Gate,
        pepper: Pepper,
        *,
        remembered: int = REMEMBERED_KEYS,
        on_use: OnUse = ignore_use,
        staleness_seconds: float = 0.0,
    ) -> None:
        """Ask ``database``; prove secrets by digests under ``pepper``, else through ``gate``.

        Args:
            remembered: how many keys to keep in memory.
            on_use: told of each use that was allowed, before whoever asked.
            staleness_seconds: how old what is known may be when it is used. Within that time, a
                key that was revoked may still be let in.

        Raises:
            LedgerUnavailable: the database cannot be asked.
        """
        self._database = database
        self._pepper = pepper
        self._pepper_id = pepper.pepper_id
        self._on_use = on_use
        self._staleness = staleness_seconds
        self._known_until = 0.0
        self._cold = ColdProofs(gate)
        self._fence = open_fence(database)
        self._keys = RememberedKeys(most=remembered)
        # The rows are one thread's at a time, for some microseconds; nobody reads meanwhile.
        self._lock = threading.Lock()

    def verify(
        self,
        text: str,
        scopes: Sequence[str],
        *,
        now: datetime,
        workspace: str | None = None,
        source: str | None = None,
    ) -> Answer:
        """Decide whether a presented token may be used.

        Args:
            text: what was presented, whatever it is.
            scopes: what it is to be used for.
            now: the time of the decision.
            workspace: the only one whose keys exist for whoever asks; ``None`` is for all.
            source: the address that presented it, which bounds its share of slow proofs.

        Raises:
            LedgerUnavailable: the ledger cannot be asked, so nobody is let in or refused.
            RowNotSealed: the key's row is not as the ledger wrote it, so it grants nothing.
            Overloaded: too many secrets are being proved the slow way.
            ProjectionInconsistent: the stored verifier is damaged.
        """
        self.catch_up()
        answer = self._verify(text, scopes, now, workspace)
        return answer or self._verify_cold(text, scopes, now, workspace, source)

    def catch_up(self) -> None:
        """Learn of all that was committed before this call.

        Raises:
            LedgerUnavailable: the ledger cannot be asked.
        """
        if self.is_fresh():
            return
        began = monotonic()
        self.caught_up(self._fence.news(self._keys.seen), began=began)

    @property
    def answers_at_once(self) -> bool:
        """Whether `catch_up` takes microseconds, so that an event loop may wait for it."""
        return self._fence.answers_at_once

    @property
    def seen(self) -> Seen:
        """What was learnt of the ledger, since which whoever asks instead of `catch_up` asks."""
        return self._keys.seen

    def is_fresh(self) -> bool:
        """Tell whether what is known is not too old to be used without asking."""
        return bool(self._staleness) and monotonic() < self._known_until

    def caught_up(self, news: News | None, *, began: float) -> None:
        """Learn what a question to the fence was answered.

        Args:
            news: the answer.
            began: when the question was asked, on the monotonic clock.
        """
        if news is not None:
            with self._lock:
                self._keys.learn(news)
        if self._staleness:
            self._known_until = max(self._known_until, began + self._staleness)

    def verify_caught_up(
        self, text: str, scopes: Sequence[str], *, now: datetime, workspace: str | None = None
    ) -> Answer | None:
        """Decide as `verify` does, if `catch_up` was called since the token was presented.

        Returns:
            ``None`` if it takes more than some microseconds, and is for `verify` to tell.

        Raises:
            LedgerUnavailable: the ledger cannot be asked, so nobody is let in or refused.
        """
        return self._verify(text, scopes, now, workspace, reads=self._fence.answers_at_once)

    def _verify(
        self,
        text: str,
        scopes: Sequence[str],
        now: datetime,
        workspace: str | None,
        *,
        reads: bool = True,
    ) -> Answer | None:
        """Decide without an Argon2id call, and if not ``reads`` without asking the database."""
        public, secret, checksum = split(text)
        with self._lock:
            seen = self._keys.seen
            key = self._keys.recall(public[-LOOKUP_ID_LENGTH:])
        position = seen.last[0]
        remembered = key is not None
        if key is None or key.spelling != (public, checksum):
            # Not seen before as it is spelled: now its form matters.
            token = parse(text)
            if token is None:
                return Answer(_MALFORMED, position)
            if key is None and not reads:
                return None
            key = key or self._found(token.lookup_id, seen)
        # For an unknown key the same work as for a wrong secret: time does not tell which it was.
        known = _NO_DIGEST if key is None else key.digest
        if known is None:
            return None
        lookup_id = public[-LOOKUP_ID_LENGTH:]
        proved = secret.isascii() and same_digest(self._pepper.digest(lookup_id, secret), known)
        # The checksum does not cover the prefix, and a token has one spelling only.
        if key is None or not proved or public != key.public:
            if not reads:
                return None
            if key is not None and remembered:
                self._read_in_vain(key.row.lookup_id)
            return Answer(_NOT_FOUND, position)
        key.spelling = public, checksum
        return Answer(self._judge(key, scopes, now, workspace), position)

    def judge_again(self, key_id: str, lookup_id: str, *, now: datetime) -> Answer:
        """Decide about a key whose secret was proved before, without seeing it again.

        Args:
            key_id: the key.
            lookup_id: of the token that was proved.

        Raises:
            LedgerUnavailable: the ledger cannot be asked, so nobody is let in or refused.
        """
        self.catch_up()
        key, position = self._recalled_or_found(lookup_id)
        if key is None or key.row.key_id != key_id:
            return Answer(_NOT_FOUND, position)
        return Answer(self._judge(key, (), now, None), position)

    def close(self) -> None:
        """Give back the connection; nothing can be verified any more."""
        self._fence.close()

    def _verify_cold(
        self,
        text: str,
        scopes: Sequence[str],
        now: datetime,
        workspace: str | None,
        source: str | None,
    ) -> Answer:
        token = parse(text)
        if token is None:
            return Answer(_MALFORMED, self._keys.position)
        self.catch_up()
        key, position = self._recalled_or_found(token.lookup_id)
        if key is None:
            return Answer(_NOT_FOUND, position)
        digest = digest_of(token, self._pepper)
        claim = token.lookup_id, digest.digest
        # Another caller may have proved the secret while this one was asking the ledger.
        if key.digest is not None:
            proved = same_digest(digest.digest, key.digest)
        else:
            proved = self._cold.proves(key.row.verifier, token.secret, claim, source)
        if not proved:
            return Answer(_NOT_FOUND, position)
        if key.digest is None:
            key.digest = digest.digest
            self._keep(digest)
        if token.prefix != key.row.token_prefix:
            return Answer(_NOT_FOUND, position)
        return Answer(self._judge(key, scopes, now, workspace), position)

    def _recalled_or_found(self, lookup_id: str) -> tuple[RememberedKey | None, int]:
        with self._lock:
            seen = self._keys.seen
            key = self._keys.recall(lookup_id)
        return key or self._found(lookup_id, seen), seen.last[0]

    def _found(self, lookup_id: str, seen: Seen) -> RememberedKey | None:
        """Look for a key in the auth lookup; ``seen`` is what had been learnt before."""
        found = self._fence.find(lookup_id, self._pepper_id)
        if found is None:
            return None
        with self._lock:
            return self._keys.remember(found, seen)

    def _read_in_vain(self, lookup_id: str) -> None:
        """Read from the auth lookup what is not there, in the time that an unknown key takes.

        Whoever presents a wrong secret must not learn by the time whether its key is there.
        """
        self._fence.find(f"{lookup_id}-", self._pepper_id)

    def _judge(
        self, key: RememberedKey, scopes: Sequence[str], now: datetime, workspace: str | None
    ) -> Verdict:
        """Judge a key whose token was proved, secret and spelling."""
        if workspace not in (None, key.row.workspace):
            return _NOT_FOUND
        verdict = judge(key.row, scopes, now)
        if type(verdict) is Verified:
            self._on_use(key.row.position, now)
        return verdict

    def _keep(self, digest: Digest) -> None:
        try:
            with self._database.write() as connection:
                keep_digests(connection, [digest], self._database.seals)
        except LedgerUnavailable:
            # The verdict stands without it; a restarted process proves the secret again.
            _log.warning("digest_not_kept", lookup_id=digest.lookup_id, exc_info=True)
