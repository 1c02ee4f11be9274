"""Where the log goes: files, syslog, the journal, and what becomes of what cannot be written."""

import errno
import io
import json
import logging
import os
import queue
import re
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pounce import ConfigError, ServerConfig
from pounce.observe.access_entry import AccessEntry
from pounce.observe.logs import Lines, Logs, TextFormatter, Writer, reopen_log_files
from pounce.observe.sinks import sink_of

PATIENCE = 60.0
log = logging.getLogger("pounce.test_log_sinks")
access = logging.getLogger("pounce.access")


def entry(target: str = "/a", status: int = 200) -> AccessEntry:
    return AccessEntry(1_700_000_000.25, "192.0.2.7:4711", "GET", target, "1.1", status, 20, 0.5, 3, "http", True)


def record(message: object = "said", level: int = logging.INFO, name: str = "pounce") -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, message, (), None)


def logs(**settings: Any) -> Logs:
    return Logs(ServerConfig.of({"log_format": "text", **settings}), io.StringIO())


# Files


def test_log_and_access_log_have_files_of_their_own(tmp_path: Path) -> None:
    of_all, of_requests = tmp_path / "error.log", tmp_path / "access.log"
    with logs(error_log_file=str(of_all), access_log_file=str(of_requests), access_log_format="common"):
        log.info("said")
        access.info(entry())
    assert of_all.read_text().endswith("INFO     pounce.test_log_sinks - said\n")
    assert '"GET /a HTTP/1.1"' in of_requests.read_text()
    assert [len(path.read_text().splitlines()) for path in (of_all, of_requests)] == [1, 1]


def test_both_may_go_to_one_file_and_grow_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    with logs(error_log_file=str(path), access_log_file=str(path)):
        log.info("said")
        access.info(entry())
    assert [line.rpartition(" ")[2] for line in path.read_text().splitlines()] == ["before", "said", "w3"]


def test_file_is_json_unless_something_else_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with logs(error_log_file=str(path), log_format="auto"):
        log.info("said")
        access.info(entry())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert (lines[0]["message"], lines[1]["path"]) == ("said", "/a")


def test_file_is_for_its_owner_and_group(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with logs(error_log_file=str(tmp_path / "log")):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o640


def test_files_are_opened_again_when_they_have_been_moved_away(tmp_path: Path) -> None:
    of_all, of_requests = tmp_path / "error.log", tmp_path / "access.log"
    with logs(error_log_file=str(of_all), access_log_file=str(of_requests)):
        log.info("one")
        access.info(entry("/one"))
        end(log)
        for path in (of_all, of_requests):
            path.rename(path.with_suffix(".old"))
        reopen_log_files()
        log.info("two")
        access.info(entry("/two"))
    assert "two" in of_all.read_text()
    assert "/two" in of_requests.read_text()
    assert "two" not in of_all.with_suffix(".old").read_text()
    assert "/one" in of_requests.with_suffix(".old").read_text()


def end(logger: logging.Logger) -> None:
    """Wait until all that was logged is written."""
    waiting: queue.Queue[None] = queue.Queue()

    class Told:
        def __str__(self) -> str:
            waiting.put(None)
            return "end"

    logger.info(Told())
    waiting.get(timeout=PATIENCE)


def test_file_that_cannot_be_opened_again_is_kept_and_told(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "log"
    with logs(error_log_file=str(path)):
        log.info("one")
        end(log)
        folder.rename(tmp_path / "moved")
        reopen_log_files()
        log.info("two")
    text = (tmp_path / "moved" / "log").read_text()
    assert f"The log file {path} cannot be opened again, the old one is kept: No such file" in text
    assert "two" in text


@pytest.mark.parametrize("setting", ["error_log_file", "access_log_file"])
def test_file_that_cannot_be_opened_ends_the_start(tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match="cannot be opened: No such file"):
        logs(**{setting: str(tmp_path / "no" / "log")})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="cannot be opened: No such device"):
        logs(**{setting: str(tmp_path / "pipe")})


def test_access_log_may_go_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    with logs(access_log_file="-", access_log_format="%(r)s"):
        access.info(replace(entry(), write=lambda entry: entry.target))
        log.info("elsewhere")
    assert capfd.readouterr().out == "/a\n"


class Full:
    """A disk that is full until it is not."""

    structured = has_fields = False

    def __init__(self) -> None:
        self.is_full = True
        self.lines: list[str] = []

    def write(self, line: str, record: logging.LogRecord) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.lines.append(line)

    def reopen(self) -> None: ...

    def close(self) -> None: ...


def test_what_could_not_be_written_is_counted_and_told_in_the_log() -> None:
    disk, log = Full(), Full()
    log.is_full = False
    form = TextFormatter("%(message)s")
    writer = Writer(queue.SimpleQueue(), Lines(log, form), Lines(disk, form))
    for number in range(3):
        writer.handle(record(entry(f"/{number}"), name="pounce.access"))
    assert (disk.lines, log.lines) == ([], [])
    disk.is_full = False
    writer.handle(record(entry("/3"), name="pounce.access"))
    writer.handle(record(entry("/4"), name="pounce.access"))
    assert ["/3" in disk.lines[0], "/4" in disk.lines[1], len(disk.lines)] == [True, True, 2]
    assert log.lines == ["3 log records could not be written: [Errno 28] No space left on device"]


# Daemons


@pytest.fixture
def daemon() -> Iterator[tuple[socket.socket, str]]:
    """A socket that gets datagrams, and its path."""
    # Not tmp_path: the address of a Unix socket has room for about a hundred bytes.
    with (
        tempfile.TemporaryDirectory(prefix="pounce-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
    ):
        sock.settimeout(PATIENCE)
        sock.bind(f"{folder}/s")
        yield sock, f"{folder}/s"


SYSLOG = re.compile(
    r"<(\d+)>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) ([!-~]{1,255}) ([!-~]{1,48}) (\d+) ([!-~]{1,32}) - (.*)",
    re.DOTALL,
)
"""RFC 5424 6, without structured data."""


def test_syslog_gets_messages_of_rfc_5424(daemon: tuple[socket.socket, str]) -> None:
    sock, path = daemon
    sink = sink_of(f"syslog:{path}?facility=local3&tag=shop")
    made = record("x", logging.ERROR, "pounce.net")
    made.created = 1_700_000_000.25
    sink.write("what was said: é", made)
    sink.close()
    found = SYSLOG.fullmatch(sock.recv(65536).decode())
    assert found is not None
    assert found[1] == str(19 * 8 + 3)
    assert found[2] == "2023-11-14T22:13:20.250000Z"
    assert (found[4], found[5], found[6], found[7]) == ("shop", str(os.getpid()), "pounce.net", "what was said: é")


@pytest.mark.parametrize(
    ("level", "severity"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 2)],
)
def test_severity_is_that_of_the_level(daemon: tuple[socket.socket, str], level: int, severity: int) -> None:
    sock, path = daemon
    sink = sink_of(f"syslog:unix:{path}")
    sink.write("said", record(level=level))
    sink.close()
    assert sock.recv(65536).startswith(b"<%d>1 " % (3 * 8 + severity))


def test_syslog_over_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.bind(("127.0.0.1", 0))
        with logs(access_log_file=f"syslog:127.0.0.1:{sock.getsockname()[1]}"):
            access.warning(entry("/\n<0>1 forged", 500))
        message = sock.recv(65536).decode()
    found = SYSLOG.fullmatch(message)
    assert found is not None
    assert found[7] == '192.0.2.7:4711 - "GET /\\n<0>1 forged HTTP/1.1" 500 20 500.0ms w3'


def test_syslog_cuts_what_does_not_pass() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.bind(("127.0.0.1", 0))
        sink = sink_of(f"syslog:127.0.0.1:{sock.getsockname()[1]}")
        sink.write("é" * 70_000, record())
        sink.close()
        message = sock.recv(65536)
    assert 2040 < len(message) <= 2048
    assert message.decode().endswith("é")


def test_daemon_that_was_started_again_is_found_again(daemon: tuple[socket.socket, str]) -> None:
    sock, path = daemon
    sink = sink_of(f"syslog:{path}")
    sink.write("one", record())
    assert sock.recv(65536).endswith(b"one")
    sock.close()
    os.unlink(path)
    with pytest.raises(OSError, match="No such file"):
        sink.write("two", record())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        again.settimeout(PATIENCE)
        again.bind(path)
        sink.write("three", record())
        assert again.recv(65536).endswith(b"three")
    sink.close()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("syslog:/no/such/socket", "cannot be reached: No such file"),
        ("journald:/no/such/socket", "cannot be reached: No such file"),
        ("syslog:127.0.0.1:x", "must be a path, host or host:port"),
        ("syslog:127.0.0.1:514?facility=local9", "facility must be one of"),
        ("syslog:127.0.0.1:514?colour=red", "has an option 'colour'"),
        ("journald:/x?facility=user", "has an option 'facility'"),
    ],
)
def test_daemon_that_cannot_be_reached_ends_the_start(target: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sink_of(target)
    assert said in caught.value.message


# The journal


def entry_of(data: bytes) -> dict[str, str]:
    """A journal entry, read as systemd.io/JOURNAL_NATIVE_PROTOCOL says."""
    fields: dict[str, str] = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", data[:8])
            value, data = data[8 : 8 + length], data[8 + length :]
            assert data[:1] == b"\n"
            data = data[1:]
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}", name)
        fields[name.decode()] = value.decode()
    return fields


def test_journal_has_a_field_for_each_value_of_a_request(daemon: tuple[socket.socket, str]) -> None:
    sock, path = daemon
    with logs(error_log_file=f"journald:{path}?tag=shop", log_format="auto"):
        access.warning(entry("/\nPRIORITY=0", 503))
        fields = entry_of(sock.recv(65536))
    assert fields == {
        "MESSAGE": '192.0.2.7:4711 - "GET /\\nPRIORITY=0 HTTP/1.1" 503 20 500.0ms w3',
        "PRIORITY": "4", "SYSLOG_IDENTIFIER": "shop", "LOGGER": "pounce.access", "HTTP_METHOD": "GET",
        "HTTP_PATH": "/\nPRIORITY=0", "HTTP_STATUS": "503", "HTTP_BYTES": "20", "HTTP_DURATION_MS": "500.0",
        "HTTP_CLIENT": "192.0.2.7:4711", "HTTP_PROTOCOL": "HTTP/1.1", "HTTP_SCHEME": "http", "HTTP_WORKER": "3",
    }  # fmt: skip


def test_journal_has_where_a_message_comes_from_and_its_traceback(daemon: tuple[socket.socket, str]) -> None:
    sock, path = daemon
    with logs(error_log_file=f"journald:{path}", log_format="auto"):
        try:
            raise ValueError("\x1b[31m")
        except ValueError:
            log.exception("it failed")
        fields = entry_of(sock.recv(65536))
    lines = fields["MESSAGE"].splitlines()
    assert (lines[0], lines[-1]) == ("it failed", "ValueError: \\x1b[31m")
    assert (fields["PRIORITY"], fields["CODE_FILE"], fields["CODE_FUNC"]) == (
        "3", __file__, "test_journal_has_where_a_message_comes_from_and_its_traceback",
    )  # fmt: skip


def test_journal_gets_what_is_too_long_in_a_sealed_file(daemon: tuple[socket.socket, str]) -> None:
    sock, path = daemon
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    sink = sink_of(f"journald:{path}")
    sink.write("x" * 4_000_000, record())
    data, fds, _, _ = socket.recv_fds(sock, 65536, 1)
    sink.close()
    with os.fdopen(fds[0], "rb") as file:
        with pytest.raises(PermissionError):
            os.ftruncate(file.fileno(), 0)
        file.seek(0)
        fields = entry_of(file.read())
    assert data == b""
    assert fields["MESSAGE"] == "x" * 4_000_000
