"""An error about a setting names it, where it was given, and what is allowed, whenever it is noticed."""

import json

import pytest

from pounce_cli.flags import flag_of
from pounce_cli.main import main
from pounce_cli.sources import variable_of

APP = "pounce.middleware.static:no_application"
LIMITED = ["--rate-limit-enabled"]
WRONG = [
    ("loop", "nope", "must be auto, asyncio, uvloop or module:factory", []),
    ("http_parser", "nope", "must be auto or one of h11", []),
    ("error_pages", "999=x", "must be files or applications by status", []),
    ("error_pages", "404=nope.html", "nope.html for 404 cannot be read", []),
    ("bind", "127.0.0.1", "must be [wire://]host:port", []),
    ("ipv6", "only", "Give an address of IPv6 such as ::", ["--host=127.0.0.1"]),
    ("trusted_hosts", "10.0.0.0/99", "must be addresses, networks or", []),
    ("access_log_format", "%(x)s", "There are h, l, r", []),
    ("headers", "abc", "must be Name:Value", []),
    ("log_config", "nope.toml", "a file in TOML, JSON, YAML or INI", []),
    ("statsd_address", "foo", "must be host:port or unix:/path", []),
    ("sentry_dsn", "foo", "must be that of a project, https://KEY@HOST/NUMBER", []),
    ("rate_limit_key", "head:x", "must be client, header:NAME or cookie:NAME", LIMITED),
    ("rate_limit_routes", "x y z w", "must be [METHOD|METHOD] /path rate/unit [burst], or off", LIMITED),
    ("static_files", "static=.", "must begin with /", []),
    ("static_files", "/static=nope", "there is no directory", []),
    ("static_immutable", "(", "must be a regular expression", ["--static-files=/=."]),
    ("static_index_file", "../x", "must be the name of a file in the directory", ["--static-files=/=."]),
    ("static_fallback", "nope.html", "must be the name of a file in the directory", ["--static-files=/=."]),
    ("server_names", "http://x", "must be names of hosts", []),
    ("compression_types", "(", "must be a regular expression", []),
    ("websocket_origins", "example.org", "must be scheme://host[:port]", []),
    ("on_exit", "foo", "Write module:attribute.", []),
    ("middleware", "foo", "Write module:attribute.", []),
    ("lifecycle_collector", "foo", "Write module:attribute.", []),
]


@pytest.mark.parametrize(("name", "value", "allowed", "others"), WRONG)
@pytest.mark.parametrize("place", ["flag", "variable", "file"])
def test_an_error_names_setting_place_and_what_is_allowed(
    tmp_path, monkeypatch, capsys, place, name, value, allowed, others
):
    monkeypatch.setenv("POUNCE_LOG_FORMAT", "text")
    words, origin = ["check", APP, *others], flag_of(name)
    if place == "flag":
        words.append(f"{origin}={value}")
    elif place == "variable":
        origin = variable_of(name)
        monkeypatch.setenv(origin, value)
    else:
        origin = f"pounce.toml: {name}"
        (tmp_path / "pounce.toml").write_text(f"{name} = {json.dumps(value)}\n")
    assert main(words) in (2, 4)
    message, hint = capsys.readouterr().err.split("Hint: ")
    assert name in message
    assert hint.rstrip().endswith(f"({name}: {origin})")
    assert allowed in message + hint


@pytest.mark.parametrize(
    ("written", "form"),
    [("--static-files=/static", "For example /static=public"), ("--error-pages=404", "For example 404=missing.html")],
)
def test_table_without_an_equals_sign_is_answered_with_its_form(capsys, written, form):
    assert main(["check", APP, "--log-format=text", written]) == 2
    assert form in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "environ", "file"),
    [
        (["--h2-max-frame-size=64KiB"], {}, ""),
        (["--no-h2-upgrade"], {}, ""),
        (["--set", "h2.max_frame_size=64KiB"], {}, ""),
        ([], {"POUNCE_H2_MAX_FRAME_SIZE": "64KiB"}, ""),
        ([], {}, "[h2]\nmax_frame_size = 65536\n"),
    ],
    ids=["flag", "switch", "set", "variable", "file"],
)
def test_a_setting_of_a_plugin_that_is_not_installed_names_its_package(
    tmp_path, monkeypatch, capsys, words, environ, file
):
    monkeypatch.setattr("pounce.registry.installed_options", lambda wanted: ())
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "pounce.toml").write_text(file)
    assert main(["check", APP, "--log-format=text", *words]) == 2
    assert "pip install pounce-h2" in capsys.readouterr().err


def test_a_wrong_name_of_a_plugin_that_is_installed_names_no_package(monkeypatch, capsys):
    monkeypatch.setenv("POUNCE_LOG_FORMAT", "text")
    assert main(["check", APP, "--h2-max-frame-sise=64KiB"]) == 2
    assert "Hint: Did you mean --h2-max-frame-size?" in capsys.readouterr().err
    monkeypatch.setenv("POUNCE_H2_MAX_FRAME_SISE", "64KiB")
    assert main(["check", APP]) == 2
    assert "Hint: Did you mean POUNCE_H2_MAX_FRAME_SIZE?" in capsys.readouterr().err


def test_a_start_names_the_place_too(monkeypatch, capsys):
    monkeypatch.setenv("POUNCE_HEADERS", "abc")
    assert main(["serve", APP, "--port=0", "--log-format=text"]) == 2
    assert "(headers: POUNCE_HEADERS)" in capsys.readouterr().err


def test_a_log_that_cannot_be_opened_is_named_by_its_setting(pounce):
    code, stderr = pounce.fails("serve", APP, "--port=0", "--log-format=text", "--error-log-file=nope/log")
    assert code == 2
    assert "error_log_file: the log file nope/log cannot be opened" in stderr
    assert "(error_log_file: --error-log-file)" in stderr


def test_the_form_of_a_value_is_no_setting(capsys):
    assert main(["check", APP, "--port=0", "--log-format=text", "--statsd-address=foo"]) == 2
    assert "(statsd_address: --statsd-address)" in capsys.readouterr().err
