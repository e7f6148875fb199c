"""Argon2id verifiers of secrets, with a limit on concurrent calls."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from argon2 import PasswordHasher, Type
from argon2.exceptions import VerificationError, VerifyMismatchError

from domain.errors import Overloaded, ProjectionInconsistent


@dataclass(frozen=True, slots=True)
class Argon2Profile:
    """The cost of one Argon2id call (RFC 9106).

    Args:
        memory_kib: memory in KiB (m).
        passes: number of passes over the memory (t).
        lanes: degree of parallelism (p).
    """

    memory_kib: int
    passes: int
    lanes: int


OWASP_MINIMUM = Argon2Profile(memory_kib=19_456, passes=2, lanes=1)
"""OWASP Password Storage Cheat Sheet: m=19456 (19 MiB), t=2, p=1. Enough for 256-bit secrets."""

CHEAPEST = Argon2Profile(memory_kib=8, passes=1, lanes=1)
"""No protection. Only for tests and benchmarks that create many keys."""


OnChange = Callable[[int], None]
"""Called with 1 when a call starts waiting or running, and with -1 when it has ended."""


def ignore_change(_change: int) -> None:
    """Ignore the change."""


class Argon2Gate:
    """Makes and verifies Argon2id strings; ``at_once`` calls run and ``waiting`` calls queue.

    A call needs about 19 MiB and one core for its whole duration. Without a limit, a burst of calls
    would use up the memory and starve everything else. When the queue is full, callers are told to
    try again. argon2-cffi releases the GIL, so calls run in parallel.
    """

    def __init__(
        self,
        *,
        at_once: int,
        waiting: int,
        profile: Argon2Profile = OWASP_MINIMUM,
        on_change: OnChange = ignore_change,
    ) -> None:
        """Set both limits, the cost of a call, and the callback for starting and ending calls."""
        self._hasher = PasswordHasher(
            time_cost=profile.passes,
            memory_cost=profile.memory_kib,
            parallelism=profile.lanes,
            hash_len=32,
            salt_len=16,
            type=Type.ID,
        )
        self._running = threading.BoundedSemaphore(at_once)
        self.places = at_once + waiting
        self._places = threading.BoundedSemaphore(self.places)
        self._on_change = on_change

    def make(self, secret: str) -> str:
        """Return a new verifier for a secret, as a PHC string.

        Raises:
            Overloaded: the queue is full.
        """
        with self._place():
            return self._hasher.hash(secret)

    def proves(self, verifier: str, secret: str) -> bool:
        """Return whether a verifier was made for this secret.

        Raises:
            Overloaded: the queue is full.
            ProjectionInconsistent: the stored verifier is not an Argon2 string.
        """
        with self._place():
            try:
                return self._hasher.verify(verifier, secret)
            except VerifyMismatchError:
                return False
            except (VerificationError, ValueError) as error:
                message = "a stored verifier is damaged: rebuild the projection auth_lookup"
                raise ProjectionInconsistent(message) from error

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            message = "too many secrets are being hashed: try again later"
            raise Overloaded(message)
        try:
            self._on_change(1)
            try:
                with self._running:
                    yield
            finally:
                self._on_change(-1)
        finally:
            self._places.release()
