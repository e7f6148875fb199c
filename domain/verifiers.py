"""Verifiers: the Argon2id strings that prove a secret, and the limit on how many run at once."""

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
        memory_kib: memory in KiB.
        passes: how often the memory is gone through.
        lanes: how many threads one call may use.
    """

    memory_kib: int
    passes: int
    lanes: int


OWASP_MINIMUM = Argon2Profile(memory_kib=19_456, passes=2, lanes=1)
"""OWASP Password Storage Cheat Sheet: m=19456 (19 MiB), t=2, p=1. Enough for 256-bit secrets."""

CHEAPEST = Argon2Profile(memory_kib=8, passes=1, lanes=1)
"""Protects nothing. Only for tests and benchmarks that make many keys."""


OnChange = Callable[[int], None]
"""Told 1 when a call begins to wait or run, and -1 when it has ended."""


def ignore_change(_change: int) -> None:
    """Count nothing."""


class Argon2Gate:
    """Makes and checks verifiers, at most ``at_once`` at a time and ``waiting`` in a queue.

    A call holds some 19 MiB and a core for its whole duration. Without a limit, a burst of them
    takes all the memory and starves everything else; beyond the queue, callers are told to come
    back. argon2-cffi releases the interpreter lock, so calls do run side by side.
    """

    def __init__(
        self,
        *,
        at_once: int,
        waiting: int,
        profile: Argon2Profile = OWASP_MINIMUM,
        on_change: OnChange = ignore_change,
    ) -> None:
        """Set the two limits, the cost of a call, and who is told of calls coming and going."""
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
        """Return a new verifier for ``secret``, as a PHC string.

        Raises:
            Overloaded: too many calls wait already.
        """
        with self._place():
            return self._hasher.hash(secret)

    def proves(self, verifier: str, secret: str) -> bool:
        """Tell whether ``secret`` is the one that ``verifier`` was made for.

        Raises:
            Overloaded: too many calls wait already.
            ProjectionInconsistent: the stored verifier is no Argon2 string.
        """
        with self._place():
            try:
                return self._hasher.verify(verifier, secret)
            except VerifyMismatchError:
                return False
            except (VerificationError, ValueError) as error:
                message = "a stored verifier is damaged; rebuild the projection auth_lookup"
                raise ProjectionInconsistent(message) from error

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            message = "too many secrets are being hashed at this moment; try again shortly"
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
