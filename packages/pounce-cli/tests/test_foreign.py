"""Flags of other servers: each is answered by what it is here, or why it is not there."""

import re
from typing import Any

import pytest

from pounce.config import describe
from pounce_cli import second_spellings
from pounce_cli.commands import BUILT_IN
from pounce_cli.flags import flags, plugin_options, spellings, switched_off_by
from pounce_cli.foreign import COMMANDS, FLAGS, OF_COMMANDS, SHARED, VALUES, about_flag
from pounce_cli.main import main
from pounce_cli.peers import SERVERS, Server, all_flags

OPTIONS = (*flags(), *plugin_options(lambda plugin: True))
OURS = {
    *("--app", "--set", "--config", "--static", "--profile", "--env-file", "--help", "-h", "--version"),
    *second_spellings.FLAGS,
    *(flag for item in OPTIONS for flag in spellings(item)),
    *(flag for item in OPTIONS if item.kind is bool for flag in switched_off_by(item)),
}
ELSEWHERE = {"--json", "--trace", "--install-completion"}
"""Of other commands, ours and Python's."""


@pytest.mark.parametrize("server", SERVERS.values(), ids=lambda server: server.name)
def test_every_flag_is_ours_or_is_answered(server: Server) -> None:
    answered = [flag for flag in all_flags(server) if flag in OURS or about_flag(flag) is not None]
    assert answered == all_flags(server)


def test_what_is_ours_is_answered_by_nobody_else() -> None:
    assert OURS & FLAGS.keys() == set()
    assert COMMANDS.keys() & set(BUILT_IN) == set()
    choices = {(item.name, choice) for item in describe() for choice in item.choices}
    assert choices & VALUES.keys() == set()
    assert {name for name, _ in VALUES} <= {item.name for item in describe()}


@pytest.mark.parametrize("flag", FLAGS)
def test_answer_names_what_there_is_or_says_that_there_is_nothing(flag: str) -> None:
    answer = FLAGS[flag]
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", answer))
    assert named <= OURS | ELSEWHERE
    assert answer.startswith(("Write --", "Write pounce ", "Not there", "Not needed: ", "Start in "))
    assert answer.endswith(".")


LINES = {
    "--reset-contextvars": "--reset-contextvars", "--capture-output=x": "--capture-output", "--pid": "--pid",
    "-k": "-k", "-kgthread": "-k", "-DR": "-D", "--timeout=30": "--timeout",
    "--limit-request-field_size": "--limit-request-field_size",
}  # fmt: skip
"""What is written, and the flag in the table that it is."""


@pytest.mark.parametrize("word", LINES)
@pytest.mark.parametrize("command", [["serve", "main:app"], ["config", "show"]])
def test_flag_of_another_server_has_its_hint_and_none_by_its_spelling(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, word: str, command: list[str]
) -> None:
    monkeypatch.setenv("POUNCE_LOG_FORMAT", "text")
    assert main([*command, word, "1"]) == 2
    said = capsys.readouterr().err
    assert f"there is no option {word.partition('=')[0]}" in said
    assert said.endswith(f"Hint: {FLAGS[LINES[word]]}\n")


OF_TOOLS = {
    "info --output-format json": "Write --json, or neither for text.",
    "info --format=json": "Write --json, or neither for text.",
    "info --no-color": FLAGS["--no-color"],
    "info -o x": FLAGS["-o"],
    "bench main:app --output-format json": "Write --json, or neither for text.",
    "config show --output-format json": "Write --json, or neither for text.",
    "config schema --output-format toml-template": OF_COMMANDS["config schema", "--output-format"],
    "check main:app --output-format json": "Write --json, or neither for text.",
    "serve main:app --output-format json": FLAGS["--output-format"],
    "init --directory q": OF_COMMANDS["init", "--directory"],
    "init --force": OF_COMMANDS["init", "--force"],
    "config show --force": FLAGS["--force"],
}


@pytest.mark.parametrize("line", OF_TOOLS)
def test_flag_of_the_older_package_has_the_hint_of_its_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.setenv("POUNCE_LOG_FORMAT", "text")
    assert main(line.split()) == 2
    said = capsys.readouterr().err
    assert "there is no option -" in said
    assert said.endswith(f"Hint: {OF_TOOLS[line]}\n")


def test_letters_that_servers_differ_about_are_told_apart() -> None:
    meanings: dict[str, set[str]] = {}
    for server in SERVERS.values():
        for each in server.options:
            for letter in each.flags:
                if len(letter) == 2:
                    meanings.setdefault(letter, set()).add(each.flags[-1])
    assert {letter: len(found) for letter, found in meanings.items() if len(found) > 1} == {
        letter: len(found) for letter, found in SHARED.items()
    }


BY_VALUE = {
    "-p 8001": "Write --port.", "-p8001": "Write --port.", "-p=8001": "Write --port.",
    "-p /run/x.pid": "Write --pid-file.", "-p x.pid": "Write --pid-file.",
    "-u /run/x.sock": "Write --uds.", "-u x.sock": "Write --uds.", "-u 1000": "Write --user and --group. A socket",
    "-e ssl:443:privateKey=k.pem": "Write --bind host:port", "-e tcp:80": "Write --bind", "-e unix:/x": "Write --bind",
    "-e A=tcp:80": "Write --env-file FILE", "-n web": "Write --process-title.", "-n": "Write pounce check.",
    "-n --debug": "Write pounce check.", "-v 2": "Write --log-level: ",
}  # fmt: skip
UNCERTAIN = {
    "-p": ("--pid-file (for that of gunicorn and hypercorn)", "--port (for that of daphne)"),
    "-p --debug": ("--pid-file", "--port"),
    "-u web": ("--user and --group (for that of gunicorn", "--uds (for that of daphne)"),
    "-e x": ("--env-file FILE", "--bind host:port"),
    "-t 30": ("--worker-timeout", "--app-timeout"),
    "-n main:app": ("--process-title", "pounce check"),
    "-v": ("pounce --version", "--log-level"),
}


@pytest.mark.parametrize("written", BY_VALUE)
def test_letter_of_several_servers_is_answered_by_its_value(written: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "main:app", *written.split()]) == 2
    said = capsys.readouterr().err
    assert BY_VALUE[written] in said
    assert "for that of" not in said


@pytest.mark.parametrize("written", UNCERTAIN)
def test_letter_whose_value_does_not_tell_has_every_answer(written: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "main:app", *written.split()]) == 2
    said = capsys.readouterr().err
    assert [answer for answer in UNCERTAIN[written] if answer not in said] == []


@pytest.mark.parametrize("letter", SHARED)
def test_answers_to_a_letter_name_what_there_is(letter: str) -> None:
    for each in SHARED[letter]:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", f"{each.instead} {each.more}"))
        assert named <= OURS
        assert each.instead.startswith(("--", "pounce "))


def test_flag_of_nobody_has_a_hint_by_its_spelling(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "main:app", "--prot", "1"]) == 2
    assert "Did you mean --port?" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--frobnicate", "--proxy-mode", "--log-file-size", "-x"])
def test_flag_that_is_far_from_all_others_has_no_hint(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert main(["serve", "main:app", word, "1"]) == 2
    said = capsys.readouterr().err
    assert f"there is no option {word}" in said
    assert "Did you mean" not in said


@pytest.mark.parametrize(("name", "value"), VALUES)
def test_value_of_another_server_has_its_hint(capsys: pytest.CaptureFixture[str], name: str, value: str) -> None:
    assert main(["serve", "main:app", "--" + name.replace("_", "-"), value]) == 2
    assert VALUES[name, value] in capsys.readouterr().err


@pytest.mark.parametrize("word", COMMANDS)
def test_command_of_another_server_has_its_hint(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert main([word]) == 2
    assert COMMANDS[word] in capsys.readouterr().err


def test_flag_before_the_command_is_told_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "8000", "main:app"]) == 2
    assert "pounce serve main:app --port" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "hint"),
    [("h1-fast", "Did you mean h1fast?"), ("H11", "Did you mean h11?"), ("httptools", "h1fast, of pounce-h1fast")],
)
def test_parser_that_is_not_there_has_a_hint(pounce: Any, name: str, hint: str) -> None:
    ended, said = pounce.fails("serve", "main:app", "--port", "0", "--http-parser", name, "--log-format", "text")
    assert ended == 2
    assert hint in said
