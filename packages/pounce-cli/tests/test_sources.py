"""Settings come from the command line, else the environment, else a file, else the default; each knows from where."""

import importlib
import os
import sys
import tomllib

import httpx
import pytest

from pounce.config import describe
from pounce.errors import ConfigError
from pounce_cli.flags import Given, plugin_options
from pounce_cli.main import main
from pounce_cli.sources import app_of, config_of, find, settings_of

PLACES = ("pounce.toml", "pyproject.toml")


@pytest.fixture
def write(tmp_path):
    """Write settings into a file of that name: at its top, or where pyproject.toml has them."""

    def write(text, name="pounce.toml"):
        if name == "pyproject.toml":
            text = f"[tool.pounce]\n{text}".replace("[h2]", "[tool.pounce.h2]")
        (tmp_path / name).write_text(text)

    return write


def refused(given=None):
    with pytest.raises(ConfigError) as caught:
        config_of(given or Given())
    return caught.value


def test_nothing_is_set_where_nothing_is_given():
    assert settings_of(Given()) == {}


# Files


@pytest.mark.parametrize("place", PLACES)
def test_file_in_the_current_folder_is_read(write, place):
    write('backlog = 80\nrequest_timeout = "2m"\nbind = ["a:1", "b:2"]\nuds_permissions = 0o600\ndebug = true\n', place)
    got = config_of(Given())
    assert (got.backlog, got.request_timeout, got.bind, got.uds_permissions, got.debug) == (
        80, 120.0, ("a:1", "b:2"), 0o600, True
    )  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_table_holds_the_settings_of_a_plugin(write, place):
    write('[h2]\nstream_window = "2MiB"\nmax_concurrent_streams = 7\n', place)
    assert dict(config_of(Given()).plugin_settings["h2"]) == {"stream_window": 2 * 1024**2, "max_concurrent_streams": 7}


def test_only_the_first_file_counts(write):
    write("", "pounce.toml")
    write("port = 1\n", "pyproject.toml")
    assert config_of(Given()).port == 8000


def test_pyproject_of_something_else_says_nothing(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "pounce"\n[tool.other]\nport = 1\n')
    assert settings_of(Given()) == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [("server.toml", "port = 1"), ("pyproject.toml", "[tool.pounce]\nport = 1"), ("deploy", "port = 1")],
)
def test_file_can_be_named(tmp_path, write, name, text):
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / name).write_text(text)
    write("port = 2")
    assert config_of(Given(config=f"etc/{name}")).port == 1


def test_file_can_be_named_by_the_environment(tmp_path, monkeypatch):
    (tmp_path / "a.toml").write_text("port = 1")
    (tmp_path / "b.toml").write_text("port = 2")
    monkeypatch.setenv("POUNCE_CONFIG", "a.toml")
    assert config_of(Given()).port == 1
    assert config_of(Given(config="b.toml")).port == 2


def test_variable_that_names_no_file_is_as_if_it_were_not_set(write, monkeypatch):
    write("port = 1")
    monkeypatch.setenv("POUNCE_CONFIG", "")
    assert config_of(Given()).port == 1


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", None, "the configuration file a.toml cannot be read: No such file or directory"),
        ("a.toml", "port =", "the configuration file a.toml is not TOML"),
        ("a.toml", b"\xff", "the configuration file a.toml is not TOML"),
        ("pyproject.toml", "[tool.other]", "pyproject.toml has no table [tool.pounce]"),
        ("pyproject.toml", "tool = 3", "pyproject.toml has no table [tool.pounce]"),
        ("pyproject.toml", "[[tool.pounce]]", "pyproject.toml: tool.pounce must be a table (got [{}])"),
    ],
)
def test_file_that_cannot_be_used_is_an_error(tmp_path, name, text, said):
    if text is not None:
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert said in str(refused(Given(config=name)))


def test_pyproject_of_the_current_folder_must_have_a_table(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[tool]\npounce = 3")
    assert refused().message == "pyproject.toml: tool.pounce must be a table (got 3)"


UNKNOWN = {
    "prot = 1": ("prot is not a setting", "Did you mean port?"),
    "max-headers = 1": ("max-headers is not a setting", "Did you mean max_headers?"),
    "[h2]\nstream_windw = 1": ("h2.stream_windw is not a setting", "Did you mean h2.stream_window?"),
    "[nope]\nx = 1": ("nope.x is not a setting", "No plugin nope with settings is installed."),
    "[port]\nx = 1": ("port.x is not a setting", "No plugin port with settings is installed."),
    'request_id_generator = "a:b"': ("request_id_generator is not a setting", "It can be set from Python alone."),
    "[plugin_settings.h2]\nstream_window = 1": ("plugin_settings.h2 is not a setting", "No plugin plugin_settings"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", UNKNOWN)
def test_unknown_key_is_an_error_that_says_where_it_stands(tmp_path, text, place):
    prefix = "tool.pounce." if place == "pyproject.toml" else ""
    text = text if not prefix else f"[tool.pounce]\n{text}" if not text.startswith("[") else f"[{prefix}{text[1:]}"
    (tmp_path / place).write_text(text)
    said, hint = UNKNOWN[text.replace("[tool.pounce]\n", "").replace("tool.pounce.", "")]
    error = refused()
    assert error.message == f"{place}: {prefix}{said}"
    assert error.hint.startswith(hint)


def test_table_of_pyproject_in_another_file_is_explained(write):
    write("[tool.pounce]\nport = 1")
    error = refused()
    assert error.message == "pounce.toml: tool.pounce is not a setting"
    assert "[tool.pounce] is for pyproject.toml" in error.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = 70000", "port must be an integer from 0 to 65535 (got 70000)"),
        ("port = true", "port must be an integer from 0 to 65535 (got True)"),
        ('debug = "perhaps"', "debug must be true or false (got 'perhaps')"),
        ("debug = 1", "debug must be true or false (got 1)"),
        ("bind = 3", "bind must be a list of strings (got 3)"),
        ('request_timeout = "soon"', "request_timeout must be a number of seconds above 0 (got 'soon')"),
        ("request_timeout = nan", "request_timeout must be a number of seconds above 0 (got nan)"),
        ("[h2]\nstream_window = 5", "h2.stream_window must be an integer of bytes from 1024 to 2147483647 (got 5)"),
        ("[h2.stream_window]\nx = 5", "h2.stream_window must be an integer of bytes from 1024 to 2147483647"),
    ],
)
def test_wrong_value_is_an_error_that_says_where_it_stands(write, text, said):
    write(text)
    assert refused().message.startswith(f"pounce.toml: {said}")


# Environment


def test_variable_is_a_setting(monkeypatch):
    monkeypatch.setenv("POUNCE_WORKERS", "2")
    monkeypatch.setenv("POUNCE_ACCESS_LOG", "off")
    monkeypatch.setenv("POUNCE_BIND", "a:1, b:2")
    monkeypatch.setenv("POUNCE_H2_STREAM_WINDOW", "2MiB")
    got = config_of(Given())
    assert (got.workers, got.access_log, got.bind) == (2, False, ("a:1", "b:2"))
    assert dict(got.plugin_settings["h2"]) == {"stream_window": 2 * 1024**2}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("POUNCE_PROT", "Did you mean POUNCE_PORT?"),
        ("POUNCE_H2_STREAM_WINDW", "Did you mean POUNCE_H2_STREAM_WINDOW?"),
        ("POUNCE_ACCESS_LOG_FILTR", "Did you mean POUNCE_ACCESS_LOG_FILTER?"),
    ],
)
def test_unknown_variable_is_an_error_with_a_suggestion(monkeypatch, name, hint):
    monkeypatch.setenv(name, "1")
    error = refused()
    assert (error.message, error.hint) == (f"{name} is not a setting", hint)


def test_variables_of_others_are_left_alone(monkeypatch):
    monkeypatch.setenv("POUNCER", "1")
    monkeypatch.setenv("pounce_port", "1")
    assert settings_of(Given()) == {}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("POUNCE_PORT", "tcp://10.0.0.1:80", "POUNCE_PORT must be an integer from 0 to 65535 (got 'tcp://10.0.0.1:80')"),
        ("POUNCE_DEBUG", "", "POUNCE_DEBUG must be true or false (got '')"),
        ("POUNCE_LIFESPAN", "of", "POUNCE_LIFESPAN must be one of auto, on, off (got 'of')"),
        ("POUNCE_H2_MAX_FRAME_SIZE", "1", "POUNCE_H2_MAX_FRAME_SIZE must be an integer of bytes from 16384"),
    ],
)
def test_wrong_variable_is_named(monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    assert refused().message.startswith(said)


# Precedence


def test_nearer_places_win(write, monkeypatch):
    write('port = 1\nhost = "a"\nlog_level = "error"\nonly_plugins = ["a"]\n[h2]\nreset_burst = 1\nreset_rate = 1.5\n')
    monkeypatch.setenv("POUNCE_PORT", "2")
    monkeypatch.setenv("POUNCE_HOST", "environment")
    monkeypatch.setenv("POUNCE_H2_RESET_BURST", "2")
    found = settings_of(Given(settings={"port": "3", "only_plugins": ("b",), "h2.reset_burst": "3"}))
    assert found == {
        "port": (3, "--port"),
        "host": ("environment", "POUNCE_HOST"),
        "log_level": ("error", "pounce.toml: log_level"),
        "only_plugins": (("b",), "--only-plugins"),
        "h2.reset_burst": (3, "--h2-reset-burst"),
        "h2.reset_rate": (1.5, "pounce.toml: h2.reset_rate"),
    }


def test_switch_of_a_file_can_be_turned_both_ways(write):
    write("access_log = false\ndebug = true\n")
    got = config_of(Given(settings={"access_log": True, "debug": False}))
    assert (got.access_log, got.debug) == (True, False)


def test_value_that_is_overridden_must_be_right_all_the_same(write):
    write("port = 70000")
    assert "pounce.toml: port" in str(refused(Given(settings={"port": "1"})))


def test_contradiction_names_both_places(write, monkeypatch):
    write("ssl_self_signed = true")
    monkeypatch.setenv("POUNCE_SSL_CERTFILE", "c")
    monkeypatch.setenv("POUNCE_SSL_KEYFILE", "k")
    assert "ssl_self_signed: pounce.toml: ssl_self_signed" in refused().hint
    assert "ssl_certfile: POUNCE_SSL_CERTFILE" in refused().hint


def where(settings):
    return {name: setting.value for name, setting in settings_of(Given(settings=settings)).items()}


@pytest.mark.parametrize(
    ("text", "line", "listens"),
    [
        ('bind = ["a:1"]', {"port": "2"}, {"port": 2}),
        ('bind = ["a:1"]', {"uds": "s"}, {"uds": "s"}),
        ('uds = "s"', {"host": "h"}, {"host": "h"}),
        ('uds = "s"', {"bind": ("b:2",)}, {"bind": ("b:2",)}),
        ('host = "h"\nport = 1', {"bind": ("b:2",)}, {"bind": ("b:2",)}),
        ('host = "h"\nport = 1', {"port": "2"}, {"host": "h", "port": 2}),
    ],
)
def test_nearest_place_that_says_where_to_listen_decides(write, text, line, listens):
    write(text)
    assert where(line) == listens


def test_variable_decides_where_to_listen_over_a_file_and_under_the_command_line(write, monkeypatch):
    write('bind = ["a:1"]')
    monkeypatch.setenv("POUNCE_UDS", "s")
    assert where({}) == {"uds": "s"}
    assert where({"port": "2"}) == {"port": 2}
    monkeypatch.setenv("POUNCE_UDS", "")
    monkeypatch.setenv("POUNCE_BIND", "b:2")
    assert refused().hint.endswith("(uds: POUNCE_UDS, bind: POUNCE_BIND)")


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ('port = 1\nbind = ["a:1"]', ("port", "bind")),
        ('host = "h"\nbind = ["a:1"]', ("host", "bind")),
        ('uds = "s"\nport = 1', ("uds", "port")),
        ('uds = "s"\nbind = ["a:1"]', ("uds", "bind")),
    ],
)
def test_one_place_says_once_where_to_listen(write, text, pair):
    write(text)
    one, other = pair
    error = refused()
    assert error.message == f"{one} and {other} exclude each other"
    assert error.hint.endswith(f"({one}: pounce.toml: {one}, {other}: pounce.toml: {other})")


def test_setting_of_a_plugin_is_given_once_on_a_line():
    error = refused(Given(settings={"h2.reset_burst": "3"}, tables=("h2.reset_burst=3",)))
    assert "--h2-reset-burst is given more than once" in str(error)


def test_secret_is_in_no_error(monkeypatch):
    monkeypatch.setenv("POUNCE_SSL_KEYFILE_PASSWORD", "hunter2")
    monkeypatch.setenv("POUNCE_SSL_KEYFILE_PASSWORD_FILE", "f")
    error = refused()
    assert "hunter2" not in f"{error.message} {error.hint}"


# The application

def test_application_is_named_by_the_nearest_place(write, monkeypatch):
    write('app = "file:app"\nport = 1\n')
    assert app_of(Given(), find(Given())) == "file:app"
    monkeypatch.setenv("POUNCE_APP", "environment:app")
    assert app_of(Given(), find(Given())) == "environment:app"
    line = Given(apps=("line:app",))
    assert app_of(line, find(line)) == "line:app"
    assert config_of(Given()).port == 1


def test_application_has_to_be_named_somewhere():
    with pytest.raises(ConfigError, match="no application is given"):
        app_of(Given(), find(Given()))


def test_application_is_named_by_a_text(write):
    write("app = 3")
    with pytest.raises(ConfigError, match=r"pounce.toml: app must name the application as module:attribute \(got 3\)"):
        app_of(Given(), find(Given()))


# Several files, and profiles


def test_later_file_counts_above_an_earlier_one(write, monkeypatch):
    write('port = 1\nbacklog = 1\n[h2]\nreset_burst = 1\n', "a.toml")
    write('port = 2\n[h2]\nreset_rate = 2\n', "b.toml")
    for given in (Given(config=("a.toml", "b.toml")), Given()):
        monkeypatch.setenv("POUNCE_CONFIG", "a.toml:b.toml")
        got = config_of(given)
        assert (got.port, got.backlog, dict(got.plugin_settings["h2"])) == (2, 1, {"reset_burst": 1, "reset_rate": 2.0})
    assert settings_of(Given(config=("a.toml", "b.toml")))["port"].origin == "b.toml: port"


PROFILES = """
port = 1
backlog = 1
app = "base:app"
[profiles.prod]
port = 2
app = "prod:app"
[profiles.prod.h2]
reset_burst = 3
[profiles.unix]
uds = "s"
"""


@pytest.mark.parametrize("place", PLACES)
def test_profile_counts_above_the_rest_of_its_file(tmp_path, place, monkeypatch):
    in_a_table = "[tool.pounce]" + PROFILES.replace("[profiles", "[tool.pounce.profiles")
    text = PROFILES if place == "pounce.toml" else in_a_table
    (tmp_path / place).write_text(text)
    assert config_of(Given()).port == 1
    given = Given(profile="prod")
    got = config_of(given)
    assert (got.port, got.backlog, got.plugin_settings["h2"]["reset_burst"]) == (2, 1, 3)
    assert app_of(given, find(given)) == "prod:app"
    prefix = "tool.pounce." if place == "pyproject.toml" else ""
    assert settings_of(given)["port"].origin == f"{place}: {prefix}profiles.prod.port"
    monkeypatch.setenv("POUNCE_PROFILE", "unix")
    assert (config_of(Given()).uds, config_of(given).port) == ("s", 2)


def test_profile_may_be_in_one_of_several_files(write):
    write("port = 1\n[profiles.prod]\nport = 2\n", "a.toml")
    write("backlog = 3\n", "b.toml")
    got = config_of(Given(config=("a.toml", "b.toml"), profile="prod"))
    assert (got.port, got.backlog) == (2, 3)


@pytest.mark.parametrize(
    ("text", "hint"),
    [("[profiles.prod]", "Did you mean prod?"), ("[profiles.x]", "There are x."), ("", "The configuration file has")],
)
def test_profile_that_is_not_there_is_an_error(write, text, hint):
    write(text)
    error = refused(Given(profile="prd"))
    assert error.message == "there is no profile 'prd'"
    assert error.hint.startswith(hint)


def test_profiles_are_tables(write):
    write("profiles = 3")
    assert refused().message == "pounce.toml: profiles must be a table of tables (got 3)"


def test_mistake_in_a_profile_says_where_it_stands(write):
    write("[profiles.prod]\nprot = 1")
    assert refused(Given(profile="prod")).message == "pounce.toml: profiles.prod.prot is not a setting"


def test_table_of_the_banner_is_read(write):
    write('[display]\nname = "Shop"\nsignage = "minimal"\nlines = ["a"]\n')
    got = config_of(Given())
    assert (got.app_name, got.signage, got.app_lines) == ("Shop", "minimal", ("a",))
    write('[display]\nnam = "Shop"')
    assert refused().message == "pounce.toml: display.nam is not a setting"


# Files of variables


@pytest.fixture
def forget(monkeypatch):
    """Whatever a test sets in the environment is gone after it."""
    for name in ("POUNCE_PORT", "POUNCE_BACKLOG", "OF_THE_APPLICATION", "SET"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)


def test_file_of_variables_sets_what_is_not_set(write, monkeypatch, forget):
    write('export POUNCE_BACKLOG=3\nPOUNCE_PORT=1\nexport OF_THE_APPLICATION="a b" # why\nSET=no\n', ".env")
    write("POUNCE_PORT=2\n", "local.env")
    monkeypatch.setenv("SET", "yes")
    found = settings_of(Given(env_files=(".env", "local.env")))
    assert found == {"port": (2, "POUNCE_PORT"), "backlog": (3, "POUNCE_BACKLOG")}
    assert (os.environ["OF_THE_APPLICATION"], os.environ["SET"]) == ("a b", "yes")


def test_file_of_variables_can_be_named_everywhere(write, monkeypatch, forget):
    write("POUNCE_PORT=1\n", "a.env")
    write("POUNCE_BACKLOG=2\n", "b.env")
    write('env_file = "b.env"')
    monkeypatch.setenv("POUNCE_ENV_FILE", "a.env")
    got = config_of(Given())
    assert (got.port, got.backlog) == (1, 2)


def test_mark_of_an_editor_is_no_part_of_the_first_variable(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    (tmp_path / ".env").write_text("POUNCE_PORT=81\n", encoding="utf-8-sig")
    assert config_of(Given(env_files=(".env",))).port == 81


@pytest.mark.parametrize("text", ["A=\0", "'A=B'=1"])
def test_variable_that_no_system_takes_is_an_error(tmp_path, text):
    (tmp_path / ".env").write_text(text)
    assert "in a file of variables cannot be one" in refused(Given(env_files=(".env",))).message


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("import os\n", 1),
        ("# why\n\n\n  from x import y\n", 4),
        ("POUNCE_PORT=1\nSECRET\n", 2),
        ("export SECRET\n", 1),
        ('A=b\nSECRET="not closed\n', 2),
        ("=SECRET\n", 1),
        ("A='SECRET'\r\n\r\nB='SECRET' more\r\n", 3),
        ("[tool]\n", 1),
    ],
)
@pytest.mark.parametrize("origin", ["--env-file", "POUNCE_ENV_FILE", "pounce.toml: env_file"])
def test_line_that_sets_no_variable_is_refused_with_its_place_and_nothing_is_set(
    write, tmp_path, monkeypatch, capsys, caplog, forget, origin, text, line
):
    (tmp_path / "a.env").write_bytes(b"SET=1\n")
    (tmp_path / "b.env").write_bytes(text.encode())
    names = ("a.env", "b.env")
    if origin == "POUNCE_ENV_FILE":
        monkeypatch.setenv(origin, os.pathsep.join(names))
    elif origin != "--env-file":
        write('env_file = ["a.env", "b.env"]')
    error = refused(Given(env_files=names if origin == "--env-file" else ()))
    assert error.message == f"{origin}: line {line} of b.env does not set a variable"
    assert "NAME=value" in error.hint
    assert "SET" not in os.environ
    assert (capsys.readouterr().err, caplog.records) == ("", [])


def test_file_of_settings_that_is_named_as_one_of_variables_is_told_its_flag(write):
    write("[h2]\nmax_frame_size = 3\n", "more.toml")
    assert "--config" in refused(Given(env_files=("more.toml",))).hint


@pytest.mark.parametrize("text", ["", "\n \n", "# only a comment", "A=\n", "A = # nothing\n", "A='two\nlines'\n"])
def test_file_of_variables_may_have_comments_and_values_of_several_lines(write, monkeypatch, text):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    write(text, ".env")
    assert settings_of(Given(env_files=(".env",))) == {}


def test_file_of_variables_that_is_not_there_is_an_error(write):
    assert "--env-file: the file of variables no.env cannot be read" in refused(Given(env_files=("no.env",))).message
    write("env_file = 3")
    assert refused().message.startswith("pounce.toml: env_file must be the name of a file")


def test_what_reads_files_of_variables_is_named_where_it_is_missing(write, monkeypatch):
    write("", ".env")
    monkeypatch.setitem(sys.modules, "dotenv", None)
    assert refused(Given(env_files=(".env",))).hint == "pip install 'pounce-cli[env-file]'"


# Variables of platforms


def test_variables_of_platforms_are_settings_where_ours_are_not_set(write, monkeypatch):
    write('bind = ["a:1"]\nworkers = 9')
    monkeypatch.setenv("PORT", "3000")
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    assert settings_of(Given()) == {"port": (3000, "PORT"), "workers": (4, "WEB_CONCURRENCY")}
    monkeypatch.setenv("POUNCE_WORKERS", "2")
    monkeypatch.setenv("POUNCE_BIND", "b:2")
    assert settings_of(Given()) == {"bind": (("b:2",), "POUNCE_BIND"), "workers": (2, "POUNCE_WORKERS")}


def test_variable_of_a_platform_that_is_wrong_or_empty(monkeypatch):
    monkeypatch.setenv("PORT", "")
    assert settings_of(Given()) == {}
    monkeypatch.setenv("PORT", "many")
    assert refused().message.startswith("PORT must be an integer")


SERVICE_LINKS = {
    "POUNCE_SERVICE_HOST": "10.0.0.1", "POUNCE_SERVICE_PORT": "80", "POUNCE_SERVICE_PORT_HTTP": "80",
    "POUNCE_PORT": "tcp://10.0.0.1:80", "POUNCE_PORT_80_TCP": "tcp://10.0.0.1:80", "POUNCE_PORT_80_TCP_PROTO": "tcp",
    "POUNCE_PORT_80_TCP_PORT": "80", "POUNCE_PORT_80_TCP_ADDR": "10.0.0.1", "POUNCE_WEB_SERVICE_HOST": "10.0.0.2",
    "POUNCE_WEB_PORT": "tcp://10.0.0.2:80", "POUNCE_WEB_PORT_443_UDP": "udp://10.0.0.2:443",
}  # fmt: skip
"""What Kubernetes sets beside the Services `pounce` and `pounce-web`."""


def test_service_links_of_kubernetes_are_no_settings(monkeypatch):
    for name, text in SERVICE_LINKS.items():
        monkeypatch.setenv(name, text)
    found = find(Given())
    assert found.settings == {}
    assert set(found.service_links) == set(SERVICE_LINKS)
    monkeypatch.setenv("POUNCE_PORT", "8080")
    assert settings_of(Given()) == {"port": (8080, "POUNCE_PORT")}


@pytest.mark.parametrize("name", ["POUNCE_SERVICE_PORT", "POUNCE_PORT_80_TCP", "POUNCE_WEB_PORT"])
def test_variable_that_looks_like_a_service_link_alone_is_an_error(monkeypatch, name):
    monkeypatch.setenv(name, "tcp://10.0.0.1:80")
    assert refused().message == f"{name} is not a setting"


def test_server_in_kubernetes_says_in_one_line_what_it_ignores(pounce):
    process = pounce.start("serve", "main:app", "--port", "0", **SERVICE_LINKS)
    line = process.line("are no settings, and are ignored: ").string
    assert all(name in line for name in SERVICE_LINKS)


# Secrets

SECRETS = [item for item in (*describe(), *plugin_options(lambda name: name in ("h2", "h3"))) if item.secret]


@pytest.mark.parametrize("item", SECRETS, ids=lambda item: item.name)
def test_every_secret_can_be_in_a_file(item):
    names = {each.name for each in (*describe(), *plugin_options(lambda name: name in ("h2", "h3")))}
    assert f"{item.name}_file" in names


# The command


def test_server_takes_its_settings_from_everywhere(pounce, tmp_path):
    (tmp_path / "pounce.toml").write_text('root_path = "/from-file"\nport = 1\n[h2]\nreset_burst = 3\n')
    process = pounce.start("serve", "main:app", "--port", "0", POUNCE_SERVER_HEADER="from-environment")
    url = process.started()["urls"][0]
    answer = httpx.get(url)
    assert (answer.text, answer.headers["server"]) == ("/from-file|http", "from-environment")
    assert process.stop() == 0


@pytest.mark.parametrize(("place", "text"), [("file", 'log_format = "text"'), ("environment", "")])
def test_error_is_told_in_the_format_of_file_or_environment(pounce, tmp_path, place, text):
    (tmp_path / "pounce.toml").write_text(f"{text}\nport = 70000")
    environment = {"POUNCE_LOG_FORMAT": "text"} if place == "environment" else {}
    code, stderr = pounce.fails("serve", "main:app", **environment)
    assert (code, stderr.startswith("Error: pounce.toml: port must be")) == (2, True)


def test_config_show_is_toml_with_every_setting_and_its_origin(write, monkeypatch, capsys):
    write('backlog = 1\nssl_keyfile_password = "hunter2"\n[h2]\nstream_window = "2MiB"\n')
    monkeypatch.setenv("POUNCE_BIND", "a:1,b:2")
    assert main(["config", "show", "--log-level", "debug"]) == 0
    shown = capsys.readouterr().out
    assert "backlog = 1  # pounce.toml: backlog\n" in shown
    assert 'bind = ["a:1", "b:2"]  # POUNCE_BIND\n' in shown
    assert 'log_level = "debug"  # --log-level\n' in shown
    assert "stream_window = 2097152  # pounce.toml: h2.stream_window\n" in shown
    assert "hunter2" not in shown
    read = tomllib.loads(shown)
    assert read["uds_permissions"] == 0o660
    assert read["h2"]["max_concurrent_streams"] == 100
    for item in (*(item for item in describe() if item.flag), *plugin_options(lambda name: True)):
        assert f"{item.field} = " in shown or f"# {item.field} is not set" in shown


@pytest.mark.parametrize("words", [["--access-log-file", "-"], ["--access-log-file=-"]])
def test_hyphen_is_a_value(words, capsys):
    # Where pydantic is imported, the parsing library checks with it what is given, and what is not.
    importlib.import_module("pydantic")
    assert main(["config", "show", *words]) == 0
    assert 'access_log_file = "-"' in capsys.readouterr().out


def test_config_show_writes_tables_in_one_line(write, capsys):
    given = {"loggers": {"pounce": {"level": "ERROR", "handlers": [{"a b": True}]}}}
    logger = '[log_config.loggers.pounce]\nlevel = "ERROR"\nhandlers = [{"a b" = true}]\n'
    write(f'[error_pages]\n404 = "404.html"\n{logger}')
    assert main(["config", "show"]) == 0
    read = tomllib.loads(capsys.readouterr().out)
    assert read["log_config"] == given
    assert read["error_pages"] == {"404": "404.html"}


def test_configuration_of_logging_is_a_table_or_the_name_of_a_file(write):
    write('[log_config.root]\nlevel = "ERROR"\n')
    assert config_of(Given()).log_config == {"root": {"level": "ERROR"}}
    write('log_config = "log.yaml"\n')
    assert config_of(Given()).log_config == "log.yaml"
    assert config_of(Given(settings={"log_config": "other.toml"})).log_config == "other.toml"


def test_config_show_refuses_what_the_server_would(monkeypatch, capsys):
    monkeypatch.setenv("POUNCE_UDS", "")
    assert main(["config", "show"]) == 2
    assert "uds must not be empty" in capsys.readouterr().err
