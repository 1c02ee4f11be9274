"""`pounce bench`: what it counts is what was there."""

import json
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pounce.testing import TestServer
from pounce_cli.bench import command, load
from pounce_cli.bench.client import Request
from pounce_cli.bench.h1 import H1
from pounce_cli.bench.h2 import H2, frame
from pounce_cli.bench.histogram import Histogram
from pounce_cli.bench.load import LoadError, Plan, Seen, Target, run_load
from pounce_cli.bench.measure import PERCENTILES, Measured, Order, Outcome, of_outcome
from pounce_cli.bench.page import as_page
from pounce_cli.bench.report import as_text, milliseconds
from pounce_cli.main import main

GET = Request("GET", "/", "example.org", "http")

# Latencies


@given(st.lists(st.integers(0, 1 << 31), min_size=1, max_size=50), st.sampled_from(PERCENTILES))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_percentiles_are_right_within_a_hundredth(values: list[int], percent: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    exact = sorted(values)[max(0, -(-len(values) * percent // 100).__int__() - 1)]
    assert exact <= histogram.percentile(percent) <= exact * 1.01 + 1
    assert (histogram.count, histogram.longest, histogram.shortest) == (len(values), max(values), min(values))
    assert histogram.mean == sum(values) / len(values)


def test_histograms_add_up() -> None:
    one, other, both = Histogram(), Histogram(), Histogram()
    for value, histogram in ((3, one), (70_000, other), (3, other)):
        histogram.record(value)
        both.record(value)
    one.add(other)
    assert list(one.buckets()) == list(both.buckets())
    assert (one.count, one.sum, one.shortest, one.longest) == (3, 70_006, 3, 70_000)
    assert Histogram().percentile(99) == 0


# HTTP/1.1

ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
    b"HTTP/1.1 204 No Content\r\n\r\n"
    b"HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
    b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 1000])
def test_answers_are_told_apart_however_they_come(size: int) -> None:
    client, statuses, closes = H1(GET), [], False
    for at in range(0, len(ANSWERS), size):
        answers = client.received(ANSWERS[at : at + size])
        statuses += answers.statuses
        closes = answers.closes
    assert (statuses, closes) == ([200, 204, 404, 500], True)


def test_answer_may_end_with_its_connection() -> None:
    client = H1(GET)
    assert client.received(b"HTTP/1.0 200 OK\r\n\r\nhello").statuses == []
    assert client.closed() == [200]
    assert H1(GET).closed() == []


def test_answer_to_head_has_no_body() -> None:
    client = H1(GET._replace(method="HEAD"))
    assert client.received(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").statuses == [200]


def test_request_is_written_as_it_was_asked_for() -> None:
    request = GET._replace(method="POST", path="/a", headers=(("x-a", "b"),), body=b"body")
    lines = b"POST /a HTTP/1.1\r\nhost: example.org\r\nx-a: b\r\ncontent-length: 4\r\n\r\nbody"
    assert H1(request).requests(2) == lines * 2


def test_what_is_no_http_is_an_error() -> None:
    with pytest.raises(ValueError, match="no answer"):
        H1(GET).received(b"SSH-2.0-x\r\n\r\n")


# HTTP/2

END_STREAM, END_HEADERS = 1, 4


@pytest.mark.parametrize(
    ("section", "status"),
    [(b"\x88", 200), (b"\x20\x8d", 404), (b"\x3f\xe1\x1f\x88", 200), (b"\x08\x03418", 418), (b"\x48\x03503", 503)],
)  # fmt: skip
def test_status_of_an_answer_is_read(section: bytes, status: int) -> None:
    client = H2(GET)
    client.requests(1)
    if section.startswith(b"\x3f"):
        section = section[3:]
    assert client.received(frame(1, END_STREAM | END_HEADERS, 1, section)).statuses == [status]


def test_answer_on_a_stream_ends_with_it_or_is_broken_off() -> None:
    client = H2(GET)
    client.requests(2)
    head, data = frame(1, END_HEADERS, 1, b"\x88"), frame(0, END_STREAM, 1, b"hello")
    assert client.received(head + data[:4]).statuses == []
    assert client.received(data[4:]).statuses == [200]
    assert client.received(frame(3, 0, 3, b"\0\0\0\2")).statuses == [0]


def test_settings_and_pings_are_answered_and_the_end_is_seen() -> None:
    client = H2(GET)
    answers = client.received(frame(4, 0, 0) + frame(6, 0, 0, b"12345678") + frame(7, 0, 0, bytes(8)))
    assert answers.reply == frame(4, 1, 0) + frame(6, 1, 0, b"12345678")
    assert answers.closes
    with pytest.raises(ValueError, match="error 11"):
        client.received(frame(7, 0, 0, bytes(4) + struct.pack(">I", 11)))


def test_body_goes_as_far_as_the_windows_let_it() -> None:
    client = H2(GET._replace(method="POST", body=bytes(100_000)))
    sent = client.requests(1)
    assert sent.count(bytes(16384)) + 1 == 4
    more = client.received(
        frame(8, 0, 0, struct.pack(">I", 100_000)) + frame(8, 0, 1, struct.pack(">I", 100_000))
    ).reply
    assert len(more) - 9 * 3 == 100_000 - 65535


# Load

APP_BODY = b"x" * 20_000


async def app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    status = {"/": 200}.get(scope["path"], 404)
    body = b"%d" % size if scope["method"] == "POST" else APP_BODY
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def server() -> Iterator[TestServer]:
    with TestServer(app, max_request_size=0) as server:
        yield server


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on its way at the end is waited for, however busy the machine is."""
    monkeypatch.setattr(load, "PATIENCE", 60.0)


def loaded(server: TestServer, protocol: str = "h1", request: Request = GET, **plan: Any) -> Seen:
    target = Target("127.0.0.1", server.port, request, protocol)
    usual = {"duration": 0.2, "connections": 3, "threads": 2, "warm_up": 0.0}
    return run_load(target, Plan(**(usual | plan)))


@pytest.mark.parametrize("protocol", ["h1", "h2"])
@pytest.mark.parametrize("depth", [1, 8])
@pytest.mark.parametrize("body", [b"", b"y" * 100_000], ids=["without a body", "with a body"])
def test_every_answer_is_counted_and_none_is_lost(server: TestServer, protocol: str, depth: int, body: bytes) -> None:
    request = GET._replace(method="POST" if body else "GET", body=body)
    seen = loaded(server, protocol, request, depth=depth)
    assert seen.answers >= 3 * depth
    assert seen.statuses == {200: seen.answers}
    assert (seen.errors, seen.failed) == (0, 0)
    assert seen.latencies.count == seen.answers
    if not body:
        assert seen.received >= seen.answers * len(APP_BODY)


def test_answers_of_400_and_above_are_told_apart(server: TestServer) -> None:
    seen = loaded(server, request=GET._replace(path="/nothing"))
    assert seen.failed == seen.answers == seen.statuses[404]


@pytest.mark.parametrize("protocol", ["h1", "h2"])
def test_rate_is_kept(server: TestServer, protocol: str) -> None:
    seen = loaded(server, protocol, rate=100.0, duration=0.5)
    assert seen.answers + seen.late <= 52
    assert seen.answers >= 1
    assert seen.errors == 0


def test_connections_that_the_server_ends_are_opened_anew() -> None:
    with TestServer(app, max_requests_per_connection=2) as server:
        seen = loaded(server, connections=1)
    assert seen.answers > 2
    assert seen.errors == 0


def test_load_over_tls(tls_files: tuple[str, str]) -> None:
    certfile, keyfile = tls_files
    with TestServer(app, ssl_certfile=certfile, ssl_keyfile=keyfile) as server:
        for protocol in ("h1", "h2"):
            seen = loaded(server, protocol, GET._replace(scheme="https"))
            assert seen.statuses == {200: seen.answers}


class Standing:
    """A server that answers its first requests at once, and then stands still, once."""

    def __init__(self, at_once: int, still: float) -> None:
        self._still = still
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.sock.getsockname()[1]
        self._left = at_once
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        connection, _ = self.sock.accept()
        with connection:
            while data := connection.recv(65536):
                for _ in range(data.count(b"\r\n\r\n")):
                    if self._left == 0:
                        threading.Event().wait(self._still)
                    self._left -= 1
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


def test_latency_counts_from_when_a_request_was_due() -> None:
    """Requests that were due while the server stood still have waited for it, though they were not sent."""
    server = Standing(at_once=1, still=0.3)
    seen = run_load(Target("127.0.0.1", server.port, GET), Plan(1.5, 1, 1, 1, 100.0, 0.0))
    server.sock.close()
    waited = sum(count for value, count in seen.latencies.buckets() if value >= 100_000)
    sent = sum(count for value, count in seen.service.buckets() if value >= 100_000)
    assert waited > sent >= 1
    assert seen.latencies.sum > seen.service.sum


def test_nobody_who_answers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "RETRIES", 2)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(LoadError, match="nobody answers"):
            run_load(Target("127.0.0.1", sock.getsockname()[1], GET), Plan(0.1, 2, 2))


def test_server_of_another_protocol_is_an_error() -> None:
    with TestServer(app, plugins=False) as server, pytest.raises(LoadError, match="does not speak h2"):
        loaded(server, "h2")


# What is shown


def seen(rate: int) -> Seen:
    found = Seen(answers=rate * 2, elapsed=2.0, seconds=[rate, rate], statuses={200: rate * 2})
    for value in range(1000, 9000, 10):
        found.latencies.record(value)
    return found


def outcome(**changes: Any) -> Outcome:
    servers = tuple(
        Measured(name, "1.0", ("python", "-m", name), seen(rate), seen(500), 1 << 25)
        for name, rate in (("pounce", 9000), ("uvi<corn", 4000))
    )
    order = Order(GET, Plan(2.0, 10, 1), "h1", 1)
    machine = {"python": "3.14", "gil": "off", "system": "Linux", "cpus": 2}
    usual = {"order": order, "rate": 500.0, "servers": servers, "began": "now", "machine": machine}
    return Outcome(**(usual | changes))


def test_text_has_all_servers_and_percentiles() -> None:
    text = as_text(outcome())
    assert re.search(r"pounce 1\.0 +9,000 .* 32 MiB +100%", text)
    assert re.search(r"uvi<corn 1\.0 +4,000 .* 44%", text)
    assert "At 500 in a second" in text
    assert "p99.99" in text
    assert "share the CPUs" in text


def test_load_that_was_at_its_end_is_told() -> None:
    crowded = Measured("pounce", "", (), seen(9000), seen(500), None)
    assert crowded.full is not None and crowded.steady is not None
    crowded.full.busy, crowded.steady.late, crowded.full.failed = 0.99, 900, 3
    crowded.full.statuses[503] = 3
    text = as_text(outcome(servers=(crowded,)))
    assert "the load used up its own threads" in text
    assert "did not keep up with the rate" in text
    assert "503: 3" in text


def test_answers_of_400_and_above_are_counted_apart_from_errors() -> None:
    full, steady = seen(9000), seen(500)
    full.errors, full.failed, full.statuses[503] = 7, 3, 3
    steady.errors, steady.failed, steady.statuses[503], steady.statuses[404] = 1, 5, 4, 1
    one = outcome(servers=(Measured("pounce", "", (), full, steady, None),))
    assert re.search(r" errors +400\+ +memory\n  pounce .* 7 +3 +-", as_text(one))
    assert ">7</td><td>3</td>" in as_page(one)
    for shown in (as_text(one), as_page(one)):
        assert "There were requests without an answer: pounce (8)." in shown
        assert "There were answers of 400 and above: pounce (404: 1, 503: 7)." in shown
    rate_alone = outcome(servers=(Measured("pounce", "", (), None, steady, None),))
    assert "There were requests without an answer: pounce (1)." in as_text(rate_alone)


@pytest.mark.parametrize(
    ("microseconds", "text"), [(42, "0.04 ms"), (12_340, "12.3 ms"), (123_400, "123 ms"), (2_500_000, "2.50 s")]
)
def test_times_are_written_for_people(microseconds: int, text: str) -> None:
    assert milliseconds(microseconds) == text


def test_page_holds_all_that_it_needs_and_what_was_measured() -> None:
    page = as_page(outcome())
    assert page.count("<svg") == 3
    assert not re.search(r"""(?:src|href)=|url\(|@import|https?://(?!\S*[rR]FC)""", page)
    assert "uvi<corn" not in page
    data = re.search(r'<script type="application/json" id="measured">(.*?)</script>', page)
    assert data is not None
    assert json.loads(data[1]) == json.loads(json.dumps(of_outcome(outcome())))


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_page_is_light_or_dark_as_its_reader_has_it(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(as_page(outcome()))
    papers = []
    for scheme in (1, 0):
        shot = tmp_path / f"{scheme}.png"
        subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
             f"--user-data-dir={tmp_path / 'profile'}", f"--blink-settings=preferredColorScheme={scheme}",
             "--window-size=900,600", f"--screenshot={shot}", (tmp_path / "page.html").as_uri()],
            capture_output=True, check=True, timeout=120,
        )  # fmt: skip
        papers.append(first_pixel(shot.read_bytes()))
    light, dark = papers
    assert sum(light) > 700
    assert sum(dark) < 120


def first_pixel(png: bytes) -> tuple[int, ...]:
    """The colour of the upper left corner, which no filter of PNG changes."""
    pieces, at = b"", 8
    while at < len(png):
        length = struct.unpack_from(">I", png, at)[0]
        if png[at + 4 : at + 8] == b"IDAT":
            pieces += png[at + 8 : at + 8 + length]
        at += 12 + length
    return tuple(zlib.decompress(pieces)[1:4])


# The command


def test_command_serves_the_application_and_measures_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bench_app.py").write_text(
        "async def app(scope, receive, send):\n"
        "    assert scope['type'] == 'http'\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': b'hello'})\n"
    )
    short = ["--duration", "100ms", "--warm-up", "0s", "--connections", "2", "--rate", "100"]
    assert main(["bench", "bench_app:app", *short, "--compare", "uvicorn", "--json", "--html", "report.html"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in found["servers"]] == ["pounce", "uvicorn"]
    for each in found["servers"]:
        assert each["steady"]["answers"] >= 1
        assert each["steady"]["errors"] == 0
        assert each["command"][:2] == [sys.executable, "-m"]
    assert "<svg" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGHUP, 128 + signal.SIGHUP), (signal.SIGINT, 130),
     pytest.param(signal.SIGKILL, -signal.SIGKILL,
                  marks=pytest.mark.skipif(sys.platform != "linux", reason="the kernel does it"))],
)  # fmt: skip
def test_server_ends_with_the_command_whatever_ends_that(pounce: Any, tmp_path: Path, number: int, code: int) -> None:
    """The application has a connection to the test for as long as its process is there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(60)
        address = listener.getsockname()
        (tmp_path / "held.py").write_text(
            f"import socket\nfrom main import app\nheld = socket.create_connection({address!r})\n"
        )
        process = pounce.start("bench", "held:app", "--quiet", "--duration", "120s")
        server, _ = listener.accept()
    with server:
        server.settimeout(60)
        assert process.stop(number) == code
        assert server.recv(1) == b""


def test_command_measures_what_runs(server: TestServer, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--url", f"{server.url}/", "--duration", "100ms", "--warm-up", "0s", "--protocol", "h2", "--depth", "4"]
    assert main(["bench", *words]) == 0
    out = capsys.readouterr().out
    assert "As fast as it goes" in out
    assert "in a second: latency from when a request was due" in out


def test_progress_is_shown_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert command._shown("pounce, as fast as it goes") is None
    monkeypatch.setattr(command.sys.stderr, "isatty", lambda: True)
    progress = command._shown("pounce, as fast as it goes")
    assert progress is not None
    progress(0.5, 1234)
    progress(1.0, 2468)


@pytest.mark.parametrize(
    ("words", "said"),
    [([], "give an application or --url"), (["a:b", "--url", "http://x/"], "give an application or --url"),
     (["--url", "ftp://x/"], "no URL of a server"), (["--url", "http://x/", "--compare", "uvicorn"], "does not name"),
     (["a:b", "--duration", "soon"], "--duration must be a time"), (["a:b", "--connections", "0"], "at least 1"),
     (["a:b", "--header", "x"], "--header must be Name:Value"), (["a:b", "--body", "@gone"], "cannot be read"),
     (["a:b", "--rate", "-1"], "must not be below 0")],
)  # fmt: skip
def test_words_that_make_no_sense_are_told(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(["bench", *words]) == 2
    assert said in capsys.readouterr().err


def test_server_that_does_not_start_is_told_with_what_it_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "nowhere:app", "--quiet"]) == 1
    err = capsys.readouterr().err
    assert "pounce does not start" in err
    assert "nowhere" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--compare", "nginx"], "no server 'nginx'"),
     (["--compare", "uvicorn,nginx"], "no server 'nginx'"),
     (["--compare", "uvicorn", "--python", "/nowhere/python"], "no interpreter /nowhere/python")],
)  # fmt: skip
def test_server_that_cannot_be_compared_is_told_before_anything_starts(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    """The application is none, which the first server would have told."""
    assert main(["bench", "nowhere:app", "--quiet", *words]) == 2
    assert said in capsys.readouterr().err
