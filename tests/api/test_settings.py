"""Settings come from the environment and from options, and are validated together."""

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from api import scope_catalogue
from api.setting_errors import PREFIX
from api.settings import Settings, SettingsError, read_settings
from api.settings_page import PAGE, settings_table, with_settings_table

OWN_CATALOGUE = Path(scope_catalogue.__file__).with_suffix(".toml")
DEFAULTS: dict[str, Any] = {
    "data_dir": Path("keyledger-data"),
    "database_url": None,
    "signing_key": None,
    "checkpoint_file": None,
    "host": "127.0.0.1",
    "port": 8080,
    "tls_certificate": None,
    "tls_key": None,
    "workers": 1,
    "token_prefix": "key",
    "metrics_prefixes": "",
    "argon2_waiting": 16,
    "max_body_bytes": 65_536,
    "max_head_bytes": 65_536,
    "head_seconds": 10.0,
    "body_seconds": 30.0,
    "keep_alive_seconds": 75.0,
    "write_seconds": 30.0,
    "max_connections": None,
    "max_connections_per_address": None,
    "trusted_proxies": "",
    "expirer_seconds": 1.0,
    "last_used_seconds": 30.0,
    "attestation_hours": 24.0,
    "verify_staleness_seconds": 0.0,
    "database_connections": 8,
    "database_statement_seconds": 30.0,
    "database_lock_seconds": 10.0,
    "tails": 100,
    "tail_seconds": 0.25,
    "tail_heartbeat_seconds": 15.0,
    "console_session_hours": 8.0,
    "console_idle_minutes": 60.0,
    "scope_catalogue": None,
    "log_level": "info",
    "log_format": "auto",
}
# Another value for each variable, as text and as parsed.
OTHERS: dict[str, tuple[str, Any]] = {
    "data_dir": ("/srv/keys", Path("/srv/keys")),
    "database_url": ("sqlite:////srv/keys.db", "sqlite:////srv/keys.db"),
    "signing_key": ("/etc/keyledger/key", Path("/etc/keyledger/key")),
    "checkpoint_file": ("/mnt/outside/notes", Path("/mnt/outside/notes")),
    "host": ("::1", "::1"),
    "port": ("0", 0),
    "tls_certificate": ("/etc/tls/chain.pem", Path("/etc/tls/chain.pem")),
    "tls_key": ("/etc/tls/key.pem", Path("/etc/tls/key.pem")),
    "workers": ("4", 4),
    "token_prefix": ("blnk", "blnk"),
    "metrics_prefixes": ("blnk,old", "blnk,old"),
    "argon2_waiting": ("0", 0),
    "max_body_bytes": ("1024", 1024),
    "max_head_bytes": ("4096", 4096),
    "head_seconds": ("2.5", 2.5),
    "body_seconds": ("5", 5.0),
    "keep_alive_seconds": ("120", 120.0),
    "write_seconds": ("15", 15.0),
    "max_connections": ("500", 500),
    "max_connections_per_address": ("50", 50),
    "trusted_proxies": ("10.0.0.1,10.0.0.2", "10.0.0.1,10.0.0.2"),
    "expirer_seconds": ("0.5", 0.5),
    "last_used_seconds": ("60", 60.0),
    "attestation_hours": ("0", 0.0),
    "verify_staleness_seconds": ("1.5", 1.5),
    "database_connections": ("4", 4),
    "database_statement_seconds": ("2.5", 2.5),
    "database_lock_seconds": ("3", 3.0),
    "tails": ("0", 0),
    "tail_seconds": ("0.1", 0.1),
    "tail_heartbeat_seconds": ("30", 30.0),
    "console_session_hours": ("0.5", 0.5),
    "console_idle_minutes": ("15", 15.0),
    "scope_catalogue": (str(OWN_CATALOGUE), OWN_CATALOGUE),
    "log_level": ("error", "error"),
    "log_format": ("json", "json"),
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(name)


def errors(**given: object) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read_settings(**given)
    return str(caught.value).splitlines()


class TestRead:
    def test_each_has_a_default_that_starts_a_server(self) -> None:
        assert read_settings().model_dump() == DEFAULTS

    def test_the_table_here_has_them_all(self) -> None:
        assert set(OTHERS) == set(DEFAULTS) == set(Settings.model_fields)

    @pytest.mark.parametrize("name", OTHERS)
    def test_each_is_read_from_its_variable(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written, read = OTHERS[name]
        monkeypatch.setenv(PREFIX + name.upper(), written)
        assert read_settings().model_dump() == DEFAULTS | {name: read}

    @pytest.mark.parametrize("name", OTHERS)
    def test_an_option_outranks_the_variable(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        written, read = OTHERS[name]
        if DEFAULTS[name] is not None:
            monkeypatch.setenv(PREFIX + name.upper(), str(DEFAULTS[name]))
        assert getattr(read_settings(**{name: read}), name) == read
        assert getattr(read_settings(**{name: written}), name) == read

    @pytest.mark.parametrize("service", ["KEYLEDGER", "KEYLEDGER_POSTGRESQL", "KEYLEDGER_2"])
    def test_service_variables_of_kubernetes_are_ignored(
        self, service: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in {
            "SERVICE_HOST": "10.0.0.1",
            "SERVICE_PORT": "8080",
            "SERVICE_PORT_HTTP": "8080",
            "PORT": "tcp://10.0.0.1:8080",
            "PORT_8080_TCP": "tcp://10.0.0.1:8080",
            "PORT_8080_TCP_PROTO": "tcp",
            "PORT_8080_TCP_PORT": "8080",
            "PORT_8080_TCP_ADDR": "10.0.0.1",
            "PORT_53_UDP": "udp://[fd00::1]:53",
            "PORT_53_UDP_ADDR": "fd00::1",
        }.items():
            monkeypatch.setenv(f"{service}_{name}", value)
        assert read_settings().model_dump() == DEFAULTS

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("PRT", "8080"),
            ("SERVICE_HOST", "keys.example.org"),
            ("SERVICE_HOSTS", "10.0.0.1"),
            ("SERVICE_PORT", "http"),
            ("POSTGRESQL_PORT", "5432"),
            ("PORT_8080", "8080"),
            ("PORT_8080_TCP", "8080"),
            ("TRUSTED_PROXIES_PORT", "8080"),
        ],
    )
    def test_a_misspelt_setting_is_not_taken_for_one_of_kubernetes(
        self, name: str, value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(PREFIX + name, value)
        [error] = errors()
        assert error.startswith(f"{PREFIX}{name}: no such setting")

    @pytest.mark.parametrize("value", ["tcp://", "tcp://host:80", "http://10.0.0.1:8080"])
    def test_a_port_that_is_no_number_is_refused(
        self, value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KEYLEDGER_PORT", value)
        [error] = errors()
        assert error.startswith("KEYLEDGER_PORT: ")

    @pytest.mark.parametrize(
        "entry", ["*", "localhost", "10.0.0.0/33", "10.0.0.1/8", "10.0.0", "10.0.0.1:80", "", "::g"]
    )
    def test_a_proxy_that_is_not_an_address_is_refused(self, entry: str) -> None:
        [error] = errors(trusted_proxies=f"192.0.2.1,{entry}")
        assert error.startswith("--trusted-proxies: ")

    def test_an_option_that_is_not_given_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KEYLEDGER_PORT", "9000")
        assert read_settings(port=None, host=None).port == 9000

    def test_the_configuration_page_has_the_table_of_the_current_settings(self) -> None:
        page = PAGE.read_text()
        assert settings_table() in page
        assert with_settings_table(page) == page

    def test_each_says_what_it_is_for(self) -> None:
        assert all(field.description for field in Settings.model_fields.values())

    @pytest.mark.parametrize("name", Settings.model_fields)
    def test_they_stay_as_they_are(self, name: str) -> None:
        settings = read_settings()
        with pytest.raises(ValidationError, match="frozen"):
            setattr(settings, name, getattr(settings, name))

    def test_the_database_is_in_the_data_folder_unless_told_otherwise(self, tmp_path: Path) -> None:
        settings = read_settings(data_dir=tmp_path)
        assert str(settings.url) == f"sqlite:///{tmp_path}/keyledger.sqlite3"
        assert settings.pepper_path == tmp_path / "pepper"
        elsewhere = read_settings(data_dir=tmp_path, database_url="sqlite:////srv/keys.db")
        assert str(elsewhere.url) == "sqlite:////srv/keys.db"
        assert elsewhere.database_path == Path("/srv/keys.db")
        assert elsewhere.pepper_path == tmp_path / "pepper"

    def test_so_are_the_signing_key_and_the_checkpoints(self, tmp_path: Path) -> None:
        settings = read_settings(data_dir=tmp_path)
        assert settings.signing_key_path == tmp_path / "signing-key"
        assert settings.checkpoint_path == tmp_path / "checkpoints.txt"
        elsewhere = read_settings(data_dir=tmp_path, signing_key="/a/key", checkpoint_file="/b/n")
        assert elsewhere.signing_key_path == Path("/a/key")
        assert elsewhere.checkpoint_path == Path("/b/n")

    @pytest.mark.parametrize(
        "name",
        [
            "data_dir",
            "signing_key",
            "checkpoint_file",
            "tls_certificate",
            "tls_key",
        ],
    )
    def test_a_tilde_in_a_path_is_the_home_folder(
        self, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv(PREFIX + name.upper(), "~/keys")
        assert getattr(read_settings(), name) == tmp_path / "keys"

    def test_a_relative_folder_is_resolved_at_startup(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        url = str(read_settings().url)
        assert url == f"sqlite:///{tmp_path}/keyledger-data/keyledger.sqlite3"


class TestRefused:
    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("KEYLEDGER_DATADIR", "KEYLEDGER_DATA_DIR"),
            ("KEYLEDGER_PROT", "KEYLEDGER_PORT"),
            ("KEYLEDGER_LOGLEVEL", "KEYLEDGER_LOG_LEVEL"),
            ("KEYLEDGER_MAX_BODY", "KEYLEDGER_MAX_BODY_BYTES"),
            ("keyledger_prot", "KEYLEDGER_PORT"),
        ],
    )
    def test_an_unknown_variable_gets_a_suggestion(
        self, name: str, meant: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(name, "1")
        assert errors() == [f"{name}: no such setting; did you mean {meant}?"]

    def test_an_unknown_variable_without_a_similar_one_lists_all(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KEYLEDGER_QQQQQQQQQQQQQ", "1")
        [line] = errors()
        assert all(PREFIX + name.upper() in line for name in DEFAULTS)

    def test_each_unknown_variable_has_a_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KEYLEDGER_PROT", "1")
        monkeypatch.setenv("KEYLEDGER_HOTS", "1")
        assert [line.partition(":")[0] for line in errors()] == ["KEYLEDGER_HOTS", "KEYLEDGER_PROT"]

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("data_dir", [""]),
            ("signing_key", [""]),
            ("checkpoint_file", [""]),
            (
                "database_url",
                [
                    "",
                    "nonsense",
                    "sqlite://",
                    "sqlite:///",
                    "sqlite:///:memory:",
                    "sqlite+aiosqlite:///keys.db",
                    "sqlite:///file:keys?mode=memory&uri=true",
                    "mysql://ada:lovelace@db/keys",
                ],
            ),
            ("port", ["", "http", "-1", "65536", "80.5", "1e3"]),
            ("workers", ["", "0", "65", "many"]),
            ("token_prefix", ["", "Key", "key_", "1key", "k" * 17, "κ"]),
            ("metrics_prefixes", ["Key", "key,(other)", "key, old"]),
            ("argon2_waiting", ["", "-1", "1001"]),
            ("max_body_bytes", ["", "1023", "16777217", "64k"]),
            ("expirer_seconds", ["", "0", "-1", "3601", "nan", "inf", "1s"]),
            ("last_used_seconds", ["", "0", "61", "nan"]),
            ("log_level", ["", "INFO", "trace"]),
            ("log_format", ["", "JSON", "xml"]),
        ],
    )
    def test_a_wrong_value_in_one_line_that_names_the_variable(
        self, name: str, values: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for value in values:
            monkeypatch.setenv(PREFIX + name.upper(), value)
            [line] = errors()
            variable, _, reason = line.partition(": ")
            assert variable == PREFIX + name.upper(), value
            assert reason
            assert "Value error" not in reason
            # A URL may contain a password.
            assert "lovelace" not in line

    @pytest.mark.parametrize("password", ["hunter@2", "hun@ter/2", "h@u@nter2"])
    def test_an_ambiguous_password_in_a_url(self, password: str) -> None:
        (error,) = errors(database_url=f"postgresql+psycopg://me:{password}@db/keys")
        assert "write @, / and : in a user name or password as %40, %2F and %3A" in error
        assert "hun" not in error
        assert "nter" not in error

    def test_a_port_that_is_no_number(self) -> None:
        (error,) = errors(database_url="postgresql+psycopg://me@db:x/keys")
        assert "not a database URL" in error

    def test_all_errors_are_reported_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("PORT", "WORKERS", "LOG_LEVEL"):
            monkeypatch.setenv(PREFIX + name, "x")
        variables = [line.partition(":")[0] for line in errors()]
        assert variables == ["KEYLEDGER_PORT", "KEYLEDGER_WORKERS", "KEYLEDGER_LOG_LEVEL"]

    def test_an_option_that_is_not_valid_by_the_name_of_the_option(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KEYLEDGER_PORT", "9000")
        assert errors(port=70_000, workers=0) == [
            "--port: use a whole number, at least 0 and at most 65535",
            "--workers: use a whole number, at least 1 and at most 64",
        ]

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("PORT", "http", "use a whole number, at least 0 and at most 65535"),
            ("WORKERS", "0", "use a whole number, at least 1 and at most 64"),
            ("MAX_CONNECTIONS", "0", "use a whole number, at least 1"),
            ("TAIL_SECONDS", "0", "use a number, greater than 0 and at most 60"),
            ("EXPIRER_SECONDS", "nan", "use a number, greater than 0 and at most 3600"),
            ("LOG_LEVEL", "INFO", "use one of debug, info, warning, error"),
        ],
    )
    def test_a_number_or_a_choice_with_the_values_that_are_allowed(
        self, name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(PREFIX + name, value)
        assert errors() == [f"{PREFIX}{name}: {message}"]

    def test_a_home_folder_that_does_not_exist(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KEYLEDGER_DATA_DIR", "~nobody-of-this-name/keys")
        [line] = errors()
        assert "the home folder ~nobody-of-this-name is not known" in line

    def test_an_unknown_option(self) -> None:
        [line] = errors(colour="red")
        assert line == "--colour: no such setting"
