"""Settings that do nothing are said at the start, all in one warning, and none that does something."""

import asyncio
import logging
from typing import Any

import pytest

from pounce import ConfigError, Server, ServerConfig
from pounce.config import OPTIONS
from pounce.idle_settings import idle_settings
from pounce.observe.logs import Logs
from pounce.testing import TestServer


def wanted(method: str, path: str, status: int) -> bool:
    return True


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, ""),
        ({"ssl_ciphers": "ECDHE"}, "ssl_ciphers (without ssl_certfile)"),
        ({"ssl_ciphers": "ECDHE", "ssl_self_signed": True}, ""),
        (
            {"ssl_minimum_version": "1.3", "ssl_keylog": "keys", "ssl_session_tickets": 0, "tls_handshake_timeout": 3},
            "tls_handshake_timeout, ssl_minimum_version, ssl_session_tickets, ssl_keylog (without ssl_certfile)",
        ),
        ({"http3_idle_timeout": 3, "http3_max_connections": 9}, "(without http3_enabled)"),
        ({"http3_idle_timeout": 3, "http3_enabled": True, "ssl_self_signed": True}, ""),
        ({"http3_alt_svc": "clear"}, ""),
        ({"proxy_protocol_from": ("10.0.0.0/8",)}, "proxy_protocol_from (without proxy_protocol)"),
        ({"proxy_protocol_from": ("10.0.0.0/8",), "proxy_protocol": True}, ""),
        ({"proxy_protocol_from": ("10.0.0.0/8",), "bind": ("127.0.0.1:0?proxy_protocol=on",)}, ""),
        ({"worker_startup_failure": "ignore"}, "worker_startup_failure (without worker_hooks)"),
        ({"worker_startup_failure": "ignore", "worker_hooks": True}, ""),
        ({"reload_delay": 1, "reload_dirs": (".",)}, "reload_dirs, reload_delay (without reload)"),
        ({"reload_delay": 1, "reload": True}, ""),
        ({"recycle_jitter": 5}, "recycle_jitter (without max_requests or max_lifetime or max_rss)"),
        ({"recycle_jitter": 5, "max_lifetime": 60}, ""),
        ({"uds_permissions": 0o600}, "uds_permissions (without uds)"),
        ({"uds_permissions": 0o600, "bind": ("unix:/tmp/socket",)}, ""),
        ({"lifespan_scope": "process", "lifespan": "off"}, "lifespan_scope (without lifespan)"),
        ({"access_log_filter": wanted, "access_log": False}, "access_log_filter (without access_log)"),
        ({"websocket_ping_timeout": 5, "websocket_ping_interval": 0}, "(without websocket_ping_interval)"),
        ({"only_plugins": ("h2",), "plugins": False}, "only_plugins (without plugins)"),
        ({"port": 9000, "bind": ("127.0.0.1:0",)}, "port (with bind or uds)"),
        ({"port": 9000}, ""),
        ({"access_log_file": "a", "access_log": False}, "access_log_file (without access_log)"),
        ({"access_log_file": "a", "error_log_file": "b", "access_log_sample": 0.5}, ""),
        (
            {"log_config": "a.toml", "log_format": "json", "error_log_file": "b", "log_level": "error"},
            "log_format, error_log_file (log_config says it)",
        ),
        (
            {"reload_delay": 1, "ssl_ciphers": "ECDHE"},
            "reload_delay (without reload); ssl_ciphers (without ssl_certfile)",
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_setting_without_what_makes_it_matter_is_named(settings: dict[str, Any], said: str) -> None:
    with Logs(ServerConfig(log_level="critical")):
        found = idle_settings(ServerConfig.of(settings))
    assert found == said or (said.startswith("(") and found.endswith(said))


def test_what_a_setting_needs_is_a_setting() -> None:
    names = {item.name for item in OPTIONS}
    assert {name for item in OPTIONS if item.needs for name in item.needs.split(" or ")} <= names


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "do nothing" in record.getMessage()]


@pytest.mark.parametrize("workers", [1, 2])
def test_all_of_them_are_said_once(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    with TestServer(app, workers=workers, worker_mode="thread", reload_delay=1.0, ssl_ciphers="ECDHE"):
        pass
    assert warnings(caplog) == [
        "These settings do nothing: reload_delay (without reload); ssl_ciphers (without ssl_certfile)"
    ]


@pytest.mark.parametrize("settings", [{}, {"bind": ("127.0.0.1:0",)}, {"workers": 2, "worker_mode": "thread"}])
def test_server_of_a_test_has_none_of_its_own(settings: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    with TestServer(app, **settings):
        pass
    assert warnings(caplog) == []


def test_settings_of_logging_and_loop_are_said_where_the_program_has_its_own(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        server = Server(ServerConfig(port=0, loop="uvloop", log_level="debug"), app)
        server.shutdown()
        await server.serve()

    caplog.set_level(logging.INFO)
    asyncio.run(main())
    assert warnings(caplog) == [
        "These settings do nothing: loop (the loop is that of the program); log_level (the program sets up logging)"
    ]


@pytest.mark.parametrize("name", ["reload", "control_socket"])
def test_setting_that_cannot_work_on_a_loop_of_the_program_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} "):
        TestServer(app, **{name: True if name == "reload" else "socket"}).start()
