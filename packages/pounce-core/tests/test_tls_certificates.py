"""TLS over connections: certificates by name, renewed ones, those of clients, and one for development."""

import contextlib
import datetime
import json
import logging
import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pounce import ConfigError, Server, ServerConfig, TLSError
from pounce.net.self_signed import RENEWED_AFTER, self_signed_file
from pounce.net.tls import ServerTLS
from pounce.testing import TestServer

NOW = datetime.datetime.now(datetime.UTC)


class Authority:
    """Signs certificates, and says which are revoked."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.file = folder / f"{name}.pem"
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = self._builder(self.name, self.key).add_extension(x509.BasicConstraints(True, None), True)
        self.file.write_bytes(self._signed(builder.add_extension(usage, True)))

    def issue(self, name: str, file: str = "", organization: str | None = None) -> Path:
        """A file with key and certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        parts = [x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, organization)] if organization else []
        subject = x509.Name([*parts, x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key).add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self.folder / (file or f"{name.replace('*', 'star')}.pem")
        path.write_bytes(private + self._signed(builder.add_extension(authority, False)))
        return path

    def revoke(self, certificate: Path) -> Path:
        serial = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW).build()
        crl = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(NOW - datetime.timedelta(days=1))
            .next_update(NOW + datetime.timedelta(days=1))
            .add_revoked_certificate(entry)
            .sign(self.key, hashes.SHA256())
        )
        path = self.folder / "crl.pem"
        path.write_bytes(crl.public_bytes(serialization.Encoding.PEM))
        return path

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - datetime.timedelta(days=1))
            .not_valid_after(NOW + datetime.timedelta(days=30))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        )

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": json.dumps(scope["extensions"]["tls"]).encode()})


def serving(certificate: Path, **settings: Any) -> TestServer:
    return TestServer(app, ssl_certfile=str(certificate), ssl_keyfile=str(certificate), **settings)


class Client:
    """Opens connections to one server, and trusts one authority."""

    def __init__(self, server: TestServer | At, trusted: Path, certificate: Path | None = None) -> None:
        self.server: TestServer | At = server
        self.context = ssl.create_default_context(cafile=str(trusted))
        if certificate is not None:
            self.context.load_cert_chain(certificate)

    def connect(self, name: str | None = "localhost", session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        self.context.check_hostname = name is not None
        raw = socket.create_connection((self.server.host, self.server.port), 30)
        return self.context.wrap_socket(raw, server_hostname=name, session=session)

    def get(self, name: str | None = "localhost", session: ssl.SSLSession | None = None) -> dict[str, Any]:
        """The `tls` extension, and `resumed`; raises `OSError` when the server does not want us."""
        with self.connect(name, session) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            data = b""
            while piece := sock.recv(65536):
                data += piece
            self.session = sock.session
            if not data:
                raise ConnectionResetError
            shown: dict[str, Any] = json.loads(data.partition(b"\r\n\r\n")[2])
            return shown | {"resumed": sock.session_reused}

    def name_of_server(self, name: str | None) -> str:
        """Common name of the certificate that the server shows."""
        with self.connect(name) as sock:
            certificate: Any = sock.getpeercert()
            return str(certificate["subject"][0][0][1])


# By name


def test_certificate_is_that_of_the_name_asked_for(authority: Authority) -> None:
    localhost, org, star = (authority.issue(name) for name in ("localhost", "example.org", "*.example.org"))
    settings = {"ssl_sni": (f"example.org={org}:{org}", f"*.Example.org={star}")}
    with serving(localhost, **settings) as server:
        client = Client(server, authority.file)
        assert client.name_of_server("localhost") == "localhost"
        assert client.name_of_server(None) == "localhost"
        assert client.name_of_server("example.org") == "example.org"
        assert client.name_of_server("EXAMPLE.org") == "example.org"
        assert client.name_of_server("www.example.org") == "*.example.org"
        with pytest.raises(ssl.SSLCertVerificationError):
            client.connect("a.b.example.org")


def test_application_sees_the_certificate_that_the_client_has_seen(authority: Authority) -> None:
    localhost, org = authority.issue("localhost"), authority.issue("example.org")
    with serving(localhost, ssl_sni=(f"example.org={org}",)) as server:
        shown = Client(server, authority.file).get("example.org")["server_cert"]
        assert shown in org.read_text()


def test_wire_is_negotiated_under_every_name(authority: Authority) -> None:
    localhost, org = authority.issue("localhost"), authority.issue("example.org")
    with serving(localhost, ssl_sni=(f"example.org={org}",)) as server:
        client = Client(server, authority.file)
        client.context.set_alpn_protocols(["http/1.1"])
        with client.connect("example.org") as sock:
            assert sock.selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("text", ["", "example.org", "=a:b", "example.org=", "example.org=a:b:c", "a b=c:d", "x*y=c:d"])
def test_name_without_a_certificate_is_an_error(authority: Authority, text: str) -> None:
    with pytest.raises(Exception, match="ssl_sni must be name=certfile:keyfile"):
        serving(authority.issue("localhost"), ssl_sni=(text,)).start()


def test_name_with_two_certificates_is_an_error(authority: Authority) -> None:
    path = authority.issue("localhost")
    with pytest.raises(Exception, match="two certificates for a"):
        serving(path, ssl_sni=(f"a={path}", f"A={path}")).start()


def test_bad_certificate_of_a_name_is_an_error_that_names_it(authority: Authority) -> None:
    with pytest.raises(TLSError, match=r"/missing\.pem"):
        serving(authority.issue("localhost"), ssl_sni=("example.org=/missing.pem",)).start()


# Renewed


def renewed(authority: Authority, path: Path) -> None:
    """A new certificate in the place of `path`, with a time of its own."""
    before = path.stat().st_mtime_ns
    authority.issue("localhost", path.name)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def config_of(path: Path, **settings: Any) -> ServerConfig:
    return ServerConfig.of({"ssl_certfile": str(path), "ssl_keyfile": str(path)} | settings)


def test_changed_file_is_read_after_a_few_seconds(authority: Authority) -> None:
    path = authority.issue("localhost")
    tls = ServerTLS(config_of(path), [])
    first = tls.context(100)
    renewed(authority, path)
    assert tls.context(104.9) is first
    second = tls.context(105)
    assert second is not first
    assert second.certificate in path.read_text()
    assert tls.context(111) is second


@pytest.mark.parametrize("setting", ["ssl_keyfile", "ssl_keyfile_password_file", "ssl_ca_certs", "ssl_crl", "ssl_sni"])
def test_every_file_is_looked_at(authority: Authority, tmp_path: Path, setting: str) -> None:
    path = authority.issue("localhost")
    other = tmp_path / "other.pem"
    shutil.copy(authority.revoke(path) if setting == "ssl_crl" else path, other)
    if setting == "ssl_ca_certs":
        shutil.copy(authority.file, other)
    clients = {"ssl_ca_certs": str(authority.file), "ssl_cert_reqs": "optional"}
    value = (f"example.org={other}",) if setting == "ssl_sni" else str(other)
    tls = ServerTLS(config_of(path, **clients | {setting: value}), [])
    first = tls.context(0)
    os.utime(other, ns=(1, 1))
    assert tls.context(6) is not first


def test_link_that_leads_elsewhere_is_a_change(authority: Authority, tmp_path: Path) -> None:
    old, new, link = authority.issue("localhost"), authority.issue("localhost", "new.pem"), tmp_path / "link.pem"
    os.utime(new, ns=(old.stat().st_atime_ns, old.stat().st_mtime_ns))
    link.symlink_to(old)
    tls = ServerTLS(config_of(link), [])
    link.unlink()
    link.symlink_to(new)
    assert tls.context(0).certificate in new.read_text()


def test_without_reload_files_are_read_once(authority: Authority) -> None:
    path = authority.issue("localhost")
    tls = ServerTLS(config_of(path, ssl_reload=False), [])
    first = tls.context(0)
    renewed(authority, path)
    assert tls.context(1000) is first


def test_broken_new_certificate_keeps_the_old_and_is_logged_once(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    path = authority.issue("localhost")
    tls = ServerTLS(config_of(path), [])
    first = tls.context(0)
    path.write_text("nonsense")
    assert tls.context(10) is first
    assert tls.context(20) is first
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert str(path) in errors[0]
    assert tls.reload() is False
    renewed(authority, path)
    assert tls.context(30) is not first


@pytest.mark.parametrize("workers", [1, 2])
def test_connection_keeps_its_certificate_and_the_next_has_the_new_one(authority: Authority, workers: int) -> None:
    path = authority.issue("localhost")
    config = config_of(path, port=0, access_log=False, loop="asyncio", workers=workers)
    with Running(Server(config, app)) as running, contextlib.ExitStack() as open_ones:
        client = Client(running, authority.file)
        seen: list[ssl.SSLSocket] = []
        for _ in range(5):
            seen.append(open_ones.enter_context(client.connect()))
            renewed(authority, path)
            assert running.server.reload_certificates() is True
        assert len({sock.getpeercert(True) for sock in seen}) == 5
        for sock in seen:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")


def test_server_without_tls_has_nothing_to_read_again() -> None:
    assert Server(ServerConfig(), app).reload_certificates() is True


class Running(TestServer):
    """A server of one's own making, as a TestServer."""

    def __init__(self, server: Server) -> None:
        super().__init__(app)
        self._server = self.server = server
        server._on_ready = self._on_ready


# Of clients


@pytest.fixture
def clients(authority: Authority, tmp_path: Path) -> Iterator[dict[str, Any]]:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other", "other-authority")
    yield {
        "server": authority.issue("localhost"),
        "alice": authority.issue("alice", organization="Example, Inc."),
        "mallory": other.issue("mallory"),
        "trusted": str(authority.file),
    }


def test_client_certificate_reaches_the_application(authority: Authority, clients: dict[str, Any]) -> None:
    with serving(clients["server"], ssl_cert_reqs="required", ssl_ca_certs=clients["trusted"]) as server:
        shown = Client(server, authority.file, clients["alice"]).get()
    assert shown["client_cert_name"] == "CN=alice,O=Example\\, Inc."
    assert shown["client_cert_chain"][0] in clients["alice"].read_text()


def test_client_without_a_certificate_is_turned_away_or_not(authority: Authority, clients: dict[str, Any]) -> None:
    trusted = {"ssl_ca_certs": clients["trusted"]}
    with serving(clients["server"], ssl_cert_reqs="optional", **trusted) as server:
        shown = Client(server, authority.file).get()
        assert (shown["client_cert_name"], shown["client_cert_chain"]) == (None, [])
    with serving(clients["server"], ssl_cert_reqs="required", **trusted) as server, pytest.raises(OSError):
        Client(server, authority.file).get()


@pytest.mark.parametrize("reqs", ["optional", "required"])
def test_client_of_an_unknown_authority_is_turned_away(
    authority: Authority, clients: dict[str, Any], reqs: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(clients["server"], ssl_cert_reqs=reqs, ssl_ca_certs=clients["trusted"]) as server:
        with pytest.raises(OSError):
            Client(server, authority.file, clients["mallory"]).get()
        assert Client(server, authority.file, clients["alice"]).get()["client_cert_name"].startswith("CN=alice")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_client_whose_certificate_is_revoked_is_turned_away(authority: Authority, clients: dict[str, Any]) -> None:
    crl = str(authority.revoke(clients["alice"]))
    bob = authority.issue("bob")
    settings = {"ssl_cert_reqs": "required", "ssl_ca_certs": clients["trusted"], "ssl_crl": crl}
    with serving(clients["server"], **settings) as server:
        with pytest.raises(OSError):
            Client(server, authority.file, clients["alice"]).get()
        assert Client(server, authority.file, bob).get()["client_cert_name"] == "CN=bob"


def test_clients_are_asked_under_every_name(authority: Authority, clients: dict[str, Any]) -> None:
    org = authority.issue("example.org")
    settings = {"ssl_cert_reqs": "required", "ssl_ca_certs": clients["trusted"], "ssl_sni": (f"example.org={org}",)}
    with serving(clients["server"], **settings) as server:
        with pytest.raises(OSError):
            Client(server, authority.file).get("example.org")
        with pytest.raises(OSError):
            Client(server, authority.file, clients["mallory"]).get("example.org")
        assert Client(server, authority.file, clients["alice"]).get("example.org")["client_cert_name"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_session_does_not_outlive_the_trust_in_its_authority(
    authority: Authority, clients: dict[str, Any], tmp_path: Path, version: ssl.TLSVersion
) -> None:
    trusted = tmp_path / "trusted.pem"
    shutil.copy(authority.file, trusted)
    settings = {"ssl_cert_reqs": "required", "ssl_ca_certs": str(trusted), "port": 0, "access_log": False}
    with Running(Server(config_of(clients["server"], **settings), app)) as running:
        alice = Client(running, authority.file, clients["alice"])
        alice.context.maximum_version = version
        alice.get()
        resumed = alice.get(session=alice.session)
        assert resumed["resumed"]
        assert resumed["client_cert_name"].startswith("CN=alice")
        shutil.copy(tmp_path / "other" / "other-authority.pem", trusted)
        assert running.server.reload_certificates() is True
        with pytest.raises(OSError):
            alice.get(session=alice.session)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_without_tickets_no_client_gets_one(authority: Authority, version: ssl.TLSVersion) -> None:
    with serving(authority.issue("localhost"), ssl_session_tickets=0) as server:
        client = Client(server, authority.file)
        client.context.maximum_version = version
        client.get()
        assert client.session is None or not client.session.has_ticket


@pytest.mark.parametrize("what", ["missing", "empty", "key"])
def test_authorities_that_cannot_be_read_are_an_error(authority: Authority, tmp_path: Path, what: str) -> None:
    path = tmp_path / "bad.pem"
    if what != "missing":
        path.write_text("" if what == "empty" else authority.issue("x").read_text().partition("-----BEGIN C")[0])
    settings = {"ssl_cert_reqs": "required", "ssl_ca_certs": str(path)}
    with pytest.raises(TLSError):
        serving(authority.issue("localhost"), **settings).start()


# For development


def test_self_signed_certificate_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = self_signed_file(tmp_path / "pounce")
    content = path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert self_signed_file(tmp_path / "pounce").read_bytes() == content
    assert [item.name for item in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("why", ["old", "readable"])
def test_self_signed_certificate_that_is_old_or_open_is_made_anew(tmp_path: Path, why: str) -> None:
    path = self_signed_file(tmp_path)
    content = path.read_bytes()
    if why == "old":
        then = time.time() - RENEWED_AFTER * 86400 - 1
        os.utime(path, (then, then))
    else:
        path.chmod(0o644)
    assert self_signed_file(tmp_path).read_bytes() != content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_self_signed_certificate_is_not_kept_where_others_could_put_one_of_their_own(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(TLSError, match="others can write to it"):
        self_signed_file(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_self_signed_certificate_that_cannot_take_its_place_leaves_no_key_behind(tmp_path: Path) -> None:
    (tmp_path / "self-signed.pem").mkdir()
    with pytest.raises(TLSError):
        self_signed_file(tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["self-signed.pem"]


def test_server_with_a_self_signed_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with TestServer(app, ssl_self_signed=True) as server:
        assert server.url.startswith("https://")
        client = Client(server, tmp_path / "pounce" / "self-signed.pem")
        assert client.get("localhost")["tls_version"] == 0x0304
        assert client.get("127.0.0.1")


def test_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TLSError) as caught:
        self_signed_file(tmp_path / "file" / "pounce")
    assert "XDG_CACHE_HOME" in (caught.value.hint or "")


def test_without_the_library_the_error_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "import pounce\n"
        "try: pounce.Server(pounce.ServerConfig(ssl_self_signed=True), 'main:app')\n"
        "except pounce.TLSError as exc: print(exc.code, exc.hint)\n"
    )
    environ = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environ)
    assert done.stdout.startswith("POUNCE_TLS_SELF_SIGNED pip install 'pounce-core[self-signed]'")


# Of a bind


class At(NamedTuple):
    """Where a bind is."""

    host: str
    port: int

    @classmethod
    def url(cls, url: str) -> At:
        host, _, port = url.partition("://")[2].rpartition(":")
        return cls(host, int(port))


TOLD = """
import json, ssl

def tighten(context):
    context.minimum_version = ssl.TLSVersion.TLSv1_3

async def app(scope, receive, send):
    told = json.dumps(scope["extensions"].get("tls")).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": told})
"""


@pytest.fixture(params=["alone", "thread", "process", "subinterpreter"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """How a server runs."""
    (tmp_path / "told.py").write_text(TOLD)
    settings: dict[str, Any] = {"app_dir": str(tmp_path), "lifespan": "off"}
    return settings if request.param == "alone" else settings | {"workers": 2, "worker_mode": request.param}


def test_bind_has_certificates_and_rules_for_clients_of_its_own(
    authority: Authority, clients: dict[str, Any], where: dict[str, Any]
) -> None:
    own = authority.issue("inner")
    options = {"ssl_certfile": own, "ssl_keyfile": own, "ssl_cert_reqs": "required", "ssl_ca_certs": clients["trusted"]}
    inner = "127.0.0.1:0?" + "&".join(f"{name}={value}" for name, value in options.items())
    outer = {"ssl_certfile": str(clients["server"]), "ssl_keyfile": str(clients["server"])}
    binds = ("127.0.0.1:0", inner, "http://127.0.0.1:0")
    with TestServer("told:app", bind=binds, ssl_context="told:tighten", **outer, **where) as server:
        assert [url.partition(":")[0] for url in server.info.urls] == ["https", "https", "http"]
        first, second, _ = map(At.url, server.info.urls)
        anybody = Client(first, authority.file)
        assert anybody.name_of_server("localhost") == "localhost"
        assert anybody.get()["client_cert_chain"] == []
        alice = Client(second, authority.file, clients["alice"])
        assert alice.name_of_server("inner") == "inner"
        assert alice.get("inner")["client_cert_name"].startswith("CN=alice")
        with pytest.raises(OSError):
            Client(second, authority.file).get("inner")
        # Both have gone through the hands of the operator.
        for client, name in ((anybody, "localhost"), (alice, "inner")):
            client.context.maximum_version = ssl.TLSVersion.TLSv1_2
            with pytest.raises(ssl.SSLError):
                client.connect(name)


def test_session_of_one_bind_is_nothing_at_another(authority: Authority, clients: dict[str, Any]) -> None:
    inner = f"127.0.0.1:0?ssl_cert_reqs=required&ssl_ca_certs={clients['trusted']}"
    with serving(clients["server"], bind=("127.0.0.1:0", inner)) as server:
        first, second = map(At.url, server.info.urls)
        client = Client(first, authority.file)
        client.get()
        assert client.get(session=client.session)["resumed"]
        client.server = second
        with pytest.raises(OSError):
            client.get(session=client.session)


def test_bind_may_have_the_only_certificate(authority: Authority) -> None:
    certificate = authority.issue("localhost")
    own = f"127.0.0.1:0?ssl_certfile={certificate}&ssl_keyfile={certificate}"
    with TestServer(app, bind=(own, "127.0.0.1:0")) as server:
        assert [url.partition(":")[0] for url in server.info.urls] == ["https", "http"]
        assert server.info.tls
        assert Client(At.url(server.info.urls[0]), authority.file).name_of_server("localhost") == "localhost"


def test_certificate_of_a_bind_is_read_again_too(authority: Authority, clients: dict[str, Any]) -> None:
    own = authority.issue("old", file="own.pem")
    config = ServerConfig(
        port=0, bind=("127.0.0.1:0", f"127.0.0.1:0?ssl_certfile={own}&ssl_keyfile={own}"), lifespan="off",
        ssl_certfile=str(clients["server"]), ssl_keyfile=str(clients["server"]), ssl_reload=False, access_log=False,
    )  # fmt: skip
    with Running(Server(config, app)) as server:
        client = Client(At.url(server.info.urls[1]), authority.file)
        assert client.name_of_server("old") == "old"
        authority.issue("new", file="own.pem")
        assert server.server.reload_certificates()
        assert client.name_of_server("new") == "new"
        own.write_text("nothing")
        assert not server.server.reload_certificates()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("ssl_certfile=c", "ssl_certfile is given without ssl_keyfile"),
        ("ssl_cert_reqs=required", "client certificates need both"),
        ("ssl_minimum_version=1.1", "ssl_minimum_version must be one of"),
        ("ssl_keyfile_password=x", "of which a bind cannot have its own"),
    ],
)
def test_wrong_tls_of_a_bind_is_an_error_that_names_it(options: str, said: str) -> None:
    server = TestServer(app, bind=(f"127.0.0.1:0?{options}",))
    with pytest.raises(ConfigError, match=re.escape(said)):
        server.start()
