"""TLS: files, versions, ALPN, and peers that do not play along."""

import asyncio
import asyncio.sslproto
import gc
import logging
import os
import shutil
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from benchmarks.load.certificate import certificate_files
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pounce import ConfigError, ServerConfig, TLSError
from pounce.net.tls import ServerContext, ServerTLS, distinguished_name
from pounce.testing import TestServer
from pounce.worker.loop import HAS_OWN

PASSWORD = "correct horse"


class Files(NamedTuple):
    cert: Path
    key: Path
    encrypted: Path
    other_key: Path

    def config(self, **more: Any) -> ServerConfig:
        return ServerConfig.of({"ssl_certfile": str(self.cert), "ssl_keyfile": str(self.key)} | more)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("tls")
    cert, plain = certificate_files(folder)
    key = serialization.load_pem_private_key(plain.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    other = ec.generate_private_key(ec.SECP256R1())

    def pem(key: ec.EllipticCurvePrivateKey, encryption: serialization.KeySerializationEncryption) -> bytes:
        return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)

    found = Files(cert, plain, folder / "encrypted.pem", folder / "other.pem")
    found.encrypted.write_bytes(pem(key, serialization.BestAvailableEncryption(PASSWORD.encode())))
    found.other_key.write_bytes(pem(other, serialization.NoEncryption()))
    return found


def create_context(config: ServerConfig) -> ServerContext:
    return ServerTLS(config, ["http/1.1"]).context(0)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"secure"})


@pytest.fixture
def server(files: Files) -> Iterator[TestServer]:
    settings = {"ssl_certfile": str(files.cert), "ssl_keyfile": str(files.key), "tls_handshake_timeout": 0.2}
    with TestServer(app, **settings) as running:
        yield running


def client_context(files: Files, *alpn: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(files.cert))
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def tcp(server: TestServer) -> socket.socket:
    return socket.create_connection((server.host, server.port), 5)


def is_served(server: TestServer, files: Files) -> bool:
    with client_context(files).wrap_socket(tcp(server), server_hostname="localhost") as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        data = b""
        while piece := client.recv(65536):
            data += piece
    return data.endswith(b"secure")


# Files


def test_certificate_and_key_are_loaded(files: Files) -> None:
    context = create_context(files.config())
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_COMPRESSION
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_application_sees_the_first_certificate(files: Files, tmp_path: Path) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_text("text before\n" + files.cert.read_text() * 2)
    assert create_context(files.config(ssl_certfile=str(chain))).certificate == files.cert.read_text()


def test_encrypted_key_is_opened_with_its_password(files: Files) -> None:
    create_context(files.config(ssl_keyfile=str(files.encrypted), ssl_keyfile_password=PASSWORD))


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\nmore"], ids=repr)
def test_password_is_the_first_line_of_its_file(files: Files, tmp_path: Path, ending: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(PASSWORD.encode() + ending.encode())
    create_context(files.config(ssl_keyfile=str(files.encrypted), ssl_keyfile_password_file=str(path)))


def test_password_file_that_is_missing_is_an_error(files: Files) -> None:
    with pytest.raises(TLSError, match="/missing"):
        create_context(files.config(ssl_keyfile_password_file="/missing"))


def test_encrypted_key_without_a_password_is_an_error_and_asks_nobody(files: Files) -> None:
    with pytest.raises(TLSError, match="encrypted") as caught:
        create_context(files.config(ssl_keyfile=str(files.encrypted)))
    assert caught.value.code == "POUNCE_TLS_KEY_PASSWORD"


def broken(folder: Path, what: str) -> Path:
    path = folder / what
    if what == "empty":
        path.write_bytes(b"")
    elif what == "garbage":
        path.write_bytes(b"\x00\xff garbage")
    elif what == "pem-of-garbage":
        path.write_text("-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n")
    elif what == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize("setting", ["ssl_certfile", "ssl_keyfile"])
@pytest.mark.parametrize("what", ["missing", "empty", "garbage", "pem-of-garbage", "folder"])
def test_file_that_cannot_be_used_is_an_error(files: Files, tmp_path: Path, what: str, setting: str) -> None:
    path = broken(tmp_path, what)
    with pytest.raises(TLSError) as caught:
        create_context(files.config(**{setting: str(path)}))
    assert caught.value.exit_code == 6
    assert caught.value.hint


def test_file_that_is_missing_is_named(files: Files, tmp_path: Path) -> None:
    for setting in ("ssl_certfile", "ssl_keyfile"):
        with pytest.raises(TLSError, match=str(tmp_path / setting)):
            create_context(files.config(**{setting: str(tmp_path / setting)}))


@pytest.mark.parametrize("password", ["wrong", ""])
def test_wrong_password_is_an_error_that_does_not_repeat_it(files: Files, password: str) -> None:
    with pytest.raises(TLSError) as caught:
        create_context(files.config(ssl_keyfile=str(files.encrypted), ssl_keyfile_password=password))
    assert "'wrong'" not in str(caught.value)
    assert caught.value.code == "POUNCE_TLS_KEY_PASSWORD"


def test_key_of_another_certificate_is_an_error_that_names_both(files: Files) -> None:
    with pytest.raises(TLSError, match=f"{files.other_key} does not belong to the certificate {files.cert}") as caught:
        create_context(files.config(ssl_keyfile=str(files.other_key)))
    assert caught.value.code == "POUNCE_TLS_KEY_MISMATCH"


def test_certificate_in_place_of_the_key_is_an_error_that_says_so(files: Files) -> None:
    with pytest.raises(TLSError, match="no private key"):
        create_context(files.config(ssl_keyfile=str(files.cert)))
    with pytest.raises(TLSError, match="no certificate"):
        create_context(files.config(ssl_certfile=str(files.key)))


# Settings


@pytest.mark.parametrize(
    "settings",
    [
        {"ssl_sni": ("a=b",)},
        {"ssl_ca_certs": "ca.pem", "ssl_cert_reqs": "required"},
        {"ssl_self_signed": True, "ssl_certfile": "c", "ssl_keyfile": "k"},
        {"ssl_keyfile_password": "a", "ssl_keyfile_password_file": "b"},
        {"ssl_certfile": "c", "ssl_keyfile": "k", "ssl_cert_reqs": "optional"},
        {"ssl_certfile": "c", "ssl_keyfile": "k", "ssl_ca_certs": "ca.pem"},
        {"ssl_certfile": "c", "ssl_keyfile": "k", "ssl_crl": "crl.pem"},
        {"ssl_self_signed": True, "ssl_cert_reqs": "optional", "ssl_ca_certs": "ca.pem", "http3_enabled": True},
    ],
    ids=str,
)
def test_settings_that_do_not_go_together_are_an_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig.of(settings)
    assert caught.value.hint


def test_minimum_version(files: Files) -> None:
    context = create_context(files.config(ssl_minimum_version="1.3"))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3


def test_ciphers(files: Files) -> None:
    context = create_context(files.config(ssl_ciphers="ECDHE-ECDSA-AES256-GCM-SHA384"))
    names = [entry["name"] for entry in context.get_ciphers() if not entry["name"].startswith("TLS_")]
    assert names == ["ECDHE-ECDSA-AES256-GCM-SHA384"]


def test_ciphers_that_do_not_exist_are_an_error(files: Files) -> None:
    with pytest.raises(TLSError) as caught:
        create_context(files.config(ssl_ciphers="NO-SUCH-CIPHER"))
    assert caught.value.code == "POUNCE_TLS_CIPHERS"


@pytest.mark.parametrize("tickets", [0, 3])
def test_session_tickets(files: Files, tickets: int) -> None:
    context = create_context(files.config(ssl_session_tickets=tickets))
    assert context.num_tickets == tickets
    assert bool(context.options & ssl.OP_NO_TICKET) is (tickets == 0)


def test_key_log_is_written_and_warned_of(files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    with TestServer(app, ssl_certfile=str(files.cert), ssl_keyfile=str(files.key), ssl_keylog=str(path)) as server:
        assert is_served(server, files)
    assert "CLIENT_TRAFFIC_SECRET" in path.read_text()
    assert str(path) in caplog.text


@pytest.mark.parametrize("exists", [False, True])
def test_key_log_is_for_its_owner_alone_whatever_the_umask(files: Files, tmp_path: Path, exists: bool) -> None:
    path, before = tmp_path / "keys", os.umask(0o000)
    try:
        if exists:
            path.write_text("before\n")
        create_context(files.config(ssl_keylog=str(path)))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("before" if exists else "")


def test_key_log_is_written_to_a_file_alone(files: Files, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    precious.chmod(0o644)
    (tmp_path / "link").symlink_to(precious)
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "dangling", "pipe", "."):
        with pytest.raises(TLSError, match="ssl_keylog cannot be written"):
            create_context(files.config(ssl_keylog=str(tmp_path / name)))
    assert precious.read_text() == "precious"
    assert stat.S_IMODE(precious.stat().st_mode) == 0o644
    assert not (tmp_path / "nothing").exists()


def test_key_log_that_cannot_be_written_is_an_error(files: Files) -> None:
    with pytest.raises(TLSError, match="/no/such"):
        create_context(files.config(ssl_keylog="/no/such/folder"))


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ([], None),
        ([[("countryName", "DE")], [("organizationName", "A")], [("commonName", "x")]], "CN=x,O=A,C=DE"),
        ([[("commonName", "x"), ("userId", "7")]], "CN=x+UID=7"),
        ([[("commonName", 'a,b+c"d\\e<f>g;h')]], 'CN=a\\,b\\+c\\"d\\\\e\\<f\\>g\\;h'),
        ([[("commonName", "#x ")]], "CN=\\#x\\ "),
        ([[("commonName", " ")]], "CN=\\ "),
        ([[("commonName", "a\0")]], "CN=a\\00"),
    ],
    ids=str,
)
def test_name_of_a_client_is_written_as_rfc_4514_has_it(subject: Any, name: str | None) -> None:
    assert distinguished_name({"subject": subject}) == name


def test_server_with_a_bad_certificate_does_not_start_and_frees_its_socket(files: Files, tmp_path: Path) -> None:
    path = str(tmp_path / "s") if len(str(tmp_path)) < 90 else None
    server = TestServer(app, ssl_certfile="/missing.pem", ssl_keyfile=str(files.key), uds=path)
    with pytest.raises(TLSError):
        server.start()
    assert path is None or not Path(path).exists()


# Handshakes


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_current_versions_are_spoken(server: TestServer, files: Files, version: ssl.TLSVersion) -> None:
    context = client_context(files)
    context.minimum_version = context.maximum_version = version
    with context.wrap_socket(tcp(server), server_hostname="localhost") as client:
        assert client.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls_1_1_is_refused(server: TestServer, files: Files) -> None:
    context = client_context(files)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with tcp(server) as raw, pytest.raises(OSError):
        context.wrap_socket(raw, server_hostname="localhost")
    assert is_served(server, files)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(("http/1.1",), "http/1.1"), (("x", "http/1.1"), "http/1.1"), ((), None), (("x",), None)],
    ids=str,
)
def test_alpn(server: TestServer, files: Files, offered: tuple[str, ...], chosen: str | None) -> None:
    with client_context(files, *offered).wrap_socket(tcp(server), server_hostname="localhost") as client:
        assert client.selected_alpn_protocol() == chosen
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(8) == b"HTTP/1.1"


def test_plain_http_on_the_tls_port_hurts_nobody(
    server: TestServer, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    with tcp(server) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert not raw.recv(65536).startswith(b"HTTP/1.1 200")
    assert is_served(server, files)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_peer_that_never_shakes_hands_is_given_up(server: TestServer, files: Files) -> None:
    with tcp(server) as raw:
        assert raw.recv(1) == b""
    assert is_served(server, files)


def test_peer_that_leaves_within_its_handshake_hurts_nobody(
    server: TestServer, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    with tcp(server) as raw:
        raw.sendall(b"\x16\x03\x01\x02\x00\x01")
    assert is_served(server, files)
    server.stop()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_handshake_that_never_ends_does_not_hold_up_the_end(files: Files) -> None:
    settings = {"ssl_certfile": str(files.cert), "ssl_keyfile": str(files.key)}
    with TestServer(app, shutdown_timeout=0.1, tls_handshake_timeout=120, **settings) as server, tcp(server):
        assert is_served(server, files)
        server.stop(timeout=60)


def test_server_knows_its_certificate_after_the_files_are_gone(files: Files, tmp_path: Path) -> None:
    cert, key = tmp_path / "c", tmp_path / "k"
    shutil.copy(files.cert, cert)
    shutil.copy(files.key, key)
    with TestServer(app, ssl_certfile=str(cert), ssl_keyfile=str(key)) as server:
        cert.unlink()
        key.unlink()
        assert is_served(server, files)


def test_idle_connections_keep_no_buffer_of_their_own(files: Files) -> None:
    buffers: list[Any] = []

    async def look(scope: Any, receive: Any, send: Any) -> None:
        loop = asyncio.get_running_loop()
        protocols = [found for found in gc.get_objects() if issubclass(type(found), asyncio.sslproto.SSLProtocol)]
        # What other tests have left may be half made, or half taken apart.
        buffers[:] = [found._ssl_buffer for found in protocols if getattr(found, "_loop", None) is loop]
        await app(scope, receive, send)

    with TestServer(look, lifespan="off", loop="asyncio", **tls_of(files)) as server:
        context = client_context(files)
        sockets = [context.wrap_socket(tcp(server), server_hostname="localhost") for _ in range(3)]
        for sock in sockets:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        for sock in sockets:
            sock.close()
    # All three have been served when the last one is.
    assert len(buffers) == 3
    if HAS_OWN:
        assert not any(buffers)
    else:
        assert len({id(buffer) for buffer in buffers}) == 1


def tls_of(files: Files) -> dict[str, str]:
    return {"ssl_certfile": str(files.cert), "ssl_keyfile": str(files.key)}


# What a function may change


def test_each_context_goes_through_the_hand_of_the_operator(files: Files) -> None:
    seen: list[ssl.SSLContext] = []
    config = files.config(ssl_sni=(f"other.example={files.cert}:{files.key}",))
    tls = ServerTLS(config, ["h2"], [("http/1.1",)], seen.append)
    assert len(seen) == 4
    assert tls.context(0) in seen
    assert tls.reload()
    assert len(seen) == 8


def only_1_3(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3


def test_function_that_changes_the_context_has_its_effect(files: Files) -> None:
    with TestServer(app, **vars_of(files), ssl_context=only_1_3) as server:
        client = ssl.create_default_context(cafile=files.cert)
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        with socket.create_connection((server.host, server.port), 60) as sock, pytest.raises(ssl.SSLError):
            client.wrap_socket(sock, server_hostname="localhost")


def vars_of(files: Files) -> dict[str, Any]:
    return {"ssl_certfile": str(files.cert), "ssl_keyfile": str(files.key)}


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, asyncio.CancelledError])
def test_function_that_fails_is_an_error_whatever_it_raises(files: Files, error: type[BaseException]) -> None:
    def fails(context: ssl.SSLContext) -> None:
        raise error("no")

    with pytest.raises(TLSError, match=rf"ssl_context failed: {error.__name__}: no \({__file__}:\d+\)") as caught:
        TestServer(app, **vars_of(files), ssl_context=fails).start()
    assert caught.value.code == "POUNCE_TLS_CONTEXT_HOOK_FAILED"


def test_names_of_one_bind_have_the_same_rules_for_clients(files: Files) -> None:
    made: list[ssl.SSLContext] = []

    def of_the_second(context: ssl.SSLContext) -> None:
        made.append(context)
        if len(made) == 2:
            context.load_verify_locations(files.cert)

    with pytest.raises(TLSError) as caught:
        ServerTLS(files.config(ssl_sni=(f"other.example={files.cert}:{files.key}",)), [], [], of_the_second)
    assert caught.value.code == "POUNCE_TLS_CLIENT_RULES"


def test_one_group_is_set(files: Files) -> None:
    client = ssl.create_default_context(cafile=files.cert)
    client.set_ecdh_curve("secp521r1")
    with TestServer(app, **vars_of(files), ssl_groups="prime256v1") as server:
        with socket.create_connection((server.host, server.port), 60) as sock, pytest.raises(ssl.SSLError):
            client.wrap_socket(sock, server_hostname="localhost")
        client.set_ecdh_curve("prime256v1")
        with socket.create_connection((server.host, server.port), 60) as sock:
            client.wrap_socket(sock, server_hostname="localhost").close()


@pytest.mark.skipif(hasattr(ssl.SSLContext, "set_groups"), reason="this Python can")
@pytest.mark.parametrize("name", ["ssl_groups", "ssl_ciphersuites"])
def test_what_this_python_cannot_set_is_an_error_that_says_so(files: Files, name: str) -> None:
    with pytest.raises(TLSError, match=r"needs Python 3\.15") as caught:
        create_context(files.config(**{name: "one:another"}))
    assert caught.value.code == "POUNCE_TLS_NOT_IN_THIS_PYTHON"


def test_what_a_newer_python_can_set_is_set(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[str, str]] = []
    for name in ("set_groups", "set_ciphersuites"):
        set_it = lambda self, text, name=name: said.append((name, text))  # noqa: E731
        monkeypatch.setattr(ServerContext, name, set_it, raising=False)
    create_context(files.config(ssl_groups="a:b", ssl_ciphersuites="c"))
    assert said == [("set_groups", "a:b"), ("set_ciphersuites", "c")]


def test_group_that_does_not_exist_is_an_error(files: Files) -> None:
    with pytest.raises(TLSError, match="ssl_groups is not known to OpenSSL"):
        create_context(files.config(ssl_groups="no-such-curve"))
