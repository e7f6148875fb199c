"""Verifying a token: from the presented text to the verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from domain.credential import digest_of
from domain.errors import LedgerUnavailable
from domain.judge import AuthRow, Code, Refused, Verdict, judge
from domain.pepper import Pepper, same_digest
from domain.tokens import Token, parse
from domain.verifiers import Argon2Gate
from projections.auth_lookup import find
from projections.database import Database
from projections.digests import keep_digests
from projections.stored_events import last_position

_log = structlog.get_logger()
_NO_DIGEST = bytes(32)


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict, and the position up to which the ledger was read for it."""

    verdict: Verdict
    position: int


class Authentication:
    """Tells who may in.

    The row and its position are read in one transaction at each call, so a call that begins after
    a change was acknowledged sees that change, whichever process made it.
    """

    def __init__(self, database: Database, gate: Argon2Gate, pepper: Pepper) -> None:
        """Ask ``database``; prove secrets by digests under ``pepper``, else through ``gate``."""
        self._database = database
        self._gate = gate
        self._pepper = pepper

    def verify(
        self,
        text: str,
        scopes: Sequence[str],
        *,
        now: datetime,
        workspace: str | None = None,
    ) -> Answer:
        """Decide whether a presented token may be used.

        Args:
            text: what was presented, whatever it is.
            scopes: what it is to be used for.
            now: the time of the decision.
            workspace: the only one whose keys exist for whoever asks; ``None`` is for all.

        Raises:
            LedgerUnavailable: the ledger cannot be asked, so nobody is let in or refused.
            Overloaded: too many secrets are being hashed.
            ProjectionInconsistent: the stored verifier is damaged.
        """
        token = parse(text)
        if token is None:
            return Answer(Refused(Code.MALFORMED), self._position())
        with self._database.read() as connection:
            found = find(connection, token.lookup_id, self._pepper.pepper_id)
            position = last_position(connection)
        row = self._proved(token, found, workspace)
        verdict = Refused(Code.NOT_FOUND) if row is None else judge(row, scopes, now)
        return Answer(verdict, position)

    def _position(self) -> int:
        with self._database.read() as connection:
            return last_position(connection)

    def _proved(
        self, token: Token, found: tuple[AuthRow, bytes | None] | None, workspace: str | None
    ) -> AuthRow | None:
        """Return the row if the token's secret is its own, else ``None``."""
        presented = digest_of(token, self._pepper)
        if found is None:
            # The same work as for a wrong secret, so that time does not tell which it was.
            same_digest(presented.digest, _NO_DIGEST)
            return None
        row, known = found
        if known is not None:
            proved = same_digest(presented.digest, known)
        elif proved := self._gate.proves(row.verifier, token.secret):
            self._keep(token)
        # The checksum does not cover the prefix, and a token has one spelling only.
        if not proved or token.prefix != row.token_prefix:
            return None
        return row if workspace in (None, row.workspace) else None

    def _keep(self, token: Token) -> None:
        try:
            with self._database.write() as connection:
                keep_digests(connection, [digest_of(token, self._pepper)])
        except LedgerUnavailable:
            # The verdict stands without it; the next call proves the secret the slow way again.
            _log.warning("digest_not_kept", lookup_id=token.lookup_id, exc_info=True)
