"""The banner says what the server said of itself."""

import dataclasses

import pytest

from pounce import DisplayConfig, ServerConfig
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


def shown(capsys, info, minimal=False, **settings):
    banner.show(info, ServerConfig(**settings), minimal=minimal)
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
        "42, 4 workers in threads",
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


def test_it_shows_the_name_of_the_application_in_front_of_its_own(capsys):
    display = DisplayConfig(name="Shop", tagline="Sells things", version="2.0", lines=("docs: /docs", "\x1b[31m"))
    text = shown(capsys, dataclasses.replace(INFO, display=display))
    assert text.startswith("\n  Shop 2.0\n  Sells things\n  docs: /docs\n")
    assert "\x1b" not in text
    assert "Shop" in shown(capsys, dataclasses.replace(INFO, display=display), minimal=True)


SHOWN = {
    "trusted: 10.0.0.0/8": {"trusted_hosts": ("10.0.0.0/8",)},
    "on, its pages for 127.0.0.1, ::1": {"debug": True},
    "Paths      /livez, /readyz, /up, /_pounce/": {
        "probes": True, "health_check_path": "/up", "status_page_enabled": True
    },
    "on, watching src": {"reload": True, "reload_dirs": ("src",)},
    "h1, h2, h3 ": {"http3_enabled": True, "ssl_self_signed": True},
}


@pytest.mark.parametrize("said", SHOWN)
def test_it_says_what_is_on_and_nothing_of_what_is_not(capsys, said):
    assert said in shown(capsys, INFO, **SHOWN[said])
    assert said not in shown(capsys, INFO)


HINT = "--workers 0 uses all"


@pytest.mark.parametrize(
    ("workers", "cpus", "settings", "hinted"),
    [
        (1, 8, {}, True),
        (1, 2, {}, False),
        (4, 8, {}, False),
        (1, 8, {"reload": True}, False),
        (1, 8, {"debug": True}, False),
    ],
)
def test_a_hint_is_there_only_where_it_helps(capsys, monkeypatch, workers, cpus, settings, hinted):
    monkeypatch.setattr(banner, "usable_cpus", lambda: cpus)
    assert (HINT in shown(capsys, dataclasses.replace(INFO, workers=workers), **settings)) is hinted
