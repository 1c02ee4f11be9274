"""openssl and curl against the TLS of the server."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pounce.testing import TestServer

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None or shutil.which("curl") is None, reason="openssl or curl is not installed"
)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    name = scope["extensions"]["tls"]["client_cert_name"] or "nobody"
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": f"hello {name}".encode()})


def issue(folder: Path, name: str, *options: str) -> tuple[str, str]:
    """Files of a certificate that signs itself, and of its key, both made by openssl."""
    cert, key = str(folder / f"{name}.crt"), str(folder / f"{name}.key")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"]
    names = ["-subj", f"/O=Example/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    encryption = options or ("-noenc",)
    subprocess.run(
        [*command, *names, *encryption, "-keyout", key, "-out", cert], check=True, capture_output=True, timeout=60
    )
    return cert, key


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("openssl")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[TestServer]:
    certificate, key = issue(folder, "localhost", "-passout", "pass:correct horse")
    password = folder / "password"
    password.write_text("correct horse\n")
    other, _ = issue(folder, "example.org")
    alice, _ = issue(folder, "alice")
    settings = {
        "ssl_keyfile_password_file": str(password),
        "ssl_sni": (f"example.org={other}:{folder}/example.org.key",),
        "ssl_minimum_version": "1.2",
        "ssl_ca_certs": alice,
        "ssl_cert_reqs": "optional",
    }
    # The key of the second certificate is not encrypted; the password is not asked for there.
    with TestServer(app, ssl_certfile=certificate, ssl_keyfile=key, **settings) as running:
        yield running


def s_client(server: TestServer, *options: str) -> str:
    command = ["openssl", "s_client", "-connect", f"{server.host}:{server.port}", *options]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


def curl(server: TestServer, host: str, *options: str) -> tuple[int, str]:
    where = ("--resolve", f"{host}:{server.port}:{server.host}", "--noproxy", "*", "--max-time", "30")
    command = ["curl", "--silent", "--show-error", *where, *options, f"https://{host}:{server.port}/"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


@pytest.mark.parametrize("name", ["localhost", "example.org"])
def test_certificate_of_the_name(server: TestServer, folder: Path, name: str) -> None:
    said = s_client(server, "-servername", name, "-CAfile", f"{folder}/{name}.crt", "-verify_hostname", name)
    assert re.search(rf"subject=O ?= ?Example, CN ?= ?{re.escape(name)}$", said, re.MULTILINE)
    assert "Verify return code: 0 (ok)" in said


@pytest.mark.parametrize(("version", "spoken"), [("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)])
def test_versions(server: TestServer, version: str, spoken: bool) -> None:
    said = s_client(server, version, "-cipher", "DEFAULT:@SECLEVEL=0")
    assert ("Cipher is (NONE)" not in said) is spoken


def test_weak_ciphers_compression_and_renegotiation_are_off(server: TestServer) -> None:
    assert "Cipher is (NONE)" in s_client(server, "-tls1_2", "-cipher", "AES128-SHA:ECDHE-ECDSA-AES128-SHA")
    assert "Compression: NONE" in s_client(server, "-tls1_2", "-comp")
    command = ["openssl", "s_client", "-connect", f"{server.host}:{server.port}", "-tls1_2"]
    done = subprocess.run(command, input="R\n", capture_output=True, text=True, timeout=60)
    assert "no renegotiation" in done.stderr


def test_alpn(server: TestServer) -> None:
    assert "ALPN protocol: http/1.1" in s_client(server, "-alpn", "http/1.1")


def test_curl_without_and_with_a_client_certificate(server: TestServer, folder: Path) -> None:
    trust = ("--cacert", f"{folder}/localhost.crt")
    assert curl(server, "localhost", *trust) == (0, "hello nobody")
    mine = ("--cert", f"{folder}/alice.crt", "--key", f"{folder}/alice.key")
    assert curl(server, "localhost", *trust, *mine) == (0, "hello CN=alice,O=Example")


def test_curl_with_a_certificate_of_nobody(server: TestServer, folder: Path) -> None:
    stranger, key = issue(folder, "stranger")
    code, body = curl(server, "localhost", "--cacert", f"{folder}/localhost.crt", "--cert", stranger, "--key", key)
    assert (code != 0, body) == (True, "")
