"""ServerConfig: every wrong value is one clear error; text is read with its units."""

import dataclasses
import inspect
import logging
import math
import os
import ssl
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
from pounce.uvicorn_arguments import in_our_words

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


MEANT = {("server_header", "True"), ("reload_dirs", "'one'"), ("ssl_cert_reqs", "1"), ("log_level", "1")}
"""What uvicorn has a meaning for."""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (item.name, value)
        for item in describe()
        if item.kind in WRONG_TYPES
        for value in [*WRONG_TYPES[item.kind], *([] if item.nullable or item.kind is bool else [None])]
        if not (item.of_anything and isinstance(value, list))
        if not (value is None and in_our_words(item.name, None) is not None)
        if (item.name, repr(value)) not in MEANT
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


UVICORN: dict[str, list[tuple[Any, dict[str, Any] | str]]] = {
    "host": [("0.0.0.0", {"host": "0.0.0.0"}), (None, {"host": "0.0.0.0"})],
    "port": [(9000, {"port": 9000})],
    "uds": [("/run/a", {"uds": "/run/a"}), (Path("/run/a"), {"uds": "/run/a"}), (None, {"uds": None})],
    "fd": [(3, {"bind": ("fd://3",)}), (None, {"bind": ()})],
    "loop": [("asyncio", {"loop": "asyncio"}), ("auto", {"loop": "auto"}), (object(), "module:factory")],
    "http": [("h11", {"http_parser": "h11"}), ("auto", {"http_parser": "auto"}), (object(), "leave it out")],
    "http2": [(False, {"http2_enabled": False})],
    "ws": [("auto", {"disable_plugin": ()}), ("wsproto", {}), ("none", {"disable_plugin": ("ws",)}),
           (object(), "leave it out")],
    "ws_max_size": [(1000, {"websocket_max_message_size": 1000})],
    "ws_max_queue": [(32, {}), (16, "Bytes count")],
    "ws_ping_interval": [(5, {"websocket_ping_interval": 5.0}), (None, {"websocket_ping_interval": 0.0})],
    "ws_ping_timeout": [(5, {"websocket_ping_timeout": 5.0}), (None, {"websocket_ping_timeout": 0.0})],
    "ws_per_message_deflate": [(False, {"websocket_compression": False})],
    "lifespan": [("off", {"lifespan": "off"})],
    "interface": [("asgi3", {"interface": "asgi"}), ("wsgi", {"interface": "wsgi"}), ("asgi2", "ASGI 3")],
    "reload": [(True, {"reload": True})],
    "reload_dirs": [("src", {"reload_dirs": ("src",)}), ([Path("src")], {"reload_dirs": ("src",)}),
                    (None, {"reload_dirs": ()})],
    "reload_includes": [("*.sql", {"reload_include": ("*.sql",)}), (None, {"reload_include": ()})],
    "reload_excludes": [(["data"], {"reload_exclude": ("data",)}), ("data", {"reload_exclude": ("data",)})],
    "reload_delay": [(1, {"reload_delay": 1.0})],
    "workers": [(4, {"workers": 4}), (None, {"workers": 1})],
    "env_file": [(None, {}), (".env", "pounce.run()")],
    "log_config": [({"version": 1}, {"log_config": {"version": 1}}), (None, {"log_config": None})],
    "log_level": [(20, {"log_level": "info"}), (logging.ERROR, {"log_level": "error"}),
                  ("trace", {"log_level": "debug"}), ("Warning", {"log_level": "warning"}),
                  (None, {"log_level": "info"})],
    "access_log": [(False, {"access_log": False})],
    "proxy_headers": [(False, {"proxy_headers": False})],
    "server_header": [(False, {"server_header": ""}), (True, {"server_header": "pounce"})],
    "date_header": [(False, {"date_header": False})],
    "forwarded_allow_ips": [("*", {"trusted_hosts": ("*",)}), ("10.0.0.1, ::1", {"trusted_hosts": ("10.0.0.1", "::1")}),
                            (["10.0.0.1"], {"trusted_hosts": ("10.0.0.1",)}), (None, {"trusted_hosts": ()})],
    "root_path": [("/api", {"root_path": "/api"})],
    "limit_concurrency": [(10, {"limit_concurrency": 10}), (None, {"limit_concurrency": 0})],
    "backlog": [(100, {"backlog": 100})],
    "limit_max_requests": [(100, {"max_requests": 100}), (None, {"max_requests": 0})],
    "limit_max_requests_jitter": [(0, {"recycle_jitter": option("recycle_jitter").default}), (5, "recycle_jitter")],
    "timeout_keep_alive": [(75, {"keep_alive_timeout": 75.0}), (0, {"max_requests_per_connection": 1})],
    "timeout_graceful_shutdown": [(5, {"shutdown_timeout": 5.0}), (None, {"shutdown_timeout": 10.0})],
    "timeout_worker_healthcheck": [(9, {"worker_timeout": 9.0})],
    "ssl_keyfile": [(Path("k"), {"ssl_keyfile": "k"}), (None, {"ssl_keyfile": None})],
    "ssl_certfile": [(Path("c"), {"ssl_certfile": "c"}), (None, {"ssl_certfile": None})],
    "ssl_keyfile_password": [("secret", {"ssl_keyfile_password": "secret"})],
    "ssl_version": [(ssl.PROTOCOL_TLS_SERVER, {"ssl_minimum_version": "1.2"}), (5, "ssl_minimum_version")],
    "ssl_cert_reqs": [(ssl.CERT_REQUIRED, {"ssl_cert_reqs": "required"}), (1, {"ssl_cert_reqs": "optional"})],
    "ssl_ca_certs": [(Path("a"), {"ssl_ca_certs": "a"}), (None, {"ssl_ca_certs": None})],
    "ssl_ciphers": [("ECDHE", {"ssl_ciphers": "ECDHE"})],
    "ssl_context_factory": [(None, {}), (lambda config, make: make(), "ssl_certfile")],
    "headers": [([("X-A", "1")], {"headers": ("X-A:1",)}), (None, {"headers": ()})],
    "use_colors": [(None, {}), (False, "pounce.run()")],
    "app_dir": [("src", {"app_dir": "src"}), (None, {"app_dir": "."})],
    "factory": [(True, {"factory": True})],
    "h11_max_incomplete_event_size": [(8192, {"h11_max_incomplete_event_size": 8192}), (None, {})],
    "reset_contextvars": [(True, {}), (False, {})],
}  # fmt: skip
"""Usual values of each argument of `uvicorn.run()`, with the settings that they are, or a part of the hint."""
TLS = {"ssl_certfile": "c", "ssl_keyfile": "k"}
BESIDE: dict[str, dict[str, Any]] = {
    "ssl_keyfile": {"ssl_certfile": "c"},
    "ssl_certfile": {"ssl_keyfile": "k"},
    "ssl_keyfile_password": TLS,
    "ssl_cert_reqs": TLS | {"ssl_ca_certs": "a"},
    "ssl_ca_certs": TLS | {"ssl_cert_reqs": 2},
    "ssl_ciphers": TLS,
}
"""What has to be there too."""


@pytest.mark.parametrize(
    ("name", "value", "meaning"), [(name, *each) for name, values in UVICORN.items() for each in values]
)
def test_argument_of_uvicorn_run_has_its_meaning_or_a_hint(
    name: str, value: Any, meaning: dict[str, Any] | str
) -> None:
    beside = {other: each for other, each in BESIDE.get(name, {}).items() if value is not None}
    if isinstance(meaning, str):
        if name in ("loop", "http") or not isinstance(value, str):
            assert name in refused(**{name: value})
        with pytest.raises(ConfigError) as caught:
            ServerConfig.of({name: value})
        assert meaning in str(caught.value.hint)
    else:
        config = ServerConfig.of({**beside, name: value})
        assert {setting: getattr(config, setting) for setting in meaning} == meaning


def test_table_has_all_arguments_of_uvicorn_run() -> None:
    uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    assert set(inspect.signature(uvicorn.run).parameters) - {"app"} == set(UVICORN)


def test_defaults_of_uvicorn_run_are_taken_all_together() -> None:
    uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    parameters = inspect.signature(uvicorn.run).parameters.values()
    config = ServerConfig.of({each.name: each.default for each in parameters if each.name != "app"})
    assert (config.host, config.port, config.workers, config.trusted_hosts) == ("127.0.0.1", 8000, 1, ())


def test_error_names_the_argument_as_it_was_given() -> None:
    assert refused(forwarded_allow_ips=5).startswith("forwarded_allow_ips must be a list of strings")
    assert refused(limit_max_requests=-1).startswith("limit_max_requests must be")
    assert refused(reload_includes=5).startswith("reload_includes must be")


def test_argument_of_uvicorn_beside_the_setting_that_it_is_is_refused() -> None:
    assert "max_requests and limit_max_requests are two spellings" in refused(max_requests=1, limit_max_requests=1)
    assert "bind and fd are two spellings" in refused(bind=["a:1"], fd=3)


def test_run_sets_the_variables_of_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("dotenv", reason="python-dotenv is not installed")
    monkeypatch.setattr(os, "environ", os.environ | {"SET": "before"})
    monkeypatch.setattr("pounce.server.Server.run", lambda server: None)
    (tmp_path / ".env").write_text("SET=by the file\nNOT_SET=by the file\n")
    pounce.run("main:app", env_file=tmp_path / ".env", log_level="error")
    assert (os.environ["SET"], os.environ["NOT_SET"]) == ("before", "by the file")
    with pytest.raises(ConfigError, match=r"^env_file: the file of variables .* cannot be read"):
        pounce.run("main:app", env_file=tmp_path / "missing")


@pytest.mark.parametrize(
    ("on", "name", "other"), [(True, "FORCE_COLOR", "NO_COLOR"), (False, "NO_COLOR", "FORCE_COLOR")]
)
def test_run_says_whether_there_are_colors(monkeypatch: pytest.MonkeyPatch, on: bool, name: str, other: str) -> None:
    monkeypatch.setattr(os, "environ", os.environ | {other: "1"})
    monkeypatch.setattr("pounce.server.Server.run", lambda server: None)
    pounce.run("main:app", use_colors=on, log_level="error")
    assert os.environ.get(name) == "1"
    assert other not in os.environ


@pytest.mark.parametrize(
    "origin", ["https://example.org", "HTTP://localhost:5173", "http://[::1]:80", "chrome-extension://abc", "null"]
)
def test_websocket_origins_are_what_browsers_send(origin: str) -> None:
    assert ServerConfig(websocket_origins=(origin,)).websocket_origins == (origin,)


@pytest.mark.parametrize(
    ("origin", "hint"),
    [
        ("example.org", "For example https://example.org"),
        ("//example.org", "For example"),
        ("https://example.org/", "without a path"),
        ("https://", "For example"),
        ("https://*.example.org", "For example"),
        ("*", "Leave it out to allow all."),
    ],
)
def test_websocket_origin_that_no_browser_sends_is_refused(origin: str, hint: str) -> None:
    with pytest.raises(ConfigError, match="websocket_origins must be scheme://host") as caught:
        ServerConfig(websocket_origins=("https://example.org", origin))
    assert hint in (caught.value.hint or "")


async def never_called(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


@pytest.mark.parametrize(
    "make",
    [
        lambda **settings: ServerConfig.of(settings),
        lambda **settings: pounce.run("main:app", **settings),
        lambda **settings: TestServer(never_called, **settings),
    ],
    ids=["of", "run", "TestServer"],
)
def test_unknown_setting_is_refused_with_a_suggestion(make: Any) -> None:
    with pytest.raises(ConfigError, match="prot is not a setting") as caught:
        make(prot=1)
    assert caught.value.hint == "Did you mean port?"


def test_call_with_an_unknown_setting_is_refused_as_any_call() -> None:
    unknown: dict[str, Any] = {"prot": 1}
    with pytest.raises(TypeError, match="prot"):
        ServerConfig(**unknown)


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
