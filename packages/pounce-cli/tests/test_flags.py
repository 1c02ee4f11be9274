"""Flags come from the settings, and both readers of a line agree about it."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pounce.config import ServerConfig, describe
from pounce.errors import PluginError
from pounce.options import options_of, parse_option
from pounce_cli import commands, plain_line
from pounce_cli.flags import Given, flags, plugin_options, shown_default, spellings, switched_off_by
from pounce_cli.second_spellings import respelled
from pounce_cli.sources import config_of

PLUGIN_FLAGS = plugin_options(lambda name: name in ("h2", "h3"))
FLAGS = (*flags(), *PLUGIN_FLAGS)


def read_by_library(words):
    read = []
    commands.run(["serve", *words], serve=read.append)
    return read[0]


def config(*words):
    return config_of(plain_line.read(["main:app", *words]) or read_by_library(["main:app", *words]))


@pytest.fixture(scope="module")
def help_text():
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        assert commands.run(["serve", "--help"]) == 0
    return out.getvalue()


def test_every_setting_with_a_flag_is_one():
    assert [item.name for item in flags()] == [item.name for item in describe() if item.flag]
    assert len(flags()) > 30
    assert {"h2.stream_window", "h3.secret"} <= {item.name for item in PLUGIN_FLAGS}


@pytest.mark.parametrize("item", FLAGS, ids=lambda item: item.name)
def test_the_help_shows(item, help_text):
    for flag in spellings(item):
        assert f"{flag} " in help_text
    if item.kind is bool:
        assert all(flag in help_text for flag in switched_off_by(item))
    if item.choices:
        assert f"[choices: {', '.join(item.choices)}]" in " ".join(help_text.replace("│", " ").split())
    assert help_text.split(spellings(item)[0] + " ")[1]


def test_the_help_is_in_panels_by_group(help_text):
    titles = [line.strip("╭─╮ ") for line in help_text.splitlines() if line.startswith("╭")]
    groups = [
        "Application", "Workers", "Process", "Network", "TLS", "HTTP/3", "Limits", "Rate limits", "Deadlines",
        "WebSocket",
        "Proxies", "Compression", "Static files", "Logging", "Banner", "Events", "Metrics", "Traces",
        "Plugin h2", "Plugin h3", "Plugins",
    ]  # fmt: skip
    assert titles == ["Arguments", *groups]


@pytest.mark.parametrize("item", [item for item in FLAGS if shown_default(item)], ids=lambda item: item.name)
def test_a_default_is_shown_as_it_would_be_written(item, help_text):
    shown = shown_default(item)
    assert parse_option(item, shown) == item.default
    assert f"[default: {shown}]" in help_text


def words_for(item):
    if item.kind is bool:
        return [[flag] for flag in (*spellings(item), *switched_off_by(item))]
    if item.kind is tuple:
        return [[spellings(item)[0], "a", f"{spellings(item)[0]}=b,c", spellings(item)[0], "[::1]:80"]]
    value = item.choices[0] if item.choices else "3"
    return [form for flag in spellings(item) for form in ([flag, value], [f"{flag}={value}"])]


@pytest.mark.parametrize("item", FLAGS, ids=lambda item: item.name)
def test_the_plain_reader_knows_every_form_of_a_flag(item):
    for words in words_for(item):
        plain = plain_line.read(["main:app", *words])
        assert plain is not None
        assert list(plain.settings) == [item.name]


@pytest.mark.parametrize("number", range(max(len(words_for(item)) for item in FLAGS)))
def test_every_flag_is_read_the_same_in_both_ways(number):
    """In one line, each that has so many forms: the library takes its time for a line, whatever is in it."""
    forms = {item.name: words_for(item) for item in FLAGS if number < len(words_for(item))}
    line = ["main:app", *(word for form in forms.values() for word in form[number])]
    plain = plain_line.read(line)
    assert plain is not None
    assert set(plain.settings) == forms.keys()
    assert plain == read_by_library(line)


CHOICES = [(item.name, {"", *item.choices}) for item in FLAGS if item.choices]
WORDS = st.sampled_from(
    ["main:app", "--app", "--app=x:y", "--port", "--port=1", "0", "-1", "--debug", "--no-debug", "--bind", "a:1",
     "[1]", "", '["a"]', "--set", "h2.x={1}", "--set=h2.y=true", "--host", "--host=a=b", "--host=-", "--", "true",
     "--debug=false", "é", "a b", "--log-level", "INFO", "--http", "--server-header", "--config", "--config=x.toml",
     "--profile", "--profile=p", "--env-file", "--env-file=.env",
     "--static", "--static=d", "--h2-stream-window", "--h2-stream-window=2MiB", "--h2-nope", "--no-h2-nope"]
)  # fmt: skip


@given(st.lists(WORDS, max_size=7))
@example(["main:app", "--bind", '["a"]', "--bind=[1]"])
@example(["--server-header", "main:app", "x:y", "--host", "true"])
@settings(max_examples=150, deadline=None, derandomize=True)
def test_what_the_plain_reader_understands_the_library_understands_the_same(words):
    for line in (words, ["main:app", *words]):
        plain = plain_line.read(line)
        # A value that is none of the choices is answered by both, the settings' own hint being the better one.
        if plain is not None and all(plain.settings.get(name, "").lower() in allowed for name, allowed in CHOICES):
            assert plain == read_by_library(line)


@pytest.mark.parametrize(
    "words",
    [["--help"], ["main:app", "--port"], ["main:app", "--port", "1", "--port=2"],
     ["main:app", "--debug", "--no-debug"], ["main:app", "--nope"], ["a:b", "c:d"], [""], ["main:app", "--host", "-x"],
     ["main:app", "--debug=yes"], ["main:app", "-h"], ["main:app", "--h2-nope", "1"], ["main:app", "--config"],
     ["main:app", "--profile", "a", "--profile", "b"], ["main:app", "--h2-stream-window=1", "--h2-stream-window=2"]],
)  # fmt: skip
def test_the_plain_reader_leaves_alone_what_is_not_certain(words):
    assert plain_line.read(words) is None


def test_only_what_is_given_is_set():
    assert plain_line.read(["main:app", "--port", "1"]) == Given(("main:app",), {"port": "1"}, ())
    assert read_by_library(["main:app", "--port", "1"]) == Given(("main:app",), {"port": "1"}, ())


def test_times_and_sizes_have_units():
    got = config(
        "--request-timeout", "2m", "--header-timeout=500ms", "--max-request-size", "16MiB", "--uds-permissions=600"
    )
    assert (got.request_timeout, got.header_timeout) == (120.0, 0.5)
    assert (got.max_request_size, got.uds_permissions) == (16 * 1024**2, 0o600)


def test_switches_work_both_ways():
    assert config("--no-access-log").access_log is False
    assert config("--access-log").access_log is True
    assert config("--debug").debug is True
    assert config("--no-debug").debug is False
    assert config("--access-log=false").access_log is False
    assert config("--no-plugins").plugins is False


def test_lists_are_repeated_or_separated_by_commas():
    assert config("--disable-plugin", "a,b", "--disable-plugin=c").disable_plugin == ("a", "b", "c")


def test_choices_do_not_depend_on_case():
    assert config("--log-level", "DEBUG").log_level == "debug"
    assert config("--log-level", "DEBUG", "--server-header=").log_level == "debug"


def test_an_empty_value_is_a_value():
    assert config("--server-header", "").server_header == ""


def test_names_of_uvicorn_are_understood():
    got = config("--timeout-keep-alive", "7", "--timeout-graceful-shutdown", "3", "--http", "h11")
    assert (got.keep_alive_timeout, got.shutdown_timeout, got.http_parser) == (7.0, 3.0, "h11")


SECOND_SPELLINGS = {
    "-w 4": {"workers": 4}, "-w4": {"workers": 4}, "-b :80": {"bind": ("0.0.0.0:80",)},
    "-b[::]:80 -b unix:/a": {"bind": ("[::]:80", "unix:/a")}, "--fd 3": {"bind": ("fd://3",)},
    "--fd=3": {"bind": ("fd://3",)}, "--limit-max-requests 9": {"max_requests": 9},
    "--limit-concurrency 9": {"limit_concurrency": 9}, "--reuse-port": {"reuseport": True},
    "--ws-per-message-deflate false": {"websocket_compression": False},
    "--ws-per-message-deflate=False": {"websocket_compression": False},
    "--ws-per-message-deflate true": {"websocket_compression": True}, "--ws-per-message-deflate": {},
    "--ssl-cert-reqs 0": {}, "--interface asgi3": {"interface": "asgi"}, "--interface=wsgi": {"interface": "wsgi"},
    "--no-server-header": {"server_header": ""}, "--log-config log.toml": {"log_config": "log.toml"},
    "--ssl-cert-reqs=2 --ssl-ca-certs a --ssl-certfile c --ssl-keyfile k": {
        "ssl_cert_reqs": "required", "ssl_ca_certs": "a", "ssl_certfile": "c", "ssl_keyfile": "k"},
}  # fmt: skip


@pytest.mark.parametrize("line", SECOND_SPELLINGS)
@pytest.mark.parametrize("app_first", [True, False])
def test_flags_of_uvicorn_and_gunicorn_that_mean_the_same_are_understood(line, app_first):
    words = ["main:app", *line.split()] if app_first else [*line.split(), "main:app"]
    words = respelled(["serve", *words])[1:]
    read = plain_line.read(words) or read_by_library(words)
    assert read.apps == ("main:app",)
    assert config_of(read) == ServerConfig(**SECOND_SPELLINGS[line])


def test_words_of_other_commands_are_left_alone():
    assert respelled(["greet", "-w", "4", "--fd", "3"]) == ["greet", "-w", "4", "--fd", "3"]
    assert respelled(["serve", "main:app", "--port", "1"]) == ["serve", "main:app", "--port", "1"]


@pytest.mark.parametrize("words", [["--chdir", "sub"], ["--chdir=sub"]])
def test_the_folder_is_changed_and_the_successor_of_the_server_finds_it_too(words, tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    monkeypatch.setattr(sys, "orig_argv", ["python", "serve", "main:app", *words])
    assert respelled(["serve", "main:app", *words]) == ["serve", "main:app"]
    assert Path.cwd() == tmp_path / "sub"
    assert "".join(sys.orig_argv).endswith(str(tmp_path / "sub"))


def test_a_folder_that_is_not_there_is_an_error(capsys):
    from pounce_cli.main import main

    assert main(["serve", "main:app", "--chdir", "gone"]) == 2
    assert "--chdir 'gone': No such file" in capsys.readouterr().err


@pytest.mark.parametrize(("flag", "variable"), [("--use-colors", "FORCE_COLOR"), ("--no-use-colors", "NO_COLOR")])
def test_colours_are_said_by_the_variables_that_all_go_by(flag, variable, monkeypatch):
    monkeypatch.setenv(variable, "")
    assert respelled(["serve", flag, "main:app"]) == ["serve", "main:app"]
    assert os.environ[variable] == "1"


def test_settings_of_plugins_have_flags_with_units():
    got = config("--h2-stream-window", "2MiB", "--h2-reset-rate=0.5").plugin_settings
    assert dict(got["h2"]) == {"stream_window": 2 * 1024**2, "reset_rate": 0.5}


def test_set_says_the_same():
    got = config("--set", "h2.stream_window=2MiB", "--set=h2.reset_rate=0.5").plugin_settings
    assert dict(got["h2"]) == {"stream_window": 2 * 1024**2, "reset_rate": 0.5}


def test_plugins_are_looked_for_only_where_a_flag_is_none_of_the_server(monkeypatch):
    def must_not(wanted):
        raise AssertionError("plugins were looked for")

    monkeypatch.setattr("pounce.registry.installed_options", must_not)
    assert plain_line.read(["main:app", "--port", "1", "--no-debug", "--set", "h2.x=1", "--config", "f"]) is not None


def test_only_the_plugin_that_a_flag_may_mean_is_imported(monkeypatch):
    asked = []

    def options(wanted):
        asked.extend(name for name in ("h2", "h3", "other") if wanted(name))
        return ()

    monkeypatch.setattr("pounce.registry.installed_options", options)
    plain_line.read(["main:app", "--no-h2-something"])
    assert asked == ["h2"]


def test_plugin_cannot_have_a_flag_of_the_server(monkeypatch):
    @dataclass(frozen=True)
    class Settings:
        level: str = "x"

    monkeypatch.setattr("pounce.registry.installed_options", lambda wanted: options_of(Settings, "log"))
    with pytest.raises(PluginError, match=r"log\.level .* --log-level"):
        plugin_options(lambda name: True)
