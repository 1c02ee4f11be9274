"""Chromium without a window, speaking QUIC and nothing else to one port of this machine."""

import base64
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

__all__ = ["CHROMIUM", "command", "needs_chromium", "page_at", "trusting"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def command(port: int, certfile: str | Path, folder: Path, *flags: str) -> list[str]:
    """What opens `/` at a port of this machine, where the server has this certificate."""
    origin = f"localhost:{port}"
    return [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={folder / 'profile'}", "--no-proxy-server", f"--origin-to-force-quic-on={origin}",
        "--host-resolver-rules=MAP localhost 127.0.0.1", trusting(certfile),
        *flags, f"https://{origin}/",
    ]  # fmt: skip


def page_at(port: int, certfile: str | Path, folder: Path, *flags: str) -> str:
    """The page when all that it refers to is loaded."""
    done = subprocess.run(
        command(port, certfile, folder, *flags, "--dump-dom"), capture_output=True, timeout=240, check=True
    )
    return done.stdout.decode()


def trusting(certfile: str | Path) -> str:
    """The flag of a browser that takes this certificate as one that an authority has given out; where it merely ignores
    what is wrong with it, it does less (no compression dictionaries)."""
    key = x509.load_pem_x509_certificate(Path(certfile).read_bytes()).public_key()
    key_hash = sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return f"--ignore-certificate-errors-spki-list={base64.b64encode(key_hash).decode()}"
