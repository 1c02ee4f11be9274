"""`pounce serve` as a real process with real sockets."""

import signal
import socket
import ssl
import stat

import pytest

ENDS_ITSELF_TWICE = """
import asyncio, os, signal

async def app(scope, receive, send):
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.Event().wait()
"""


@pytest.mark.parametrize(
    "words",
    [
        ["main:app"],
        ["--app", "main:app"],
        ["main:create()"],
        ["main:create", "--factory"],
        ["main:create", "--factory", "--root-path="],  # read by the library
    ],
    ids=" ".join,
)
def test_serves_the_application_that_is_named(pounce, get, words):
    process = pounce.start("serve", *words, "--port", "0")
    assert get(process.started()["url"]) == (200, b"|http")


def test_a_folder_is_served_without_an_application(pounce, get, tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("Hello")
    url = pounce.start("serve", "--static", str(tmp_path / "site"), "--port", "0").started()["url"]
    assert get(url) == (200, b"Hello")
    assert get(url, "/index.html") == (200, b"Hello")
    assert get(url, "/other")[0] == 404


def test_a_folder_is_served_in_front_of_an_application(pounce, get, tmp_path):
    (tmp_path / "hello.txt").write_text("Hello")
    url = pounce.start("serve", "main:app", "--static", str(tmp_path), "--port", "0").started()["url"]
    assert get(url, "/hello.txt") == (200, b"Hello")
    assert get(url, "/other") == (200, b"|http")


def test_flags_reach_the_server(pounce, get):
    process = pounce.start("serve", "main:app", "--port=0", "--root-path", "/api", "--health-check-path", "/up")
    url = process.started()["url"]
    assert get(url, "/api/x") == (200, b"/api|http")
    assert get(url, "/up")[0] == 200


def test_the_start_is_a_json_line_where_logs_are_json(pounce):
    started = pounce.start("serve", "main:app", "--port", "0").started()
    assert started["level"] == "info"
    assert started["app"] == "main:app"
    assert started["urls"] == [started["url"]]
    assert not started["url"].endswith(":0")
    assert {"ts", "version", "python", "gil", "pid", "workers", "tls"} <= started.keys()


def test_the_banner_shows_the_real_port_and_replaces_the_log_line(pounce, get):
    process = pounce.start("serve", "main:app", "--port", "0", "--log-format", "text")
    url = process.line(r"^  (http://127\.0\.0\.1:\d+)$")[1]
    process.line("Press Ctrl")
    assert get(url)[0] == 200
    assert process.stop() == 0
    shown = "".join(process.lines)
    assert "serving main:app" in shown
    assert f"{process.popen.pid}, 1 worker" in shown
    assert "Listening on" not in shown
    assert '"GET / HTTP/1.1" 200' in shown
    assert "\x1b" not in shown


def test_the_banner_has_colours_when_they_are_asked_for(pounce):
    process = pounce.start("serve", "main:app", "--port", "0", "--log-format", "text", FORCE_COLOR="1")
    process.line(r"\x1b\[.*http://127\.0\.0\.1:\d+")


def test_a_minimal_banner_is_one_line(pounce):
    process = pounce.start("serve", "main:app", "--port", "0", "--log-format=text", "--signage=minimal")
    process.line(r"^pounce \S+  http://127\.0\.0\.1:\d+  main:app  pid \d+$")
    assert process.stop() == 0
    assert [line for line in process.lines if "Shutting down" not in line] == process.lines[:1]


def test_without_a_banner_the_log_line_is_left(pounce):
    process = pounce.start("serve", "main:app", "--port", "0", "--log-format=text", "--signage=off")
    process.line(r"INFO +pounce - Listening on http://127\.0\.0\.1:\d+$")
    assert process.stop() == 0
    assert [line for line in process.lines if "Shutting down" not in line] == process.lines[:1]


def test_several_addresses_are_all_shown(pounce, get):
    process = pounce.start("serve", "main:app", "--bind", "127.0.0.1:0", "--bind", "127.0.0.1:0")
    urls = process.started()["urls"]
    assert len(set(urls)) == 2
    assert [get(url)[0] for url in urls] == [200, 200]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_cleanly(pounce, number):
    pounce.cold = True
    process = pounce.start("serve", "main:app", "--port", "0")
    process.started()
    assert process.stop(number) == 0
    assert "Traceback" not in "".join(process.lines)


def test_a_second_signal_forces_the_end(pounce, tmp_path):
    (tmp_path / "twice.py").write_text(ENDS_ITSELF_TWICE)
    process = pounce.start("serve", "twice:app", "--port", "0", "--lifespan", "off")
    host, port = process.started()["url"].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        assert process.ended() == 1
    assert "Traceback" not in "".join(process.lines)


def test_serves_on_a_unix_socket_with_the_mode_that_is_given(pounce, get_unix, tmp_path):
    process = pounce.start("serve", "main:app", "--uds", "app.sock", "--uds-permissions", "600")
    assert process.started()["url"] == "unix:app.sock"
    assert stat.S_IMODE((tmp_path / "app.sock").stat().st_mode) == 0o600
    assert get_unix(tmp_path / "app.sock") == (200, b"|http")


def test_serves_over_tls(pounce, get, tls_files):
    certificate, key = tls_files
    process = pounce.start("serve", "main:app", "--port", "0", "--ssl-certfile", certificate, "--ssl-keyfile", key)
    started = process.started()
    context = ssl.create_default_context(cafile=certificate)
    assert started["tls"] is True
    assert started["url"].startswith("https://")
    assert get(started["url"], context=context) == (200, b"|https")


def test_the_access_log_can_be_switched_off(pounce, get):
    process = pounce.start("serve", "main:app", "--port", "0", "--no-access-log")
    get(process.started()["url"])
    assert process.stop() == 0
    assert '"status"' not in "".join(process.lines)
