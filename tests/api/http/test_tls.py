"""TLS in the server itself: real handshakes, and a certificate that is renewed while it runs."""

import re
import signal
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from warnings import catch_warnings

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs

from api.http.tls import NoTls, RenewableTls
from tests.system.processes import Server, Servers, eventually

CERTIFICATE, KEY = "certificate.pem", "key.pem"
URL = re.compile(r"Uvicorn running on https://127\.0\.0\.1:(\d+)")


def write_certificate(
    folder: Path, name: str, encryption: KeySerializationEncryption | None = None
) -> None:
    """Write a new certificate for a name and its key, over existing ones."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    (folder / CERTIFICATE).write_bytes(certificate.public_bytes(Encoding.PEM))
    (folder / KEY).write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    )
    (folder / KEY).chmod(0o600)


def client_context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = version
    return context


def name_in(certificate: bytes | None) -> str:
    assert certificate is not None
    subject = x509.load_der_x509_certificate(certificate).subject
    return str(subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def shaken(tls: RenewableTls, name: str | None = None) -> str:
    """Complete a handshake with a server's context, and return the name in its certificate."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = tls.context.wrap_bio(to_server, to_client, server_side=True)
    client = client_context().wrap_bio(to_client, to_server, server_hostname=name)
    waiting = [client, server]
    while waiting:
        for side in tuple(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    return name_in(client.getpeercert(binary_form=True))


@pytest.fixture
def tls(tmp_path: Path) -> RenewableTls:
    write_certificate(tmp_path, "first")
    return RenewableTls(tmp_path / CERTIFICATE, tmp_path / KEY)


class TestRenewal:
    @pytest.mark.parametrize("name", [None, "keys.example.org"])
    def test_the_next_handshake_uses_the_new_certificate(
        self, tls: RenewableTls, tmp_path: Path, name: str | None
    ) -> None:
        assert shaken(tls, name) == "first"
        write_certificate(tmp_path, "second")
        assert shaken(tls, name) == "second"
        assert shaken(tls, name) == "second"

    def test_the_old_one_stays_while_the_new_one_cannot_be_used(
        self, tls: RenewableTls, tmp_path: Path
    ) -> None:
        old_key = (tmp_path / KEY).read_bytes()
        write_certificate(tmp_path, "second")
        new_key = (tmp_path / KEY).read_bytes()
        (tmp_path / KEY).write_bytes(old_key)
        with capture_logs() as logged:
            assert [shaken(tls), shaken(tls)] == ["first", "first"]
            (tmp_path / KEY).unlink()
            assert shaken(tls) == "first"
            (tmp_path / KEY).touch(0o600)
            (tmp_path / KEY).write_bytes(new_key)
            assert shaken(tls) == "second"
        events = [line["event"] for line in logged]
        assert events == ["certificate_not_renewed"] * 2 + ["certificate_renewed"]

    def test_a_renewed_key_is_used_once_others_cannot_open_it(
        self, tls: RenewableTls, tmp_path: Path
    ) -> None:
        write_certificate(tmp_path, "second")
        (tmp_path / KEY).chmod(0o640)
        assert [shaken(tls), shaken(tls)] == ["first", "first"]
        (tmp_path / KEY).chmod(0o600)
        assert shaken(tls) == "second"


class TestRefused:
    @pytest.mark.parametrize("mode", [0o604, 0o640, 0o620, 0o777])
    def test_a_key_that_others_can_open(self, tmp_path: Path, mode: int) -> None:
        write_certificate(tmp_path, "first")
        key = tmp_path / KEY
        key.chmod(mode)
        with pytest.raises(NoTls, match=rf"other accounts can open .*: run chmod 6.0 {key}"):
            RenewableTls(tmp_path / CERTIFICATE, key)
        # It belongs to another program, such as certbot.
        assert key.stat().st_mode & 0o777 == mode

    @pytest.mark.parametrize("missing", [CERTIFICATE, KEY])
    def test_a_missing_file(self, tmp_path: Path, missing: str) -> None:
        write_certificate(tmp_path, "first")
        (tmp_path / missing).unlink()
        with pytest.raises(NoTls, match=f"cannot read .*{missing}: No such file"):
            RenewableTls(tmp_path / CERTIFICATE, tmp_path / KEY)

    @pytest.mark.parametrize("empty", [CERTIFICATE, KEY])
    def test_a_file_of_another_form(self, tmp_path: Path, empty: str) -> None:
        write_certificate(tmp_path, "first")
        (tmp_path / empty).write_text("nothing")
        with pytest.raises(NoTls, match="cannot use the certificate"):
            RenewableTls(tmp_path / CERTIFICATE, tmp_path / KEY)

    def test_a_key_of_another_certificate(self, tmp_path: Path) -> None:
        write_certificate(tmp_path, "first")
        key = (tmp_path / KEY).read_bytes()
        write_certificate(tmp_path, "second")
        (tmp_path / KEY).write_bytes(key)
        with pytest.raises(NoTls, match="the key does not belong to the certificate"):
            RenewableTls(tmp_path / CERTIFICATE, tmp_path / KEY)

    def test_a_private_key_with_a_password_is_refused_without_a_prompt(
        self, tmp_path: Path
    ) -> None:
        write_certificate(tmp_path, "first", BestAvailableEncryption(b"password"))
        with pytest.raises(NoTls, match=r"have a password|BAD"):
            RenewableTls(tmp_path / CERTIFICATE, tmp_path / KEY)

    @pytest.mark.only_on("sqlite")
    def test_one_file_without_the_other_starts_no_server(
        self, servers: Servers, tmp_path: Path
    ) -> None:
        server = servers.begin(tls_certificate=tmp_path / CERTIFICATE)
        assert server.wait() == 1
        [line] = server.log_lines
        assert "set both KEYLEDGER_TLS_CERTIFICATE and KEYLEDGER_TLS_KEY" in line["event"]
        assert not servers.data_dir.exists()


def name_shown(port: int, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> str:
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        client_context(version).wrap_socket(plain) as connection,
    ):
        return name_in(connection.getpeercert(binary_form=True))


def port_of(server: Server) -> int:
    eventually(lambda: server.log.count("Application startup complete") == 2, "both are ready")
    match = URL.search(server.log)
    assert match, server.log
    return int(match[1])


@pytest.mark.only_on("sqlite")
def test_workers_serve_over_tls_and_take_up_a_new_certificate(
    servers: Servers, tmp_path: Path
) -> None:
    write_certificate(tmp_path, "first")
    server = servers.begin(
        "--workers", "2", tls_certificate=tmp_path / CERTIFICATE, tls_key=tmp_path / KEY
    )
    port = port_of(server)
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        assert name_shown(port, version) == "first"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        name_shown(port, ssl.TLSVersion.TLSv1_1)
    write_certificate(tmp_path, "second")
    assert {name_shown(port) for _ in range(8)} == {"second"}

    base = f"https://127.0.0.1:{port}"
    with httpx.Client(base_url=base, verify=client_context(), trust_env=False) as client:
        headers = {"Authorization": f"Bearer {server.root_token}"}
        assert client.get("/v1/keys", headers=headers).status_code == 200
        answer = client.post("/console/sign-in", data={"token": server.root_token or ""})
        cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-keyledger=")
    assert "Secure" in cookie
    assert "plain_http" not in server.log

    server.send(signal.SIGHUP)
    assert server.wait() == 0
    assert "Traceback" not in server.log
    assert server.log.count("Finished server process") == 2
