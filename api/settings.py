"""Settings: read and checked once, and never changed."""

import os
import unicodedata
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from api.network.addresses import parsed_networks
from api.network.connection_limits import ClientLimits, client_limits
from api.network.http_limits import HttpLimits
from api.network.kubernetes import is_of_kubernetes
from api.scope_catalogue import read_catalogue
from api.setting_errors import PREFIX, not_valid, unknown_variable
from domain import names
from domain.errors import Invalid
from projections.store.database import KINDS_OF_URL, SQLITE
from projections.store.postgresql import ConnectionLimits

_NOT_IN_PATHS = frozenset({"Cc", "Cs", "Zl", "Zp"})


class SettingsError(Exception):
    """The settings are not valid; the message has a line for each reason."""


class Settings(BaseModel):
    """The settings, from ``KEYLEDGER_*`` environment variables."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Field(
        default=Path("keyledger-data"),
        description="Data folder: the pepper and, by default, the database; created if missing.",
    )
    database_url: str | None = Field(
        default=None,
        description="SQLAlchemy URL of the database; by default, a file in the data folder.",
    )
    signing_key: Path | None = Field(
        default=None,
        description="File of the key that signs checkpoints; by default, in the data folder.",
    )
    checkpoint_file: Path | None = Field(
        default=None,
        description="File of the signed checkpoints; by default, in the data folder. Keep it on"
        " another volume.",
    )
    host: str = Field(default="127.0.0.1", description="Address that the server listens on.")
    port: int = Field(
        default=8080,
        ge=0,
        le=65535,
        description="Port that the server listens on; 0 selects a free port.",
    )
    tls_certificate: Path | None = Field(
        default=None,
        description="PEM file of the TLS certificate, with its chain; without it, plain HTTP.",
    )
    tls_key: Path | None = Field(
        default=None,
        description="PEM file of the certificate's private key, without a password.",
    )
    workers: int = Field(default=1, ge=1, le=64, description="Number of server processes.")
    token_prefix: str = Field(default="key", description="Default token prefix.")
    metrics_prefixes: str = Field(
        default="",
        description="Token prefixes that the metrics count separately beside the default prefix,"
        " separated by commas; everybody can read them there.",
    )
    argon2_waiting: int = Field(
        default=16,
        ge=0,
        le=1000,
        description="Maximum number of Argon2id calls that wait for a CPU core; beyond that,"
        " callers get 503.",
    )
    max_body_bytes: int = Field(
        default=65_536, ge=1024, le=16_777_216, description="Maximum request body, in bytes."
    )
    max_head_bytes: int = Field(
        default=65_536,
        ge=4096,
        le=1_048_576,
        description="Maximum size of the request line and headers together, in bytes; the request"
        " line may have half of it.",
    )
    head_seconds: float = Field(
        default=10.0,
        gt=0,
        le=600,
        description="Timeout for the headers of a request, in seconds.",
    )
    body_seconds: float = Field(
        default=30.0,
        gt=0,
        le=600,
        description="Timeout between two parts of a request body, in seconds.",
    )
    keep_alive_seconds: float = Field(
        default=75.0,
        gt=0,
        le=3600,
        description="Idle timeout of a connection, in seconds; make it longer than your proxy's.",
    )
    write_seconds: float = Field(
        default=30.0,
        gt=0,
        le=600,
        description="Timeout for a client that does not read the response, in seconds.",
    )
    max_connections: int | None = Field(
        default=None,
        ge=1,
        description="Maximum number of connections of each process, within its file descriptor"
        " limit; by default, 10,000.",
    )
    max_connections_per_address: int | None = Field(
        default=None,
        ge=1,
        description="Maximum number of connections from one IPv4 address or IPv6 /64 network, in"
        " each process; by default, a quarter of all. Does not apply to trusted proxies.",
    )
    trusted_proxies: str = Field(
        default="",
        description="IP addresses and networks of proxies, comma-separated, whose X-Forwarded-For"
        " and X-Forwarded-Proto are trusted.",
    )
    expirer_seconds: float = Field(
        default=1.0, gt=0, le=3600, description="Interval between expiry scans, in seconds."
    )
    last_used_seconds: float = Field(
        default=30.0,
        gt=0,
        le=60,
        description="Interval between writes of last-use times, in seconds; a crash loses at most"
        " this much.",
    )
    attestation_hours: float = Field(
        default=24.0,
        ge=0,
        le=8760,
        description="Interval between integrity checks, in hours; a check uses a tenth of a core."
        " 0 turns them off.",
    )
    verify_staleness_seconds: float = Field(
        default=0.0,
        ge=0,
        le=60,
        description="Maximum staleness of a verification, in seconds, for a distant database: a"
        " revoked key may be accepted for this long. 0 asks the database each time.",
    )
    database_connections: int = Field(
        default=8,
        ge=2,
        le=1000,
        description="PostgreSQL connections that each process keeps open for reading, and the same"
        " number for writing; under load, up to twice as many.",
    )
    database_statement_seconds: float = Field(
        default=30.0,
        gt=0,
        le=3600,
        description="Timeout for a PostgreSQL statement, in seconds; does not apply to rebuilds.",
    )
    database_lock_seconds: float = Field(
        default=10.0,
        gt=0,
        le=3600,
        description="Timeout for a database lock, or for a free connection, in seconds.",
    )
    tails: int = Field(
        default=100,
        ge=0,
        le=10_000,
        description="Maximum number of live event streams in each process; beyond that, callers"
        " get 503.",
    )
    tail_seconds: float = Field(
        default=0.25,
        gt=0,
        le=60,
        description="Interval between polls for new events, for all live event streams, in"
        " seconds.",
    )
    tail_heartbeat_seconds: float = Field(
        default=15.0,
        gt=0,
        le=3600,
        description="Interval between heartbeats of an idle live event stream, in seconds.",
    )
    console_session_hours: float = Field(
        default=8.0, gt=0, le=720, description="Maximum lifetime of console sessions, in hours."
    )
    console_idle_minutes: float = Field(
        default=60.0, gt=0, le=43_200, description="Idle timeout of console sessions, in minutes."
    )
    scope_catalogue: Path | None = Field(
        default=None,
        description="TOML file of the scopes that the console offers; by default, Keyledger's own.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Minimum level of log lines."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="Log format; `auto` means text on a terminal, else JSON."
    )

    @field_validator("data_dir", mode="before")
    @classmethod
    def _data_dir(cls, folder: object) -> object:
        if folder == "":
            # A lost value must not create a ledger in the current folder.
            message = "use the path of a folder"
            raise ValueError(message)
        return folder

    @field_validator(
        "data_dir",
        "signing_key",
        "checkpoint_file",
        "tls_certificate",
        "tls_key",
        "scope_catalogue",
    )
    @classmethod
    def _path(cls, path: Path | None) -> Path | None:
        if path is None:
            return None
        check_path(str(path))
        try:
            expanded = path.expanduser()
        except RuntimeError:
            message = f"the home folder {path.parts[0]} is not known: use an absolute path"
            raise ValueError(message) from None
        check_path(str(expanded))
        return expanded

    @field_validator("signing_key", "checkpoint_file", "tls_certificate", "tls_key", mode="before")
    @classmethod
    def _file(cls, path: object) -> object:
        if path == "":
            message = "use the path of a file"
            raise ValueError(message)
        return path

    @field_validator("trusted_proxies")
    @classmethod
    def _trusted_proxies(cls, proxies: str) -> str:
        parsed_networks(proxies)
        return proxies

    @field_validator("token_prefix")
    @classmethod
    def _token_prefix(cls, prefix: str) -> str:
        try:
            return names.checked_token_prefix(prefix)
        except Invalid as error:
            raise ValueError(error.message) from None

    @field_validator("scope_catalogue")
    @classmethod
    def _scope_catalogue(cls, path: Path | None) -> Path | None:
        # Refuse it at the start, and not when a key is created.
        read_catalogue(path)
        return path

    @field_validator("database_url")
    @classmethod
    def _database_url(cls, url: str | None) -> str | None:
        return None if url is None else checked_database_url(url)

    @field_validator("metrics_prefixes")
    @classmethod
    def _metrics_prefixes(cls, prefixes: str) -> str:
        for prefix in filter(None, prefixes.split(",")):
            cls._token_prefix(prefix)
        return prefixes

    @property
    def counted_prefixes(self) -> frozenset[str]:
        """The token prefixes that the metrics count separately."""
        return frozenset({self.token_prefix, *filter(None, self.metrics_prefixes.split(","))})

    @property
    def url(self) -> URL:
        """The URL of the database; a path in it has no escapes."""
        if self.database_url is not None:
            return make_url(self.database_url)
        return URL.create("sqlite", database=str((self.data_dir / "keyledger.sqlite3").absolute()))

    @property
    def database_path(self) -> Path | None:
        """The file of the database; ``None`` if it is on a server."""
        url = self.url
        return Path(url.database or "") if url.get_backend_name() == SQLITE else None

    @property
    def http_limits(self) -> HttpLimits:
        """The limits of one client's connection."""
        return HttpLimits(
            head_bytes=self.max_head_bytes,
            body_bytes=self.max_body_bytes,
            head_seconds=self.head_seconds,
            body_seconds=self.body_seconds,
            idle_seconds=self.keep_alive_seconds,
            write_seconds=self.write_seconds,
        )

    @property
    def client_limits(self) -> ClientLimits:
        """The limits on connections of clients in each process."""
        return client_limits(
            self.max_connections,
            self.max_connections_per_address,
            self.trusted_proxies,
            self.database_connections,
        )

    @property
    def connection_limits(self) -> ConnectionLimits:
        """The limits on connections to a database server in each process."""
        return ConnectionLimits(
            connections=self.database_connections,
            statement_seconds=self.database_statement_seconds,
            lock_seconds=self.database_lock_seconds,
        )

    @property
    def signing_key_path(self) -> Path:
        """The signing key's file."""
        return self.signing_key or self.data_dir / "signing-key"

    @property
    def checkpoint_path(self) -> Path:
        """The file of the checkpoints."""
        return self.checkpoint_file or self.data_dir / "checkpoints.txt"

    @property
    def pepper_path(self) -> Path:
        """The pepper's file."""
        return self.data_dir / "pepper"


def check_path(path: str) -> None:
    """Refuse a path that cannot be written on one line of UTF-8 text.

    Paths appear in messages and in commands to copy. All other characters are allowed.

    Raises:
        ValueError: the path has a control character or a line separator, or is not UTF-8.
    """
    if any(unicodedata.category(character) in _NOT_IN_PATHS for character in path):
        message = (
            "the path has a line break, another control character or a character that is not"
            " UTF-8: use another path"
        )
        raise ValueError(message)


def checked_database_url(url: str) -> str:
    """Return the URL of a database if a ledger can be stored there.

    Raises:
        ValueError: the URL is not valid, or the database is not supported.
    """
    check_path(url)
    is_a_file = url.startswith(f"{SQLITE}:")
    if is_a_file and "?" in url:
        # SQLAlchemy would drop the rest of the path, and open another file.
        message = (
            "the path of an SQLite database in a URL cannot contain `?`: use another path, or set"
            " only KEYLEDGER_DATA_DIR, which can contain it"
        )
        raise ValueError(message)
    if not is_a_file and url.partition("?")[0].count("@") > 1:
        # A URL that is split at the wrong place would show its password as part of a name.
        message = "write @, / and : in a user name or password as %40, %2F and %3A"
        raise ValueError(message)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        message = f"not a database URL: use {KINDS_OF_URL}"
        raise ValueError(message) from None
    if parsed.drivername == "postgresql+psycopg" and parsed.database:
        return url
    in_memory = parsed.database in {None, "", ":memory:"}
    if parsed.drivername != "sqlite" or parsed.query or in_memory:
        message = f"this database is not supported: use {KINDS_OF_URL}"
        raise ValueError(message)
    return url


def read_settings(**given: object) -> Settings:
    """Read the settings from environment variables and options.

    Args:
        given: options by the names of the settings; they override variables unless ``None``.

    Raises:
        SettingsError: a variable is unknown, or a value is not valid.
    """
    variables = {
        name: value
        for name, value in sorted(os.environ.items())
        if name.upper().startswith(PREFIX) and not is_of_kubernetes(name, value)
    }
    read = {_field(name): value for name, value in variables.items()}
    unknown = [name for name in variables if _field(name) not in Settings.model_fields]
    if unknown:
        lines = [unknown_variable(name, Settings.model_fields) for name in unknown]
        raise SettingsError("\n".join(lines))
    options = {name: value for name, value in given.items() if value is not None}
    try:
        # A variable that is not valid is refused even if an option overrides it.
        Settings.model_validate(read)
    except ValidationError as error:
        raise SettingsError("\n".join(not_valid(error, Settings.model_fields))) from None
    try:
        return Settings.model_validate(read | options)
    except ValidationError as error:
        raise SettingsError("\n".join(not_valid(error, Settings.model_fields, options))) from None


def _field(variable: str) -> str:
    return variable.upper().removeprefix(PREFIX).lower()
