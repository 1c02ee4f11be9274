"""The arguments of `uvicorn.run()` in our words: for `ServerConfig.of()`, and for programs that start uvicorn.

Each has a function that makes settings of its value: none where that is what happens anyway. What uvicorn's None stands
for is our default, where it is not said otherwise. A value without an equivalent is a `ConfigError` that says what to
write. Arguments that are settings of ours by name and value are here as well, so that this is all of them.
"""

import logging
import os
import ssl
from collections.abc import Callable
from typing import Any

from pounce.errors import ConfigError

__all__ = ["in_our_words", "trusted_hosts"]

type Settings = dict[str, Any]


def in_our_words(name: str, value: Any) -> Settings | None:
    """The settings that an argument of `uvicorn.run()` means; None for a name that is no argument of it.

    Raises `ConfigError` for a value without an equivalent. Whether the settings are right is for others to say.
    """
    meaning = _MEANINGS.get(name)
    return None if meaning is None else meaning(value)


def trusted_hosts(given: Any) -> Any:
    """The setting of this name for what uvicorn takes: a list, or a string with commas in it."""
    hosts = given.split(",") if isinstance(given, str) else given
    if not isinstance(hosts, list | tuple | set | frozenset) or not all(isinstance(host, str) for host in hosts):
        return given
    return tuple(host.strip() for host in hosts if host.strip())


def _same(setting: str) -> Callable[[Any], Settings]:
    return lambda value: {} if value is None else {setting: _path(value)}


def _several(setting: str) -> Callable[[Any], Settings]:
    def meaning(value: Any) -> Settings:
        if isinstance(value, str | os.PathLike):
            value = [value]
        paths = tuple(map(_path, value)) if isinstance(value, list | tuple) else value
        return {} if value is None else {setting: paths}

    return meaning


def _path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _none(name: str, hint: str, *harmless: Any) -> Callable[[Any], Settings]:
    """What has no equivalent unless it is what uvicorn has for a default."""

    def meaning(value: Any) -> Settings:
        if value is None or value in harmless:
            return {}
        raise ConfigError(f"{name} has no equivalent", hint=hint)

    return meaning


def _host(value: Any) -> Settings:
    return {"host": "0.0.0.0" if value is None else value}


def _root_path(value: Any) -> Settings:
    # The paths that it stands before begin with a slash.
    return {"root_path": value.rstrip("/") if isinstance(value, str) else value}


def _keep_alive(value: Any) -> Settings:
    # Who keeps a connection for no time ends it behind the answer, which can say so.
    return {"max_requests_per_connection": 1} if value == 0 else {"keep_alive_timeout": value}


def _fd(value: Any) -> Settings:
    return {} if value is None else {"bind": (f"fd://{value}",)}


def _loop(value: Any) -> Settings:
    if value is None:
        return {}
    if isinstance(value, str) and (value in ("auto", "asyncio", "uvloop") or ":" in value):
        return {"loop": value}
    raise ConfigError("loop must be a string", hint='Write loop="module:factory" for a loop of your own.')


def _http(value: Any) -> Settings:
    if value in ("auto", "h11"):
        return {"http_parser": value}
    if value == "httptools":
        return {}
    raise ConfigError("http must be a string", hint="A class that speaks HTTP is uvicorn's own: leave it out.")


def _ws(value: Any) -> Settings:
    if value == "none":
        return {"disable_plugin": ("ws",)}
    if value is None or (isinstance(value, str) and ":" not in value):
        return {}
    raise ConfigError("ws has no equivalent", hint="WebSocket is spoken where pounce-ws is installed: leave it out.")


def _ping(setting: str) -> Callable[[Any], Settings]:
    return lambda value: {setting: 0.0 if value is None else value}


def _interface(value: Any) -> Settings:
    if value == "asgi2":
        raise ConfigError(
            "interface is asgi2, which is not spoken",
            hint="asgiref.compatibility.guarantee_single_callable makes ASGI 3 of an application.",
        )
    return {"interface": "asgi" if value == "asgi3" else value}


def _log_level(value: Any) -> Settings:
    if isinstance(value, str):
        level = {"TRACE": 5}.get(value.upper(), logging.getLevelNamesMapping().get(value.upper()))
    else:
        level = logging.INFO if value is None else value
    if not isinstance(level, int) or isinstance(value, bool):
        return {"log_level": value}
    levels = ((50, "critical"), (40, "error"), (30, "warning"), (20, "info"))
    return {"log_level": next((name for limit, name in levels if level >= limit), "debug")}


def _server_header(value: Any) -> Settings:
    return {} if value is True else {"server_header": "" if value is False else value}


def _forwarded_allow_ips(value: Any) -> Settings:
    return {} if value is None else {"trusted_hosts": trusted_hosts(value)}


def _ssl_version(value: Any) -> Settings:
    if value in (None, ssl.PROTOCOL_TLS, ssl.PROTOCOL_TLS_SERVER):
        return {}
    raise ConfigError("ssl_version has no equivalent", hint='Write ssl_minimum_version="1.2" or "1.3".')


def _ssl_cert_reqs(value: Any) -> Settings:
    words = {0: "none", 1: "optional", 2: "required"}
    return {"ssl_cert_reqs": words.get(value, value) if type(value) is not bool and isinstance(value, int) else value}


def _headers(value: Any) -> Settings:
    if not isinstance(value, list | tuple):
        return {} if value is None else {"headers": value}
    pairs = (tuple, list)
    return {"headers": tuple(":".join(map(str, each)) if isinstance(each, pairs) else each for each in value)}


_TASKS = "An application has tasks of its own, which its lifespan starts: leave it out."
_MEANINGS: dict[str, Callable[[Any], Settings]] = {
    "host": _host,
    "port": _same("port"),
    "uds": _same("uds"),
    "fd": _fd,
    "loop": _loop,
    "http": _http,
    "http2": _same("http2_enabled"),
    "ws": _ws,
    "ws_max_size": _same("websocket_max_message_size"),
    "ws_max_queue": _none(
        "ws_max_queue", "Bytes count: up to 64 KiB of messages wait for the application. Leave it out.", 32
    ),
    "ws_ping_interval": _ping("websocket_ping_interval"),
    "ws_ping_timeout": _ping("websocket_ping_timeout"),
    "ws_per_message_deflate": _same("websocket_compression"),
    "lifespan": _same("lifespan"),
    "interface": _interface,
    "reload": _same("reload"),
    "reload_dirs": _several("reload_dirs"),
    "reload_includes": _several("reload_include"),
    "reload_excludes": _several("reload_exclude"),
    "reload_delay": _same("reload_delay"),
    "workers": _same("workers"),
    "env_file": _none("env_file", "Give it to pounce.run(), or set the variables before the start."),
    "log_config": _same("log_config"),
    "log_level": _log_level,
    "access_log": _same("access_log"),
    "use_colors": _none("use_colors", "Give it to pounce.run(), or set the variable NO_COLOR or FORCE_COLOR to 1."),
    "proxy_headers": _same("proxy_headers"),
    "server_header": _server_header,
    "date_header": _same("date_header"),
    "forwarded_allow_ips": _forwarded_allow_ips,
    "root_path": _root_path,
    "limit_concurrency": _same("limit_concurrency"),
    "backlog": _same("backlog"),
    "limit_max_requests": _same("max_requests"),
    "limit_max_requests_jitter": _none(
        "limit_max_requests_jitter", "Write recycle_jitter: per cent, of max_requests and other reasons.", 0
    ),
    "timeout_keep_alive": _keep_alive,
    "timeout_graceful_shutdown": _same("shutdown_timeout"),
    "timeout_worker_healthcheck": _same("worker_timeout"),
    "timeout_notify": _none("timeout_notify", _TASKS, 30),
    "callback_notify": _none("callback_notify", _TASKS),
    "ssl_keyfile": _same("ssl_keyfile"),
    "ssl_certfile": _same("ssl_certfile"),
    "ssl_keyfile_password": _same("ssl_keyfile_password"),
    "ssl_version": _ssl_version,
    "ssl_cert_reqs": _ssl_cert_reqs,
    "ssl_ca_certs": _same("ssl_ca_certs"),
    "ssl_ciphers": _same("ssl_ciphers"),
    "ssl_context_factory": _none("ssl_context_factory", "Give ssl_certfile, ssl_keyfile and the like."),
    "headers": _headers,
    "app_dir": _same("app_dir"),
    "factory": _same("factory"),
    "h11_max_incomplete_event_size": _same("max_header_size"),
    "reset_contextvars": lambda value: {},
}
