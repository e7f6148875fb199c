"""TLS in the server itself, with a certificate that can be renewed while it runs."""

import ssl
from pathlib import Path

import structlog

from api.settings import Settings
from projections.store.file_modes import OpenToOthers, refuse_open_to_others

_log = structlog.get_logger()

_State = tuple[tuple[int, int, int], ...]


class NoTls(Exception):
    """The certificate or its key cannot be used; the message says which file and why."""


class RenewableTls:
    """The TLS configuration of a process.

    Each handshake checks whether the files have changed. A renewed certificate is used from the
    next handshake on; if the new files cannot be used, the old certificate stays in use.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """Load a certificate, optionally followed by its chain, and its key.

        Raises:
            NoTls: they cannot be used.
        """
        self._certificate = certificate
        self._key = key
        self._seen = self._state()
        self._current = self._loaded()
        self.context = self._loaded()
        """The context to start a server with."""

        self.context.sni_callback = self._choose

    def _choose(
        self, handshake: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _first: ssl.SSLContext
    ) -> None:
        state = self._state()
        if state != self._seen:
            self._seen = state
            self._renew()
        handshake.context = self._current

    def _renew(self) -> None:
        try:
            self._current = self._loaded()
        except NoTls as error:
            _log.error("certificate_not_renewed", detail=f"{error}; the old one stays in use")
        else:
            _log.info("certificate_renewed", file=str(self._certificate))

    def _loaded(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        for path in (self._certificate, self._key):
            try:
                path.read_bytes()
            except OSError as error:
                raise NoTls(f"cannot read {path}: {error.strerror}") from None
        try:
            refuse_open_to_others(self._key)
        except (OpenToOthers, OSError) as error:
            raise NoTls(str(error)) from None
        try:
            # Without this, OpenSSL would ask for a password on the terminal.
            context.load_cert_chain(self._certificate, self._key, password=lambda: b"")
        except (ssl.SSLError, ValueError) as error:
            why = getattr(error, "reason", None) or "they are not in PEM format, or have a password"
            if why == "KEY_VALUES_MISMATCH":
                why = "the key does not belong to the certificate"
            raise NoTls(
                f"cannot use the certificate {self._certificate} with the key {self._key}: {why}"
            ) from None
        return context

    def _state(self) -> _State:
        return tuple(_state_of(path) for path in (self._certificate, self._key))


def _state_of(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    # ctime changes with the content and with the mode.
    return found.st_ctime_ns, found.st_size, found.st_ino


def tls_of(settings: Settings) -> RenewableTls | None:
    """Return the TLS configuration of the settings; ``None`` for plain HTTP.

    Raises:
        NoTls: only one of the two files is set, or they cannot be used.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise NoTls("set both KEYLEDGER_TLS_CERTIFICATE and KEYLEDGER_TLS_KEY, or neither")
    return RenewableTls(certificate, key)
