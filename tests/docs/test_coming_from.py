"""Whoever comes from bengal-pounce finds every setting again; run as a program this writes the table of the page."""

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

import pounce
from pounce.config import ServerConfig, describe

PAGE = Path(__file__).parents[2] / "docs" / "coming-from-bengal-pounce.md"
BEGIN, END = "## Defaults that differ\n", "\n## "

FIELDS: dict[str, Any] = {
    "host": "127.0.0.1", "port": 8000, "workers": 1, "backlog": 2048, "worker_mode": "auto",
    "worker_startup_failure": "ignore", "cpu_affinity": False, "executor_threads_per_worker": 0,
    "keep_alive_timeout": 5.0, "request_timeout": 30.0, "write_timeout": 30.0, "header_timeout": 10.0,
    "startup_timeout": 30.0, "shutdown_timeout": 10.0, "max_request_size": 1_048_576, "max_header_size": 65_536,
    "max_headers": 100, "max_connections": 10_000, "max_requests_per_connection": 0, "access_log": True,
    "log_level": "info", "log_format": "auto", "display": None, "app_name": None, "app_tagline": None,
    "app_version": None, "signage": None, "access_log_filter": None, "http2_enabled": True, "server_header": "pounce",
    "date_header": True, "root_path": "", "compression": True, "compression_min_size": 500,
    "compression_dictionaries": (), "server_timing": False, "debug": False, "reload": False, "reload_include": (),
    "reload_dirs": (), "h11_max_incomplete_event_size": None, "trusted_hosts": frozenset(),
    "trusted_hosts_wildcard": False, "forwarded_for_trusted_hops": 1, "health_check_path": None,
    "introspection_enabled": False, "introspection_bind": "127.0.0.1", "introspection_path": "/_pounce/info",
    "uds": None, "uds_permissions": 0o660, "ssl_certfile": None, "ssl_keyfile": None, "static_files": {},
    "static_cache_control": "public, max-age=3600", "static_precompressed": True, "static_follow_symlinks": False,
    "static_index_file": "index.html", "middleware": [], "websocket_compression": True,
    "websocket_max_message_size": 10_485_760, "reload_timeout": 30.0, "otel_endpoint": None,
    "otel_service_name": "pounce", "lifecycle_logging": False, "log_slow_requests_threshold": 5.0,
    "metrics_enabled": False, "metrics_path": "/metrics", "rate_limit_enabled": False,
    "rate_limit_requests_per_second": 100.0, "rate_limit_burst": 200, "rate_limit_max_tracked_ips": 100_000,
    "request_queue_enabled": False, "request_queue_max_depth": 1000, "http3_enabled": False,
    "http3_max_connections": 10_000, "http3_idle_timeout": 30.0, "http3_qpack_max_table_capacity": 0,
    "http3_zero_rtt_enabled": False, "sentry_dsn": None, "sentry_environment": None, "sentry_release": None,
    "sentry_traces_sample_rate": 0.1, "sentry_profiles_sample_rate": 0.1,
}  # fmt: skip
"""The settings of bengal-pounce 0.9.2, and their defaults."""

DIFFERENT = {
    "worker_startup_failure": "A worker that cannot start is no worker; `ignore` is there.",
    "websocket_max_message_size": "It was counted by frame, and is by message.",
    "reload_timeout": "None is `shutdown_timeout`.",
    "http3_qpack_max_table_capacity": "The dynamic table works here.",
    "sentry_profiles_sample_rate": "The profiler of the SDK needs the GIL.",
}
"""Settings with another default, and why."""

NAMES = {item.name for item in describe()}


NAMES_OF_THE_PACKAGE = """
ASGIApp BufferedCollector CORSMiddleware ClientDisconnected ConnectionCompleted ConnectionOpened DisplayConfig
LifecycleCollector LifecycleEvent LifespanError LoggingCollector Middleware NoopCollector PounceError Receive
ReloadError RequestStarted Response ResponseCompleted Scope SecurityHeadersMiddleware Send ServerConfig
ServerConfigKwargs StaticFiles SupervisorError TLSError __version__ create_static_handler run
"""
NAMES_OF_MODULES = {
    "config": "ServerConfig",
    "display": "CliDisplayOverrides DisplayConfig resolve_display_config",
    "lifecycle": "BufferedCollector ClientDisconnected ConnectionCompleted ConnectionOpened LifecycleCollector "
    "LoggingCollector NoopCollector RequestStarted ResponseCompleted StreamClosed StreamOpened monotonic_ns "
    "next_connection_id",
    "metrics": "PrometheusCollector",
    "server": "Server",
    "sync_protocol": "RawRequest RawResponse SyncApp",
    "testing": "RoundRobinTestProxy TestServer pounce_server serve",
}
"""Those that were documented."""


def plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, frozenset | list) else value


def test_there_are_as_many_settings_as_there_were() -> None:
    assert len(FIELDS) == 83


def test_a_setting_that_is_gone_is_on_the_page() -> None:
    page = PAGE.read_text()
    assert [name for name in FIELDS if name not in NAMES and f"`{name}`" not in page] == []


@pytest.mark.parametrize("name", NAMES_OF_THE_PACKAGE.split())
def test_a_name_of_the_package_is_there(name: str) -> None:
    assert hasattr(pounce, name)


@pytest.mark.parametrize("module", NAMES_OF_MODULES)
def test_a_name_of_a_module_is_there_or_on_the_page(module: str) -> None:
    spec = importlib.util.find_spec(f"pounce.{module}")
    there = dir(importlib.import_module(f"pounce.{module}")) if spec is not None else []
    in_python = PAGE.read_text(encoding="utf-8").partition("## In Python")[2]
    told = re.findall(r"\w+", " ".join(re.findall("`[^`]+`", in_python)))
    assert {*NAMES_OF_MODULES[module].split()} - {*there, *told} == set()


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_takes_its_default_of_before(name: str) -> None:
    if name not in NAMES:
        pytest.skip("it is on the page")
    config = ServerConfig.of({name: FIELDS[name]})
    assert plain(getattr(config, name)) == plain(FIELDS[name])


@pytest.mark.parametrize("name", FIELDS)
def test_a_default_is_that_of_before_or_is_listed(name: str) -> None:
    if name not in NAMES:
        pytest.skip("it is on the page")
    same = plain(getattr(ServerConfig(), name)) == plain(FIELDS[name])
    assert same is (name not in DIFFERENT)


def table() -> str:
    lines = ["| setting | there | here | why |", "|---|---|---|---|"]
    config = ServerConfig()
    for name, why in DIFFERENT.items():
        there, here = FIELDS[name], getattr(config, name)
        lines.append(f"| `{name}` | `{there}` | {'none' if here is None else f'`{here}`'} | {why} |")
    return "\n".join(lines)


def parts() -> tuple[str, str, str]:
    """The page before the table, the table, and what comes after it."""
    before, begin, rest = PAGE.read_text().partition(BEGIN)
    found, end, after = rest.partition(END)
    return before + begin, found.strip(), end + after


def test_the_page_has_the_table() -> None:
    assert parts()[1] == table()


if __name__ == "__main__":
    before, _, after = parts()
    PAGE.write_text(f"{before}\n{table()}\n{after}")
