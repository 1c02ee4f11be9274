"""The schema and the template of pounce.toml say what the server itself takes."""

import json
import re
import tomllib
from pathlib import Path

import jsonschema
import pytest

from pounce.config import describe
from pounce.errors import ConfigError
from pounce_cli.flags import Given, plugin_options
from pounce_cli.main import main
from pounce_cli.schema import json_schema
from pounce_cli.sources import config_of, find, settings_of
from pounce_cli.template import template

DOCS = Path(__file__).parents[3] / "docs"
EXAMPLES = [
    (page.name, text)
    for page in sorted(DOCS.glob("*.md"))
    for text in re.findall(r"^```toml\n(# pounce.toml\n.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
]
"""Files that the documentation shows."""


@pytest.fixture(scope="module")
def validator():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("text", [text for _, text in EXAMPLES], ids=[name for name, _ in EXAMPLES])
def test_examples_of_the_documentation_are_valid(validator, text):
    validator.validate(tomllib.loads(text))


RIGHT = [
    'request_timeout = "2m"', "request_timeout = 3", "max_request_size = 1", 'max_request_size = "16MiB"',
    "uds_permissions = 0o660", 'uds_permissions = "660"', 'bind = ["a:1"]', "[h2]\nstream_window = 65535",
    '[error_pages]\n404 = "x"', "[log_config]\nversion = 1", 'log_config = "x.toml"',
    'app = "a:b"\n[profiles.x]\nport = 1',
    'reload_dir = ["src"]', '[display]\nname = "x"', 'middleware = ["a:b", ["c:d", {x = 1}]]', 'env_file = []',
]  # fmt: skip
WRONG = [
    "prot = 1", "port = 70000", "port = true", 'port = "http"', 'debug = "perhaps"', 'log_level = "loud"',
    'request_timeout = "soon"', "request_timeout = 0", 'max_request_size = "1XB"', "bind = [1]", "[h2]\nnope = 1",
    "[h2]\nmax_frame_size = 1", "[nope]\nx = 1", "[profiles.x]\nprot = 1", "profiles = 1", "[error_pages]\n404 = 1",
    "[profiles.x.profiles.y]\nport = 1", '[display]\nnam = "x"', "app = 3", 'uds_permissions = "rwx"',
]  # fmt: skip


@pytest.mark.parametrize("text", RIGHT)
def test_what_the_server_takes_is_valid(validator, text, tmp_path):
    (tmp_path / "pounce.toml").write_text(text)
    find(Given())
    validator.validate(tomllib.loads(text))


@pytest.mark.parametrize("text", WRONG)
def test_what_the_server_refuses_is_not(validator, text):
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(tomllib.loads(text))


def test_every_setting_of_a_file_is_in_the_schema(capsys):
    assert main(["config", "schema"]) == 0
    properties = json.loads(capsys.readouterr().out)["properties"]
    for item in describe():
        assert (item.name in properties) is (item.flag or item.name == "display"), item.name
    assert "stream_window" in properties["h2"]["properties"]


def test_secrets_have_no_default_in_the_schema():
    assert "default" not in json_schema()["properties"]["introspection_token"]


# The template


def test_template_has_every_setting_and_is_valid_as_it_is(tmp_path):
    text = template()
    (tmp_path / "pounce.toml").write_text(text)
    assert settings_of(Given()) == {}
    for item in (*(item for item in describe() if item.flag), *plugin_options(lambda plugin: True)):
        assert re.search(rf"^# {item.field} = ", text, re.MULTILINE), item.name


def test_template_without_its_comments_changes_nothing(tmp_path):
    lines = [line.removeprefix("# ") for line in template().partition("# ---- Profiles")[0].splitlines()]
    kept = [line for line in lines if re.match(r"\w+ = (?! # not set)|\[", line)]
    kept = [line for line in kept if not line.startswith(("app = ", "env_file = ", "host = ", "port = "))]
    (tmp_path / "pounce.toml").write_text("\n".join(kept))
    assert len(kept) > 150
    found = {name: setting.value for name, setting in settings_of(Given()).items()}
    defaults = {item.name: item.default for item in (*describe(), *plugin_options(lambda plugin: True))}
    for name, value in found.items():
        default = {} if defaults[name] is None else defaults[name]
        assert value == default, name


def test_template_is_written_once(capsys, tmp_path):
    assert main(["config", "init"]) == 0
    assert capsys.readouterr().out == "pounce.toml\n"
    assert (tmp_path / "pounce.toml").read_text() == template()
    assert main(["config", "init"]) == 2
    assert "pounce.toml is there already" in capsys.readouterr().err
    assert main(["config", "init", "--force"]) == 0
    (tmp_path / "pounce.toml").unlink()
    capsys.readouterr()
    assert main(["config", "init", "--print"]) == 0
    assert capsys.readouterr().out == template()
    assert not (tmp_path / "pounce.toml").exists()


# What holds


def test_what_holds_as_json(capsys, tmp_path, monkeypatch):
    (tmp_path / "pounce.toml").write_text('app = "main:app"\nport = 1\n[h2]\nreset_burst = 3\n')
    monkeypatch.setenv("POUNCE_INTROSPECTION_TOKEN", "hunter2")
    assert main(["config", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["app"], shown["port"], shown["h2"]["reset_burst"]) == ("main:app", 1, 3)
    assert (shown["introspection_token"], shown["uds"], shown["backlog"]) == ("***", None, 2048)
    assert main(["config", "show", "--json", "--origin"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["app"] == {"value": "main:app", "origin": "pounce.toml: app"}
    assert shown["h2"]["reset_burst"] == {"value": 3, "origin": "pounce.toml: h2.reset_burst"}
    assert shown["backlog"] == {"value": 2048, "origin": "default"}


def test_origins_can_be_left_out(capsys, tmp_path):
    (tmp_path / "pounce.toml").write_text('app = "main:app"\nport = 1')
    assert main(["config", "show"]) == 0
    assert 'app = "main:app"  # pounce.toml: app\n' in capsys.readouterr().out
    assert main(["config", "show", "--no-origin"]) == 0
    shown = capsys.readouterr().out
    assert "port = 1\n" in shown
    assert "pounce.toml" not in shown


# Second spellings


def test_second_spellings_are_taken_everywhere(tmp_path, monkeypatch):
    (tmp_path / "pounce.toml").write_text('reload_dir = ["src"]')
    monkeypatch.setenv("POUNCE_HTTP2", "off")
    got = config_of(Given())
    assert (got.reload_dirs, got.http2_enabled) == (("src",), False)


def test_two_spellings_in_one_place_are_an_error(tmp_path, monkeypatch):
    (tmp_path / "pounce.toml").write_text('reload_dir = ["src"]\nreload_dirs = ["lib"]')
    with pytest.raises(ConfigError, match=r"pounce\.toml: reload_dir and pounce\.toml: reload_dirs are two spellings"):
        config_of(Given())
    (tmp_path / "pounce.toml").unlink()
    monkeypatch.setenv("POUNCE_HTTP2", "off")
    monkeypatch.setenv("POUNCE_HTTP2_ENABLED", "on")
    with pytest.raises(ConfigError, match="two spellings"):
        config_of(Given())
