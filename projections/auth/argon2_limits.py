"""Proving secrets the slow way: the first verify of a key after its digest was lost.

Argon2id costs some 20 ms of a core for anybody who knows a lookup id, which is public. So these
proofs take at most half of the gate that new keys pass too; no key and no source may have more
than its share of them; calls with one and the same secret wait for one proof; and a secret that
was disproved is remembered for a while.

Somebody who tries wrong secrets on a key without a pause would still take that key's whole share
again and again, and leave its holder to chance. So a source whose last secret was wrong is in
doubt until it presents a right one, and sources in doubt never have the last place of a share.
Whoever wants to keep a holder out needs a new address for each wrong secret.
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

MOST_OF_A_KEY = 2
MOST_OF_A_SOURCE = 4
_MOST_DISPROVED = 10_000
_MOST_IN_DOUBT = 10_000

Claim = tuple[str, bytes]
"""A lookup id, and the digest of the secret that somebody presents for it."""

Name = TypeVar("Name")

_Attempt = tuple[str, bytes, str]
"""A claim and the verifier that decides it, which a rebuild may exchange for the right one."""


class ColdProofs:
    """Proves secrets through a gate, each once at a time; for any number of threads."""

    def __init__(self, gate: Argon2Gate) -> None:
        self._gate = gate
        self._most = max(1, gate.places // 2)
        self._lock = threading.Lock()
        self._running: dict[_Attempt, Future[bool]] = {}
        self._of_key: Counter[str] = Counter()
        self._of_source: Counter[str] = Counter()
        self._disproved: OrderedDict[_Attempt, None] = OrderedDict()
        self._in_doubt: OrderedDict[str, None] = OrderedDict()

    def proves(self, verifier: str, secret: str, claim: Claim, source: str | None) -> bool:
        """Tell whether a secret is the one that a verifier was made for.

        Args:
            verifier: the key's.
            secret: what was presented.
            claim: the same under the pepper, by which calls are recognised as the same.
            source: the address that presented it, if there is one.

        Raises:
            Overloaded: the key, the source or the gate has too many proofs under way.
            ProjectionInconsistent: the stored verifier is no Argon2 string.
        """
        attempt = (*claim, verifier)
        source = None if source is None else _network(source)
        with self._lock:
            if attempt in self._disproved:
                return False
            running = self._running.get(attempt)
            if running is None:
                self._take_share(attempt, source)
                running, mine = self._running.setdefault(attempt, Future()), True
            else:
                mine = False
        if not mine:
            return running.result()
        with self._share(attempt, source, running):
            proved = self._gate.proves(verifier, secret)
            running.set_result(proved)
            return proved

    def _take_share(self, attempt: _Attempt, source: str | None) -> None:
        # The last place of the gate's share and of a key's is for sources that are not in doubt.
        kept = int(source in self._in_doubt)
        if len(self._running) >= max(1, self._most - kept):
            raise Overloaded("too many secrets are being tried at this moment; try again shortly")
        if self._of_key[attempt[0]] >= MOST_OF_A_KEY - kept:
            raise Overloaded("too many secrets are being tried on one key; try again shortly")
        if source is not None and self._of_source[source] >= MOST_OF_A_SOURCE:
            raise Overloaded("too many secrets are being tried from one address; try again shortly")
        self._of_key[attempt[0]] += 1
        if source is not None:
            self._of_source[source] += 1

    @contextmanager
    def _share(
        self, attempt: _Attempt, source: str | None, running: Future[bool]
    ) -> Iterator[None]:
        """Hold the share taken, and settle what the others wait for, however it ends."""
        try:
            yield
        except BaseException as error:
            running.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._running[attempt]
                self._give_back(self._of_key, attempt[0])
                if source is not None:
                    self._give_back(self._of_source, source)
                if running.exception() is None:
                    self._learn(attempt, source, proved=running.result())

    def _learn(self, attempt: _Attempt, source: str | None, *, proved: bool) -> None:
        if proved:
            if source is not None:
                self._in_doubt.pop(source, None)
            return
        _remember(self._disproved, attempt, _MOST_DISPROVED)
        if source is not None:
            _remember(self._in_doubt, source, _MOST_IN_DOUBT)

    @staticmethod
    def _give_back(counter: Counter[str], name: str) -> None:
        counter[name] -= 1
        if not counter[name]:
            del counter[name]


def _remember(names: OrderedDict[Name, None], name: Name, most: int) -> None:
    names[name] = None
    names.move_to_end(name)
    if len(names) > most:
        names.popitem(last=False)


def _network(source: str) -> str:
    """Return what stands for an address: one subscriber has a whole /64 of IPv6 addresses."""
    try:
        address = ip_address(source)
    except ValueError:
        return source
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return str(IPv6Address(int(address) >> 64 << 64))
    return source
