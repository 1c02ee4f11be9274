"""`pounce plugins`."""

import json

import pytest

from pounce.plugin import API_VERSION, Command, ParserChoice, Plugin
from pounce.registry import Loaded, Registry
from pounce_cli.main import main


def create(limits: object) -> object:
    raise NotImplementedError


PLUGIN = Plugin(name="swift", api=API_VERSION, parsers=(ParserChoice(name="swift", priority=1, create=create),))  # type: ignore[arg-type]
FINE = Plugin(name="fine", api=API_VERSION)
REGISTRY = Registry(
    [
        Loaded("swift", "swift-parser", "1.2.3", PLUGIN, load_time=0.0125, gil_enabled=True),
        Loaded("old", "old-wire", "0.9", skipped="made for contract 0.9, this is 1.0"),
    ]
)


def test_json_tells_everything_of_a_plugin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "--json"], discover=lambda: REGISTRY) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["plugins"][0] == {
        "name": "swift",
        "distribution": "swift-parser",
        "version": "1.2.3",
        "contract": "1.4",
        "provides": {"parsers": ["swift"]},
        "load_ms": 12.5,
        "gil_enabled": True,
        "skipped": None,
        "errors": [],
    }


def test_json_tells_why_a_plugin_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plugins", "--json"], discover=lambda: REGISTRY)
    assert json.loads(capsys.readouterr().out)["plugins"][1]["skipped"] == "made for contract 0.9, this is 1.0"


@pytest.mark.parametrize(
    "text",
    ["swift-parser", "1.2.3", "parsers: swift", "12.5 ms", "switches the GIL on", "skipped: made for contract 0.9"],
)
def test_the_table_tells_it_too(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins"], discover=lambda: REGISTRY) == 0
    assert text in capsys.readouterr().out


def test_the_installed_parsers_are_among_them(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plugins", "--json"])
    plugins = json.loads(capsys.readouterr().out)["plugins"]
    assert [name for entry in plugins for name in entry["provides"].get("parsers", [])] == ["h11", "h1fast"]


def test_names_and_reasons_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    wild = "\x1b[2J\r\x9b1A\u202e"
    plugin = Plugin(name="fake", api=API_VERSION, parsers=(ParserChoice(name=wild, priority=0, create=create),))  # type: ignore[arg-type]
    registry = Registry(
        [Loaded(wild, wild, wild, plugin), Loaded("x", "y", "0", skipped=f"import failed: {wild}\nError: {wild}")]
    )
    for words in ([], ["--json"]):
        assert main(["plugins", *words], discover=lambda: registry) == 0
        out = capsys.readouterr().out
        assert "[2J" in out
        assert all(line.isprintable() for line in out.split("\n"))


def test_what_contradicts_another_is_listed_and_marked(capsys: pytest.CaptureFixture[str]) -> None:
    command = Command(name="serve", load=lambda: print)
    again = Plugin(name="swift", api=API_VERSION, parsers=PLUGIN.parsers, commands=(command,))
    registry = Registry(
        [Loaded("swift", "one", "1", PLUGIN), Loaded("swift", "two", "2", again), Loaded("fine", "three", "3", FINE)],
        lenient=True,
    )
    assert main(["plugins", "--json"], discover=lambda: registry) == 0
    shown = json.loads(capsys.readouterr().out)["plugins"]
    assert [entry["distribution"] for entry in shown] == ["one", "two", "three"]
    assert [len(entry["errors"]) for entry in shown] == [0, 4, 0]
    assert shown[1]["errors"][0] == "entry point 'swift' is claimed by swift (one) and swift (two)"
    assert "command 'serve' is claimed by pounce itself" in shown[1]["errors"][3]
    assert main(["plugins"], discover=lambda: registry) == 0
    assert "ERROR: parser 'swift' is claimed by" in capsys.readouterr().out


def test_a_plugin_that_is_not_well_made_is_listed_and_marked(capsys: pytest.CaptureFixture[str]) -> None:
    broken = Plugin(name="fake", api=API_VERSION, parsers=PLUGIN.parsers[0])  # type: ignore[arg-type]
    registry = Registry([Loaded("fake", "one", "1", broken)], lenient=True)
    for words in (["--json"], []):
        assert main(["plugins", *words], discover=lambda: registry) == 0
        assert "parsers must be a tuple" in capsys.readouterr().out
