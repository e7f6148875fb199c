"""Settings: read once, checked as a whole, and never changed."""

import difflib
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
from domain import names
from domain.errors import Invalid
from projections.store.database import KINDS_OF_URL, SQLITE
from projections.store.postgresql import ConnectionLimits

PREFIX = "KEYLEDGER_"

_NOT_IN_PATHS = frozenset({"Cc", "Cs", "Zl", "Zp"})


class SettingsError(Exception):
    """The settings cannot be used; the message has a line for each reason."""


class Settings(BaseModel):
    """What can be set, by ``KEYLEDGER_*`` variables of the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Field(
        default=Path("keyledger-data"),
        description="Folder of the database, the pepper and the locks; made if it is not there.",
    )
    database_url: str | None = Field(
        default=None,
        description="SQLAlchemy URL of the database; unset, a file in the data folder.",
    )
    signing_key: Path | None = Field(
        default=None,
        description="File of the key that signs checkpoints; unset, in the data folder.",
    )
    checkpoint_file: Path | None = Field(
        default=None,
        description="File of the signed checkpoints, best on another volume; unset, in the data"
        " folder.",
    )
    host: str = Field(default="127.0.0.1", description="Address that the server listens on.")
    port: int = Field(
        default=8080,
        ge=0,
        le=65535,
        description="Port that the server listens on; 0 for any free port.",
    )
    tls_certificate: Path | None = Field(
        default=None,
        description="PEM file of the certificate for TLS, with its chain; unset, plain HTTP.",
    )
    tls_key: Path | None = Field(
        default=None,
        description="PEM file of the certificate's private key, without a password.",
    )
    workers: int = Field(default=1, ge=1, le=64, description="Number of server processes.")
    token_prefix: str = Field(default="key", description="Default token prefix.")
    argon2_waiting: int = Field(
        default=16,
        ge=0,
        le=1000,
        description="Argon2id calls that may wait for a CPU core; beyond that, callers get 503.",
    )
    max_body_bytes: int = Field(
        default=65_536, ge=1024, le=16_777_216, description="Longest request body, in bytes."
    )
    max_head_bytes: int = Field(
        default=65_536,
        ge=4096,
        le=1_048_576,
        description="Longest request line and headers together, in bytes; the request line alone"
        " may have half of it.",
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
        description="Timeout for a client that does not read its answer, in seconds.",
    )
    max_connections: int | None = Field(
        default=None,
        ge=1,
        description="Most connections of each process, up to what its file descriptors allow;"
        " unset, at most 10,000.",
    )
    max_connections_per_address: int | None = Field(
        default=None,
        ge=1,
        description="Most connections from one IPv4 address or IPv6 /64 network, in each process;"
        " unset, a quarter of all. Does not apply to trusted proxies.",
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
        description="PostgreSQL connections that each process keeps for reading, and as many for"
        " writing; at most twice as many under load.",
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
        description="TOML file of the scopes that the console offers; unset, Keyledger's own.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Lowest level of log lines that are written."
    )
    log_format: Literal["auto", "json", "text"] = Field(
        default="auto", description="Log format; auto is text on a terminal, else JSON."
    )

    @field_validator("data_dir", mode="before")
    @classmethod
    def _data_dir(cls, folder: object) -> object:
        if folder == "":
            # A variable whose value got lost must not make a new ledger just anywhere.
            message = "give the path of a folder"
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
    def _on_one_line(cls, path: Path | None) -> Path | None:
        if path is not None:
            check_path(str(path))
        return path

    @field_validator("signing_key", "checkpoint_file", "tls_certificate", "tls_key", mode="before")
    @classmethod
    def _file(cls, path: object) -> object:
        if path == "":
            message = "give the path of a file"
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
        # Refused now rather than when somebody makes a key.
        read_catalogue(path)
        return path

    @field_validator("database_url")
    @classmethod
    def _database_url(cls, url: str | None) -> str | None:
        return None if url is None else checked_database_url(url)

    @property
    def url(self) -> URL:
        """The URL of the database; its path is as it is in the file system, without any escapes."""
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
        """How many connections of clients a process accepts."""
        return client_limits(
            self.max_connections,
            self.max_connections_per_address,
            self.trusted_proxies,
            self.database_connections,
        )

    @property
    def connection_limits(self) -> ConnectionLimits:
        """What a process takes of a database server."""
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
    """Refuse a path that cannot be written on one line of text, in UTF-8.

    Paths are in messages and in commands to copy. All other characters can be used.

    Raises:
        ValueError: it has a control character or a line separator, or is not UTF-8.
    """
    if any(unicodedata.category(character) in _NOT_IN_PATHS for character in path):
        message = (
            "the path has a line break, another control character or a character that is not UTF-8;"
            " use another path"
        )
        raise ValueError(message)


def checked_database_url(url: str) -> str:
    """Return the URL of a database if a ledger can be kept there.

    Raises:
        ValueError: it cannot; the message says where it can.
    """
    check_path(url)
    is_a_file = url.startswith(f"{SQLITE}:")
    if is_a_file and "?" in url:
        # SQLAlchemy would drop what follows, and open another file.
        message = (
            "the path of an SQLite database in a URL cannot contain `?`; use another path, or set"
            " KEYLEDGER_DATA_DIR alone, which can contain it"
        )
        raise ValueError(message)
    if not is_a_file and url.partition("?")[0].count("@") > 1:
        # Taken apart at the wrong place, its password would be shown as a part of something else.
        message = "write @, / and : in a user's name or password as %40, %2F and %3A"
        raise ValueError(message)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        message = f"not a database URL; write {KINDS_OF_URL}"
        raise ValueError(message) from None
    if parsed.drivername == "postgresql+psycopg" and parsed.database:
        return url
    in_memory = parsed.database in {None, "", ":memory:"}
    if parsed.drivername != "sqlite" or parsed.query or in_memory:
        message = f"only these are supported: {KINDS_OF_URL}"
        raise ValueError(message)
    return url


def read_settings(**given: object) -> Settings:
    """Read the environment; a value that is ``given`` (and not ``None``) takes its place.

    Raises:
        SettingsError: a variable is unknown, or a value is wrong or contradicts another.
    """
    variables = {
        name: value
        for name, value in sorted(os.environ.items())
        if name.upper().startswith(PREFIX) and not is_of_kubernetes(name, value)
    }
    read = {_field(name): value for name, value in variables.items()}
    unknown = read.keys() - Settings.model_fields.keys()
    if unknown:
        raise SettingsError(
            "\n".join(_unknown(name) for name in variables if _field(name) in unknown)
        )
    try:
        # A wrong variable is refused even where an option takes its place.
        Settings.model_validate(read)
        return Settings.model_validate(
            read | {name: value for name, value in given.items() if value is not None}
        )
    except ValidationError as error:
        lines = [
            f"{PREFIX}{'_'.join(map(str, each['loc'])).upper()}:"
            f" {each['msg'].removeprefix('Value error, ')}"
            for each in error.errors(include_url=False, include_input=False)
        ]
        raise SettingsError("\n".join(lines)) from None


def _field(variable: str) -> str:
    return variable.upper().removeprefix(PREFIX).lower()


def _unknown(name: str) -> str:
    known = [PREFIX + field.upper() for field in Settings.model_fields]
    near = difflib.get_close_matches(name.upper(), known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    return f"{name}: no such setting; {hint}"
