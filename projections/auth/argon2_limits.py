"""Limits on Argon2: the first verification of a key after its digest was lost.

Argon2id costs some 20 ms of a core for anybody who knows a lookup id, which is public. So these
verifications take at most half of the places of the gate, which new keys use too. Each key and each
source has a limited share of them. Calls with the same secret wait for one verification, and a
wrong secret is remembered for a while.

Somebody who tries wrong secrets on a key without a pause would still take the whole share of that
key again and again, and the key's holder would often be refused. So a source whose last secret was
wrong is suspect until it presents a right one, and suspect sources never get the last place of a
share. To keep a holder out, an attacker needs a new address for each wrong secret.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address
from typing import TypeVar

from domain.errors import Overloaded
from domain.verifiers import Argon2Gate

MAX_OF_A_KEY = 2
MAX_OF_A_SOURCE = 4
_MAX_WRONG = 10_000
_MAX_SUSPECTS = 10_000

Claim = tuple[str, bytes]
"""A lookup id, and the digest of the secret presented for it."""

Name = TypeVar("Name")

_Attempt = tuple[str, bytes, str]
"""A claim and the verifier that it is compared with; a rebuild can replace a wrong verifier."""


class Argon2Limits:
    """Runs Argon2 through a gate, once at a time for each secret; for any number of threads."""

    def __init__(self, gate: Argon2Gate) -> None:
        self._gate = gate
        self._max = max(1, gate.places // 2)
        self._lock = threading.Lock()
        self._running: dict[_Attempt, Future[bool]] = {}
        self._of_key: Counter[str] = Counter()
        self._of_source: Counter[str] = Counter()
        self._wrong: OrderedDict[_Attempt, None] = OrderedDict()
        self._suspects: OrderedDict[str, None] = OrderedDict()

    def verify(self, verifier: str, secret: str, claim: Claim, source: str | None) -> bool:
        """Return whether a secret matches a verifier.

        Args:
            verifier: the key's.
            secret: what was presented.
            claim: the digest of the secret, by which equal calls are recognised.
            source: the address that presented it, if there is one.

        Raises:
            Overloaded: the key, the source or the gate has too many verifications running.
            ProjectionInconsistent: the stored verifier is not an Argon2 string.
        """
        attempt = (*claim, verifier)
        source = None if source is None else _network(source)
        with self._lock:
            if attempt in self._wrong:
                return False
            running = self._running.get(attempt)
            if running is None:
                self._take_places(attempt, source)
                running, mine = self._running.setdefault(attempt, Future()), True
            else:
                mine = False
        if not mine:
            return running.result()
        with self._places(attempt, source, running):
            proved = self._gate.proves(verifier, secret)
            running.set_result(proved)
            return proved

    def _take_places(self, attempt: _Attempt, source: str | None) -> None:
        # The last place of all and of a key is reserved for sources that are not suspect.
        reserved = int(source in self._suspects)
        if len(self._running) >= max(1, self._max - reserved):
            raise Overloaded("too many secrets are being tried: try again later")
        if self._of_key[attempt[0]] >= MAX_OF_A_KEY - reserved:
            raise Overloaded("too many secrets are being tried on one key: try again later")
        if source is not None and self._of_source[source] >= MAX_OF_A_SOURCE:
            raise Overloaded("too many secrets are being tried from one address: try again later")
        self._of_key[attempt[0]] += 1
        if source is not None:
            self._of_source[source] += 1

    @contextmanager
    def _places(
        self, attempt: _Attempt, source: str | None, running: Future[bool]
    ) -> Iterator[None]:
        """Hold the places until the block ends, then pass its result or error to those who wait."""
        try:
            yield
        except BaseException as error:
            running.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._running[attempt]
                self._decrement(self._of_key, attempt[0])
                if source is not None:
                    self._decrement(self._of_source, source)
                if running.exception() is None:
                    self._record(attempt, source, proved=running.result())

    def _record(self, attempt: _Attempt, source: str | None, *, proved: bool) -> None:
        if proved:
            if source is not None:
                self._suspects.pop(source, None)
            return
        _remember(self._wrong, attempt, _MAX_WRONG)
        if source is not None:
            _remember(self._suspects, source, _MAX_SUSPECTS)

    @staticmethod
    def _decrement(counter: Counter[str], name: str) -> None:
        counter[name] -= 1
        if not counter[name]:
            del counter[name]


def _remember(names: OrderedDict[Name, None], name: Name, most: int) -> None:
    names[name] = None
    names.move_to_end(name)
    if len(names) > most:
        names.popitem(last=False)


def _network(source: str) -> str:
    """Return the network of an address: one subscriber has a whole /64 of IPv6 addresses."""
    try:
        address = ip_address(source)
    except ValueError:
        return source
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(IPv6Address(int(address) >> 64 << 64))
    return source
