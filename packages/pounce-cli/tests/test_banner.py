"""The banner says what the server said of itself."""

import dataclasses

import pytest

from pounce.server import StartInfo
from pounce_cli import banner

INFO = StartInfo(
    version="1.2.3",
    python="3.14.7",
    gil=False,
    urls=("https://[::1]:8443", "unix:/run/app.sock"),
    pid=42,
    app="main:app",
    workers=4,
    tls=True,
    wires=("h1", "h2"),
    http_parser="h11",
)


def shown(capsys, info, minimal=False):
    banner.show(info, minimal=minimal)
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_it_names_application_addresses_process_and_protocols(capsys):
    text = shown(capsys, INFO)
    for part in (
        "pounce 1.2.3",
        "main:app",
        "https://[::1]:8443\n",
        "unix:/run/app.sock\n",
        "3.14.7",
        "42, 4 workers",
        "h1, h2",
        "h11",
        "TLS        on",
        "Ctrl+C",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("build", "gil", "said"),
    [
        (True, False, "free-threaded, GIL off"),
        (True, True, "free-threaded, but the GIL is on"),
        (False, True, "with the GIL"),
    ],
)
def test_it_says_how_threads_run(capsys, monkeypatch, build, gil, said):
    monkeypatch.setattr(banner, "_free_threaded", lambda: build)
    assert said in shown(capsys, dataclasses.replace(INFO, gil=gil))


def test_a_long_address_is_not_broken(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    url = "http://" + "a" * 60 + ":80"
    assert url in shown(capsys, dataclasses.replace(INFO, urls=(url,)))


def test_minimal_is_one_line(capsys):
    assert shown(capsys, INFO, minimal=True).count("\n") == 1
