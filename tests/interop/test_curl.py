"""curl, over HTTP/1.1."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.interop.conftest import CONTENT, Sites

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

DIGEST = hashlib.sha256(CONTENT).hexdigest()


def curl(*arguments: str, stdin: bytes = b"", code: int = 0) -> bytes:
    """What curl prints; it must end with `code`."""
    command = ["curl", "--silent", "--show-error", "--insecure", "--noproxy", "*", "--max-time", "30", "--http1.1"]
    done = subprocess.run([*command, *arguments], input=stdin, capture_output=True, timeout=40, check=False)
    assert done.returncode == code, done.stderr.decode()
    return done.stdout


def echoed(*arguments: str, stdin: bytes = b"") -> dict[str, Any]:
    return json.loads(curl(*arguments, stdin=stdin))


def head_and_body(output: bytes) -> tuple[str, dict[str, str], bytes]:
    """Status line, fields and the rest of what `--include` prints."""
    head, _, body = output.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    fields = (line.partition(":") for line in lines)
    return status, {name.lower(): value.strip() for name, _, value in fields}, body


def test_get(url: str) -> None:
    status, fields, body = head_and_body(curl("--include", f"{url}/hello"))
    assert status == "HTTP/1.1 200 OK"
    assert body == b"hello over 1.1\n"
    assert fields["content-length"] == str(len(body))
    assert "connection" not in fields


def test_post_of_a_form(url: str) -> None:
    assert echoed("--data", "a=1&b=2", f"{url}/echo")["bytes"] == 7


def test_put_of_a_large_file(url: str, content_file: Path) -> None:
    answer = echoed("--upload-file", str(content_file), f"{url}/echo")
    assert (answer["method"], answer["bytes"], answer["sha256"]) == ("PUT", len(CONTENT), DIGEST)
    assert answer["fields"]["content-length"] == str(len(CONTENT))


def test_chunked_upload_from_standard_input(url: str) -> None:
    answer = echoed("--upload-file", "-", f"{url}/echo", stdin=CONTENT)
    assert (answer["bytes"], answer["sha256"]) == (len(CONTENT), DIGEST)
    assert answer["fields"]["transfer-encoding"] == "chunked"


def test_body_is_sent_only_after_100_continue(url: str, content_file: Path) -> None:
    output = curl(
        "--include", "--header", "Expect: 100-continue", "--expect100-timeout", "20",
        "--data-binary", f"@{content_file}", f"{url}/echo",
    )  # fmt: skip
    interim, _, rest = output.partition(b"\r\n\r\n")
    assert interim == b"HTTP/1.1 100 Continue"
    status, _, body = head_and_body(rest)
    assert status == "HTTP/1.1 200 OK"
    assert json.loads(body)["sha256"] == DIGEST


def test_refusal_instead_of_100_continue_keeps_the_body_from_being_sent(url: str, content_file: Path) -> None:
    output = curl(
        "--include", "--header", "Expect: 100-continue", "--expect100-timeout", "20",
        "--write-out", "%{size_upload}", "--data-binary", f"@{content_file}", f"{url}/refuse",
    )  # fmt: skip
    status, _, rest = head_and_body(output)
    assert status == "HTTP/1.1 403 Forbidden"
    assert rest == b"no\n0"


def test_answer_that_does_not_read_the_body_arrives(url: str, content_file: Path) -> None:
    status, fields, body = head_and_body(
        curl("--include", "--header", "Expect:", "--data-binary", f"@{content_file}", f"{url}/refuse")
    )
    assert (status, body) == ("HTTP/1.1 403 Forbidden", b"no\n")
    assert fields["connection"] == "close"


def test_connection_is_used_again(url: str) -> None:
    output = curl("--write-out", "%{num_connects}\n", f"{url}/hello", f"{url}/stream", f"{url}/hello")
    lines = output.decode().split("\n")
    assert [line for line in lines if len(line) == 1] == ["1", "0", "0"]


def test_redirect_is_followed(url: str) -> None:
    assert curl("--location", f"{url}/redirect") == b"hello over 1.1\n"


def test_head(url: str) -> None:
    status, fields, body = head_and_body(curl("--head", f"{url}/file"))
    assert (status, body) == ("HTTP/1.1 200 OK", b"")
    assert fields["content-length"] == str(len(CONTENT))


def test_file_and_range_of_it(url: str) -> None:
    assert hashlib.sha256(curl(f"{url}/file")).hexdigest() == DIGEST
    status, fields, body = head_and_body(curl("--include", "--range", "1000000-1000099", f"{url}/file"))
    assert status == "HTTP/1.1 206 Partial Content"
    assert fields["content-range"] == f"bytes 1000000-1000099/{len(CONTENT)}"
    assert body == CONTENT[1_000_000:1_000_100]


def test_download_is_resumed(url: str, tmp_path: Path) -> None:
    partial = tmp_path / "file"
    partial.write_bytes(CONTENT[:3_000_000])
    curl("--continue-at", "-", "--output", str(partial), f"{url}/file")
    assert hashlib.sha256(partial.read_bytes()).hexdigest() == DIGEST


def test_http_1_0_stream_ends_with_the_connection(url: str) -> None:
    status, fields, body = head_and_body(curl("--http1.0", "--include", f"{url}/stream"))
    assert status == "HTTP/1.1 200 OK"
    assert fields["connection"] == "close"
    assert "transfer-encoding" not in fields
    assert body == b"".join(b"%05d\n" % number for number in range(100))


def test_http_1_0_is_told_to_the_application(url: str) -> None:
    assert curl("--http1.0", f"{url}/hello") == b"hello over 1.0\n"


def test_trailers_follow_the_last_chunk(url: str) -> None:
    _, fields, body = head_and_body(curl("--include", "--raw", f"{url}/trailers"))
    assert fields["transfer-encoding"] == "chunked"
    assert body == b"4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n"


def test_unix_socket(sites: Sites, content_file: Path) -> None:
    assert curl("--unix-socket", sites.unix, "http://localhost/hello") == b"hello over 1.1\n"
    answer = echoed("--unix-socket", sites.unix, "--upload-file", str(content_file), "http://localhost/echo")
    assert answer["sha256"] == DIGEST
    assert answer["fields"]["host"] == "localhost"


def test_certificate_is_verified(sites: Sites) -> None:
    verified = subprocess.run(
        [
            "curl",
            "--silent",
            "--http1.1",
            "--noproxy",
            "*",
            "--cacert",
            sites.certificate.certificate,
            f"{sites.https.url}/hello",
        ],
        capture_output=True,
        timeout=40,
        check=True,
    )
    assert verified.stdout == b"hello over 1.1\n"


@pytest.mark.parametrize(("version", "code"), [("1.1", 35), ("1.2", 0), ("1.3", 0)])
def test_tls_versions(sites: Sites, version: str, code: int) -> None:
    curl(f"--tlsv{version}", "--tls-max", version, f"{sites.https.url}/hello", code=code)


def test_many_transfers_at_once(url: str, tmp_path: Path) -> None:
    curl("--parallel", "--parallel-max", "30", "--output", f"{tmp_path}/#1", f"{url}/stream?[1-90]")
    contents = {path.read_bytes() for path in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) == 90
    assert contents == {b"".join(b"%05d\n" % number for number in range(100))}
