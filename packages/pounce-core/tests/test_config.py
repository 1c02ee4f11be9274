"""ServerConfig: every wrong value is one clear error; text is read with its units."""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest

import pounce
from pounce import ConfigError, ServerConfig
from pounce.admission.rate_limit import RateLimits
from pounce.config import describe
from pounce.options import Option, options_of, parse_option
from pounce.options import option as described
from pounce.spelling import did_you_mean
from pounce.supervisor.modes import check_workers
from pounce.testing import TestServer

OPTIONS = {item.name: item for item in describe()}


def option(name: str) -> Option:
    return OPTIONS[name]


def refused(**settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        ServerConfig.of(settings)
    return str(caught.value)


def test_defaults_are_valid() -> None:
    config = ServerConfig()
    assert (config.host, config.port, config.max_request_size) == ("127.0.0.1", 8000, 1_048_576)


def test_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ServerConfig().port = 1  # type: ignore[misc]


def test_every_setting_is_described() -> None:
    assert [item.name for item in describe()] == [field.name for field in dataclasses.fields(ServerConfig)]
    for item in describe():
        assert item.help.endswith("."), item.name
        assert item.group, item.name


WRONG_TYPES: dict[type, list[Any]] = {
    bool: ["yes", 1, 0, None, []],
    int: ["1", 1.0, True, [], math.nan],
    float: ["1", True, [], math.nan, math.inf, -math.inf],
    str: [1, b"bytes", True, []],
    tuple: ["one", 1, [1], [b"x"], True],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (item.name, value)
        for item in describe()
        if item.kind in WRONG_TYPES
        for value in [*WRONG_TYPES[item.kind], *([] if item.nullable or item.kind is bool else [None])]
        if not (item.of_anything and isinstance(value, list))
    ],
)
def test_value_of_the_wrong_type_is_refused_by_name(name: str, value: Any) -> None:
    message = refused(**{name: value})
    assert message.startswith(f"{name} must be {option(name).allowed}")
    assert (f"(got {value!r})" in message) is not option(name).secret


@pytest.mark.parametrize(
    "item", [item for item in describe() if item.ge is not None or item.gt is not None], ids=lambda i: i.name
)
def test_number_below_its_range_is_refused(item: Option) -> None:
    bound = item.ge if item.ge is not None else item.gt
    assert bound is not None
    value = item.kind(bound - 1 if item.ge is not None else bound)
    message = refused(**{item.name: value})
    assert item.name in message
    assert repr(value) in message


@pytest.mark.parametrize("item", [item for item in describe() if item.le is not None], ids=lambda i: i.name)
def test_number_above_its_range_is_refused(item: Option) -> None:
    assert item.le is not None
    value = item.kind(item.le + 1)
    assert repr(value) in refused(**{item.name: value})


@pytest.mark.parametrize("item", [item for item in describe() if item.choices], ids=lambda i: i.name)
def test_choice_that_does_not_exist_is_refused_with_those_that_do(item: Option) -> None:
    message = refused(**{item.name: "nonsense"})
    for choice in item.choices:
        assert choice in message


def test_choices_are_case_insensitive() -> None:
    assert ServerConfig(log_level="INFO").log_level == "info"  # type: ignore[arg-type]


def test_integer_is_taken_where_a_number_is_due() -> None:
    timeout = ServerConfig(header_timeout=3).header_timeout
    assert (timeout, type(timeout)) == (3.0, float)


def test_list_is_taken_where_a_tuple_is_due() -> None:
    assert ServerConfig.of({"bind": ["a:1", "b:2"]}).bind == ("a:1", "b:2")


OF_UVICORN = {
    "header": ("headers", ("X-A: 1",)),
    "forwarded_allow_ips": ("trusted_hosts", ("127.0.0.1",)),
    "timeout_keep_alive": ("keep_alive_timeout", 7.0),
    "timeout_graceful_shutdown": ("shutdown_timeout", 3.0),
    "http": ("http_parser", "h11"),
    "ws_max_size": ("websocket_max_message_size", 1000),
    "ws_ping_interval": ("websocket_ping_interval", 5.0),
    "ws_ping_timeout": ("websocket_ping_timeout", 6.0),
    "reload_includes": ("reload_include", ("*.sql",)),
    "reload_excludes": ("reload_exclude", ("*.tmp",)),
    "reload_dir": ("reload_dirs", ("src",)),
    "http3": ("http3_enabled", False),
    "http2": ("http2_enabled", False),
}


@pytest.mark.parametrize(("spelling", "name", "value"), [(also, *of) for also, of in OF_UVICORN.items()])
def test_setting_has_its_second_spelling_in_python_too(spelling: str, name: str, value: Any) -> None:
    assert getattr(ServerConfig.of({spelling: value}), name) == value


def test_second_spellings_of_settings_are_these() -> None:
    assert {also: item.name for item in describe() for also in item.also} == {
        also: name for also, (name, _) in OF_UVICORN.items()
    }


def test_two_spellings_of_one_setting_are_refused() -> None:
    with pytest.raises(ConfigError, match="timeout_keep_alive and keep_alive_timeout are two spellings of one setting"):
        ServerConfig.of({"timeout_keep_alive": 5, "keep_alive_timeout": 5})


def test_arguments_of_uvicorn_run_move_over(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[ServerConfig] = []
    monkeypatch.setattr("pounce.server.Server.run", lambda server: served.append(server._config))
    arguments = {"host": "0.0.0.0", "port": 9000, "log_level": "warning", "access_log": False, "root_path": "/api"}
    pounce.run("main:app", **arguments, timeout_keep_alive=75, timeout_graceful_shutdown=20, ws_max_size=1000)
    assert (served[0].keep_alive_timeout, served[0].shutdown_timeout) == (75.0, 20.0)
    assert (served[0].host, served[0].websocket_max_message_size) == ("0.0.0.0", 1000)


def test_unknown_setting_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="prot is not a setting") as caught:
        ServerConfig.of({"prot": 1})
    assert caught.value.hint == "Did you mean port?"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max-headers", "max_headers"),
        ("ACCESS_LOG", "access_log"),
        ("worker", "workers"),
        ("keepalive_timeuot", "keep_alive_timeout"),
        ("pod_file", "pid_file"),
        ("proxy_mode", None),
        ("log_file", None),
        ("uds_file", None),
        ("ssl_cert", None),
        ("root", None),
        ("frobnicate", None),
        ("p", None),
        ("", None),
    ],
)
def test_hint_by_spelling_is_for_slips_alone(name: str, meant: str | None) -> None:
    with pytest.raises(ConfigError, match="is not a setting") as caught:
        ServerConfig.of({name: 1})
    assert caught.value.hint == (meant and f"Did you mean {meant}?")


def test_hint_by_spelling_names_what_has_all_of_its_letters() -> None:
    assert did_you_mean("of", ("on", "off")) == "Did you mean off?"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"ssl_certfile": "c"}, "ssl_keyfile"),
        ({"ssl_keyfile": "k"}, "ssl_certfile"),
        ({"host": ""}, "host"),
        ({"uds": ""}, "uds"),
        ({"uds": "/s", "bind": ("a:1",)}, "bind"),
        ({"health_check_path": "healthz"}, "health_check_path"),
        ({"server_header": "a\r\nb: c"}, "server_header"),
        ({"server_header": "café"}, "server_header"),
        ({"root_path": "api"}, "root_path"),
        ({"root_path": "/api/"}, "root_path"),
        ({"access_log_filter": 3}, "access_log_filter"),
        ({"plugin_settings": 3}, "plugin_settings"),
        ({"plugin_settings": {"h2": 3}}, "plugin_settings"),
    ],
    ids=str,
)
def test_contradiction_is_refused_by_name(settings: dict[str, Any], named: str) -> None:
    assert named in refused(**settings)


def test_errors_end_the_process_with_their_own_status() -> None:
    with pytest.raises(ValueError, match="port") as caught:
        ServerConfig(port=-1)
    assert isinstance(caught.value, ConfigError)
    assert caught.value.exit_code == 2


def test_password_is_not_shown() -> None:
    assert "hunter2" not in repr(ServerConfig(ssl_keyfile_password="hunter2"))


def test_plugin_settings_cannot_be_changed_from_outside() -> None:
    table = {"size": 1}
    config = ServerConfig.of({"plugin_settings": {"h2": table}})
    table["size"] = 2
    assert config.plugin_settings["h2"]["size"] == 1


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("header_timeout", "30s", 30.0),
        ("header_timeout", "1.5", 1.5),
        ("header_timeout", "250ms", 0.25),
        ("header_timeout", "5m", 300.0),
        ("header_timeout", "2h", 7200.0),
        ("header_timeout", "1d", 86400.0),
        ("header_timeout", " 30 S ", 30.0),
        ("max_request_size", "16MiB", 16 * 1024**2),
        ("max_request_size", "16mb", 16_000_000),
        ("max_request_size", "1.5k", 1536),
        ("max_request_size", "2GiB", 2 * 1024**3),
        ("max_request_size", "2GB", 2_000_000_000),
        ("max_request_size", "100b", 100),
        ("max_request_size", "0", 0),
        ("uds_permissions", "660", 0o660),
        ("uds_permissions", "0o600", 0o600),
        ("port", "8080", 8080),
        ("access_log", "on", True),
        ("access_log", "No", False),
        ("access_log", " TRUE ", True),
        ("bind", "a:1, b:2", ("a:1", "b:2")),
        ("bind", "", ()),
        ("log_level", "DEBUG", "debug"),
        ("uds", "/run/s", "/run/s"),
    ],
)
def test_text_stands_for_a_value(name: str, text: str, value: Any) -> None:
    found = parse_option(option(name), text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("header_timeout", "30x"),
        ("header_timeout", "-1"),
        ("header_timeout", "nan"),
        ("header_timeout", "inf"),
        ("header_timeout", ""),
        ("header_timeout", "1e3"),
        ("header_timeout", "9" * 400),
        ("max_request_size", "16Q"),
        ("max_request_size", "-1"),
        ("max_request_size", "1 2"),
        ("max_request_size", "9" * 400),
        ("max_request_size", "0.4"),
        ("max_headers", "9" * 5000),
        ("uds_permissions", "888"),
        ("uds_permissions", "1777"),
        ("port", "80.0"),
        ("port", "0x50"),
        ("port", "65536"),
        ("port", "eighty"),
        ("port", "9" * 5000),
        ("access_log", "maybe"),
        ("access_log", ""),
        ("log_level", "loud"),
    ],
)
def test_text_that_stands_for_nothing_is_refused_by_name(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} must be"):
        parse_option(option(name), text)


def test_help_shows_what_is_allowed() -> None:
    assert option("port").allowed == "an integer from 0 to 65535"
    assert option("ipv6").allowed == "one of dual, only, off"
    assert option("uds").allowed == "a string or none"
    assert option("header_timeout").allowed == "a number of seconds above 0"


# Settings of plugins


@dataclasses.dataclass(frozen=True)
class Settings:
    size: int = described(1024, "How large.", unit="bytes", ge=1)
    level: Literal["low", "high"] = "low"
    plain: float = 1.0
    names: tuple[str, ...] = ()
    where: str | None = None
    either: int | str = 1
    numbers: tuple[int, ...] = ()
    many: int | str | None = None


def test_settings_of_a_plugin_are_described_under_its_name() -> None:
    options = {item.name: item for item in options_of(Settings, "demo")}
    assert {name: (item.kind, item.nullable, item.flag) for name, item in options.items()} == {
        "demo.size": (int, False, True),
        "demo.level": (str, False, True),
        "demo.plain": (float, False, True),
        "demo.names": (tuple, False, True),
        "demo.where": (str, True, True),
        "demo.either": (object, False, False),
        "demo.numbers": (object, False, False),
        "demo.many": (object, True, False),
    }
    assert (options["demo.size"].field, options["demo.size"].help) == ("size", "How large.")
    assert options["demo.level"].choices == ("low", "high")


def test_annotations_that_are_strings_are_understood() -> None:
    cls = dataclasses.make_dataclass("Postponed", [("size", "int", 1), ("name", "str | None", None)])
    assert [(item.kind, item.nullable) for item in options_of(cls)] == [(int, False), (str, True)]


def test_bounds_are_said_in_full() -> None:
    cls = dataclasses.make_dataclass("Wide", [("size", int, described(1, "", unit="bytes", ge=1, le=2**31 - 1))])
    assert options_of(cls)[0].allowed == "an integer of bytes from 1 to 2147483647"


def test_configuration_goes_through_json() -> None:
    config = ServerConfig(port=1, trusted_hosts=("*",), static_files={"/s": "x"}, reload_timeout=3, log_config={"a": 1})
    again = ServerConfig.from_json(config.to_json())
    assert again == config
    assert again.trusted_hosts_wildcard


def test_functions_do_not_go_through_json() -> None:
    config = ServerConfig(access_log_filter=print, middleware=(print,), port=1)
    assert {"access_log_filter", "middleware"} & config.to_iic_dict().keys() == set()
    assert ServerConfig.from_json(config.to_json()) == ServerConfig(port=1)


def test_settings_of_another_version_are_passed_over_where_it_may_be_one() -> None:
    assert ServerConfig.from_iic_dict({"port": 1, "of_tomorrow": 2}).port == 1
    with pytest.raises(ConfigError, match="of_tomorrow"):
        ServerConfig.from_mapping({"port": 1, "of_tomorrow": 2})


@pytest.mark.parametrize("text", ["{", "[]", "3"])
def test_what_is_no_configuration_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError):
        ServerConfig.from_json(text)


def test_workers_are_counted() -> None:
    assert ServerConfig(workers=3).resolve_workers() == 3
    assert ServerConfig(workers=0).resolve_workers() >= 1


def test_information_is_for_loopback() -> None:
    assert "introspection_bind must be loopback" in refused(introspection_bind="0.0.0.0")


def test_whether_all_are_trusted_follows_from_who_is() -> None:
    assert not ServerConfig(trusted_hosts_wildcard=True).trusted_hosts_wildcard


# Secrets in files


SECRETS = {item.name for item in describe() if item.secret} - {"ssl_keyfile_password"}


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_secret_is_the_first_line_of_its_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("redis://hunter2\r\nmore")
    config = ServerConfig.of({f"{name}_file": str(path)})
    assert config.secret(name) == "redis://hunter2"
    assert ServerConfig().secret(name) is None
    assert f"{name} and {name}_file exclude each other" in refused(**{name: "x", f"{name}_file": "y"})
    path.write_text("\n")
    with pytest.raises(ConfigError, match="has nothing in its first line"):
        config.secret(name)
    path.unlink()
    with pytest.raises(ConfigError, match=f"{name}_file .* cannot be read: No such file"):
        config.secret(name)


@pytest.mark.parametrize("data", [b"a word", b"a word\r\n", b"\xef\xbb\xbfa word\r\nmore"])
def test_secret_is_the_same_whatever_editor_wrote_it(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(data)
    assert ServerConfig(introspection_token_file=str(tmp_path / "token")).secret("introspection_token") == "a word"


def test_token_in_a_file_opens_what_tells_of_the_server(tmp_path: Path) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("never asked")

    (tmp_path / "token").write_text("hunter2")
    settings: dict[str, Any] = {"introspection_enabled": True, "introspection_token_file": str(tmp_path / "token")}
    with TestServer(app, lifespan="off", **settings) as server:
        # Whoever speaks for somebody else is not on this machine.
        relayed = {"x-forwarded-for": "192.0.2.1"}
        url = f"{server.url}/_pounce/info"
        assert httpx.get(url, headers=relayed).status_code == 403
        assert httpx.get(url, headers=relayed | {"authorization": "Bearer hunter2"}).status_code == 200
        assert "hunter2" not in httpx.get(url).text


def test_store_in_a_file_is_one_that_workers_share(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("nonsense")
    config = ServerConfig(
        rate_limit_enabled=True, workers=2, worker_mode="process", rate_limit_store_file=str(tmp_path / "store")
    )
    check_workers(config)
    with pytest.raises(ConfigError, match="rate_limit_store must be a URL"):
        RateLimits(config)
