"""The options of other servers, and the settings of ours that they are: what `pounce migrate` goes by.

Each option is said once: its flags, the key that it has in a file of that server, what it takes, and the setting that
does the same here. Where that setting is not named, one of the same flag has its place; where there is none, the table
of answers (`foreign.FLAGS`) says what to do instead, or why there is nothing. A value that has no equivalent raises
`NoEquivalent` with the reason.
"""

import ssl
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

__all__ = ["SERVERS", "Default", "NoEquivalent", "Server", "Theirs", "all_flags"]

type Takes = Literal["value", "list", "switch"]


class NoEquivalent(Exception):
    """There is nothing of the kind; the text says why."""


class Theirs(NamedTuple):
    """An option of another server."""

    flags: tuple[str, ...]
    """Its spellings; those that switch it off are in `off`. Empty where it is a key of files alone."""
    key: str
    """Its name in files."""
    takes: Takes = "value"
    setting: str | None = None
    """The setting that it is; None where that goes by its flag, or there is none."""
    convert: Callable[[Any], Any] | None = None
    """Makes the value of the setting of theirs, or a mapping of settings where it takes several."""
    off: tuple[str, ...] = ()
    why: str | None = None
    """What there is instead, or why there is nothing; of what has flags, `foreign.FLAGS` says so."""
    note: str | None = None
    """What is different about the setting, though it means the same."""


class Default(NamedTuple):
    """A default of theirs that ours differs from in a way that an application may notice."""

    setting: str
    value: Any
    why: str


class Server(NamedTuple):
    """Another server."""

    name: str
    options: tuple[Theirs, ...]
    defaults: tuple[Default, ...]
    attribute: str
    """What an application is called where its module alone is named; empty where it has to be named."""
    environment: str = ""
    """What the names of its variables begin with; empty where it has none."""

    def of_flag(self, flag: str) -> Theirs | None:
        """The option that has this flag."""
        return next((each for each in self.options if flag in (*each.flags, *each.off)), None)

    def of_key(self, key: str) -> Theirs | None:
        """The option that has this name in files."""
        return next((each for each in self.options if each.key == key), None)


def all_flags(server: Server) -> list[str]:
    """Every flag of a server, in the order of its table."""
    return [flag for each in server.options for flag in (*each.flags, *each.off)]


def _value(flags: str, setting: str | None = None, convert: Callable[[Any], Any] | None = None, **more: Any) -> Theirs:
    return _option("value", flags, setting, convert, **more)


def _list(flags: str, setting: str | None = None, convert: Callable[[Any], Any] | None = None, **more: Any) -> Theirs:
    return _option("list", flags, setting, convert, **more)


def _switch(flags: str, setting: str | None = None, convert: Callable[[Any], Any] | None = None, **more: Any) -> Theirs:
    return _option("switch", flags, setting, convert, **more)


def _key(key: str, setting: str | None = None, convert: Callable[[Any], Any] | None = None, **more: Any) -> Theirs:
    return _option("value", "", setting, convert, key=key, **more)


def _option(
    takes: Takes,
    flags: str,
    setting: str | None,
    convert: Callable[[Any], Any] | None,
    *,
    off: str = "",
    key: str = "",
    why: str | None = None,
    note: str | None = None,
) -> Theirs:
    names = tuple(flags.split())
    name = key or (names[-1].lstrip("-").replace("-", "_") if names else "")
    return Theirs(names, name, takes, setting, convert, tuple(off.split()), why, note)


_ENV_FILE = "Write --env-file FILE, or env_file in pounce.toml."


# Values


def _fd(value: Any) -> tuple[str, ...]:
    return (f"fd://{value}",)


def _octal(value: Any) -> str:
    return f"{value:o}" if isinstance(value, int) else str(value)


def _level(value: Any) -> str:
    if isinstance(value, int):
        return next((name for limit, name in _LEVELS if value >= limit), "debug")
    name = str(value).lower()
    return {"trace": "debug", "notset": "debug", "warn": "warning", "fatal": "critical"}.get(name, name)


_LEVELS = ((50, "critical"), (40, "error"), (30, "warning"), (20, "info"))


def _certificates(value: Any) -> str:
    names = {"0": "none", "1": "optional", "2": "required"}
    text = str(int(value)) if isinstance(value, int) else str(value).rpartition(".")[2].lower()
    text = names.get(text, text.removeprefix("cert_"))
    if text not in names.values():
        raise NoEquivalent(f"{value} is no answer to whether clients are asked for a certificate.")
    return text


def _tls_version(value: Any) -> Any:
    text = str(value).rpartition(".")[2].lower().replace("_", ".")
    if text in (str(int(ssl.PROTOCOL_TLS_SERVER)), str(int(ssl.PROTOCOL_TLS)), "protocol.tls.server", "protocol.tls"):
        return {}
    number = text.removeprefix("protocol.").removeprefix("tlsv").removeprefix("tls")
    if number not in ("1.2", "1.3"):
        raise NoEquivalent("TLS 1.2 is the oldest version that is spoken.")
    return number


def _loop(value: Any) -> Any:
    if value in ("auto", "asyncio", "uvloop") or (":" in str(value) and not str(value).startswith("uvicorn")):
        return value
    raise NoEquivalent(f"There are asyncio, uvloop and module:factory: {value} is none of them.")


def _uvicorn_parser(value: Any) -> Any:
    if value in ("auto", "h11"):
        return value
    raise NoEquivalent("The fast parser is that of pounce-h1fast, which is taken where it is installed.")


def _interface(value: Any) -> str:
    if value in ("auto", "wsgi"):
        return str(value)
    if value in ("asgi", "asgi3", "asginl"):
        return "asgi"
    if value == "asgi2":
        raise NoEquivalent("ASGI 2 is not spoken: asgiref.compatibility.guarantee_single_callable makes ASGI 3 of it.")
    raise NoEquivalent(f"{value} is spoken by that server alone: serve the ASGI side of the application.")


def _no_ws(value: Any) -> Any:
    if value == "none":
        return {"disable_plugin": ("ws",)}
    return {}


def _truth(value: Any) -> bool:
    return value if isinstance(value, bool) else str(value).lower() in ("1", "true", "yes", "on", "t", "y")


def _address(value: str, *, port: str = "8000", everywhere: str = "0.0.0.0") -> str:
    if value.startswith(("unix:", "fd://")):
        return value.replace("unix://", "unix:", 1)
    if value.startswith("[") and value.endswith("]"):
        return f"{value}:{port}"
    host, colon, number = value.rpartition(":")
    if not colon:
        return f"{value}:{port}"
    if not number.isdigit():
        raise NoEquivalent(f"{value} is no address with a port.")
    return f"{host or everywhere}:{number}"


def _binds(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    return tuple(_address(part.strip()) for text in texts for part in str(text).split(",") if part.strip())


def _insecure_binds(value: Any) -> tuple[str, ...]:
    return tuple(each if each.startswith("unix:") else f"http://{each}" for each in _binds(value))


def _quic_binds(value: Any) -> dict[str, Any]:
    binds = _binds(value)
    return {"http3_enabled": True, "quic_bind": binds} if binds else {}


def _access_file(value: Any) -> dict[str, Any]:
    if value is None or value == "":
        return {"access_log": False}
    return {"access_log": True, "access_log_file": str(value)}


def _error_file(value: Any) -> dict[str, Any]:
    return {} if value in (None, "-") else {"error_log_file": str(value)}


def _gunicorn_class(value: Any) -> dict[str, Any]:
    name = value if isinstance(value, str) else f"{value.__module__}.{value.__qualname__}"
    if "uvicorn" in name or name in ("asgi", "gunicorn.workers.gasgi.ASGIWorker"):
        found = {"interface": "asgi"}
        if name.endswith("UvicornH11Worker"):
            return found | {"loop": "asyncio", "http_parser": "h11"}
        return found
    if name in ("sync", "gthread", "gunicorn.workers.sync.SyncWorker", "gunicorn.workers.gthread.ThreadWorker"):
        return {"interface": "wsgi", "wsgi_threads": 1} if name.endswith(("sync", "SyncWorker")) else {}
    raise NoEquivalent(f"There is no {name}: each request of a WSGI application has a thread, --wsgi-threads of them.")


def _hypercorn_class(value: Any) -> str:
    if value == "trio":
        raise NoEquivalent("Workers run on asyncio or uvloop; an application on trio has no loop here.")
    return str(value)


def _milliseconds(value: Any) -> float:
    return float(value) / 1000


def _mebibytes(value: Any) -> int:
    return int(value) * 1024 * 1024


def _granian_http(value: Any) -> Any:
    if str(value) == "1":
        return {"disable_plugin": ("h2",)}
    if str(value) == "2":
        raise NoEquivalent("HTTP/1.1 cannot be switched off: a client that asks for HTTP/2 gets it.")
    return {}


def _no_plugin(name: str) -> Callable[[Any], Any]:
    def convert(on: Any) -> Any:
        return {} if _truth(on) else {"disable_plugin": (name,)}

    return convert


def _one_request(keep: Any) -> Any:
    return {} if _truth(keep) else {"max_requests_per_connection": 1}


def _log_off(on: Any) -> Any:
    return {} if _truth(on) else {"log_level": "critical", "access_log": False}


def _server_header(on: Any) -> Any:
    return {} if _truth(on) else {"server_header": ""}


def _limit(value: Any) -> Any:
    return {} if value is None or int(value) < 0 else int(value)


def _headers(value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    return tuple(each if isinstance(each, str) else f"{each[0]}:{each[1]}" for each in texts)


def _proxy_protocol(value: Any) -> bool:
    return str(value).lower() not in ("off", "false", "none", "0", "")


def _verbosity(value: Any) -> Any:
    return {"log_level": ("warning", "info", "debug", "debug")[min(int(value), 3)], "access_log": int(value) > 0}


# Servers

_LIMITS = (
    Default("max_request_size", 0, "Bodies of requests had no limit; here it is 1 MiB."),
    Default("request_timeout", 3600.0, "A body could pause as long as its client liked; here that is 30 s."),
)

UVICORN = Server(
    "uvicorn",
    (
        _value("--host"),
        _value("--port"),
        _value("--uds", note="The file mode is --uds-permissions, 660, where it was 666."),
        _value("--fd", "bind", _fd),
        _switch("--reload"),
        _list("--reload-dir", "reload_dirs", key="reload_dirs"),
        _list("--reload-include", "reload_include", key="reload_includes"),
        _list("--reload-exclude", "reload_exclude", key="reload_excludes"),
        _value("--reload-delay"),
        _value("--workers", note="They are threads of one process where the GIL is off."),
        _value("--loop", "loop", _loop),
        _value("--http", "http_parser", _uvicorn_parser),
        _switch("--http2"),
        _value("--ws", None, _no_ws),
        _value("--ws-max-size"),
        _value("--ws-max-queue"),
        _value("--ws-ping-interval"),
        _value("--ws-ping-timeout"),
        _value("--ws-per-message-deflate", "websocket_compression", _truth),
        _value("--lifespan"),
        _value("--interface", "interface", _interface),
        _value("--env-file", why=_ENV_FILE),
        _value("--log-config"),
        _value("--log-level", "log_level", _level),
        _switch("--access-log", off="--no-access-log"),
        _switch("--use-colors", off="--no-use-colors",
                why="It is understood; so are the variables NO_COLOR and FORCE_COLOR."),
        _switch("--proxy-headers", off="--no-proxy-headers"),
        _switch("--server-header", "server_header", _server_header, off="--no-server-header"),
        _switch("--date-header", off="--no-date-header"),
        _value("--forwarded-allow-ips"),
        _value("--root-path"),
        _value("--limit-concurrency", note="Counts requests that run in all workers, not connections."),
        _value("--backlog"),
        _value("--limit-max-requests", "max_requests"),
        _value("--limit-max-requests-jitter"),
        _value("--timeout-keep-alive"),
        _value("--timeout-graceful-shutdown"),
        _value("--timeout-worker-healthcheck", "worker_timeout"),
        _value("--ssl-keyfile"),
        _value("--ssl-certfile"),
        _value("--ssl-keyfile-password"),
        _value("--ssl-version", "ssl_minimum_version", _tls_version),
        _value("--ssl-cert-reqs", "ssl_cert_reqs", _certificates),
        _value("--ssl-ca-certs"),
        _value("--ssl-ciphers"),
        _list("--header", "headers", _headers, key="headers"),
        _switch("--version"),
        _value("--app-dir"),
        _value("--h11-max-incomplete-event-size"),
        _switch("--reset-contextvars", off="--no-reset-contextvars"),
        _switch("--factory"),
        _switch("--help"),
        _key("ssl_context_factory", why="Not there for these: --ssl-certfile and its neighbours say what TLS does."),
        _key("callback_notify", why="Not there: an application has tasks of its own, which its lifespan starts."),
        _key("timeout_notify", why="Not there: an application has tasks of its own, which its lifespan starts."),
    ),
    (
        *_LIMITS,
        Default("trusted_hosts", ("127.0.0.1", "::1"), "X-Forwarded-* from this machine was believed."),
        Default("compression", False, "Answers were sent as they are; here text is compressed for clients that ask."),
        Default("shutdown_timeout", 3600.0, "Requests had all the time they wanted at the end; here it is 10 s."),
    ),
    "",
    "UVICORN_",
)  # fmt: skip

GUNICORN = Server(
    "gunicorn",
    (
        _value("-c --config"),
        _list("-b --bind", "bind", _binds),
        _value("--backlog"),
        _value("-w --workers", note="They are threads of one process where the GIL is off."),
        _value("-k --worker-class", None, _gunicorn_class),
        _value("--threads", "wsgi_threads"),
        _value("--worker-connections", "max_connections", note="Of the whole server, not of one worker."),
        _value("--max-requests"),
        _value("--max-requests-jitter"),
        _value("-t --timeout", "worker_timeout",
               note="How long an event loop may stand still; of sync workers it is --app-timeout."),
        _value("--graceful-timeout", "shutdown_timeout"),
        _value("--keep-alive", "keep_alive_timeout", key="keepalive"),
        _value("--limit-request-line"),
        _value("--limit-request-fields", "max_headers"),
        _value("--limit-request-field_size"),
        _switch("--reload"),
        _value("--reload-engine"),
        _list("--reload-extra-file", "reload_include", key="reload_extra_files"),
        _switch("--spew"),
        _switch("--check-config"),
        _switch("--print-config"),
        _switch("--preload", key="preload_app"),
        _switch("--no-sendfile", key="sendfile"),
        _switch("--reuse-port", "reuseport"),
        _value("--chdir", "app_dir", note="--chdir is understood too, for files that are opened from there."),
        _switch("-D --daemon"),
        _list("-e --env", key="raw_env"),
        _value("-p --pid", "pid_file", key="pidfile"),
        _value("--worker-tmp-dir"),
        _value("-u --user"),
        _value("-g --group"),
        _value("-m --umask", "umask", _octal),
        _switch("--initgroups"),
        _value("--forwarded-allow-ips", key="forwarded_allow_ips"),
        _value("--access-logfile", "access_log_file", _access_file, key="accesslog"),
        _value("--access-logformat", "access_log_format", key="access_log_format"),
        _switch("--disable-redirect-access-to-syslog"),
        _value("--error-logfile --log-file", "error_log_file", _error_file, key="errorlog"),
        _value("--log-level", "log_level", _level, key="loglevel"),
        _switch("--capture-output"),
        _value("--logger-class"),
        _value("--log-config", key="logconfig"),
        _value("--log-config-json", "log_config", key="logconfig_json"),
        _value("--log-syslog-to", key="syslog_addr"),
        _switch("--log-syslog", "error_log_file", lambda on: "syslog", key="syslog"),
        _value("--log-syslog-prefix", key="syslog_prefix"),
        _value("--log-syslog-facility", key="syslog_facility"),
        _switch("-R --enable-stdio-inheritance"),
        _value("--statsd-host", "statsd_address", key="statsd_host"),
        _value("--dogstatsd-tags"),
        _value("--statsd-prefix"),
        _switch("--enable-backlog-metric"),
        _value("-n --name", "process_title", key="proc_name"),
        _value("--pythonpath"),
        _value("--paste --paster", key="paste"),
        _list("--paste-global", key="raw_paste_global_conf"),
        _value("--proxy-protocol", "proxy_protocol", _proxy_protocol),
        _value("--proxy-allow-from", "proxy_protocol_from", key="proxy_allow_ips"),
        _value("--protocol"),
        _value("--uwsgi-allow-from", key="uwsgi_allow_ips"),
        _value("--keyfile", "ssl_keyfile"),
        _value("--certfile", "ssl_certfile"),
        _value("--ssl-version", "ssl_minimum_version", _tls_version),
        _value("--cert-reqs", "ssl_cert_reqs", _certificates),
        _value("--ca-certs", "ssl_ca_certs"),
        _value("--ciphers", "ssl_ciphers"),
        _switch("--suppress-ragged-eofs"),
        _switch("--do-handshake-on-connect"),
        _value("--http-protocols"),
        _value("--http2-cleartext"),
        _value("--http2-max-concurrent-streams", "h2.max_concurrent_streams"),
        _value("--http2-initial-window-size", "h2.stream_window"),
        _value("--http2-max-frame-size", "h2.max_frame_size"),
        _value("--http2-max-header-list-size", "max_header_size"),
        _switch("--permit-obsolete-folding"),
        _switch("--strip-header-spaces"),
        _switch("--permit-unconventional-http-method"),
        _switch("--permit-unconventional-http-version"),
        _switch("--casefold-http-method"),
        _value("--forwarder-headers"),
        _value("--header-map"),
        _value("--root-path"),
        _value("--asgi-loop", "loop", _loop),
        _value("--asgi-lifespan", "lifespan"),
        _value("--asgi-disconnect-grace-period"),
        _value("--websocket-max-message-size"),
        _value("--http-parser", "http_parser", lambda name: {} if name == "auto" else _gunicorn_parser(name)),
        _list("--dirty-app", key="dirty_apps"),
        _value("--dirty-workers"),
        _value("--dirty-timeout"),
        _value("--dirty-threads"),
        _value("--dirty-graceful-timeout"),
        _value("--control-socket"),
        _value("--control-socket-mode"),
        _switch("--no-control-socket", "control_socket", lambda on: "off" if _truth(on) else {},
                key="control_socket_disable"),
        _switch("-v --version"),
        _switch("-h --help"),
        _key("logconfig_dict", "log_config"),
        _key("tmp_upload_dir", why="Not there: no body is written to a file."),
        _key("default_proc_name", why="Not there: it is a name that gunicorn gives itself."),
        _key("secure_scheme_headers", why="Not there: X-Forwarded-Proto of a trusted proxy says the scheme."),
        _key("ssl_context", why="Name a function as module:attribute that changes the context it is given."),
        _key("pre_request", why="Not there: what sees each request is a middleware, or an observer of a plugin."),
        _key("post_request", why="Not there: what sees each request is a middleware, or an observer of a plugin."),
        *(
            _key(name, why=f"{why} Name a function as module:attribute, not that of this file.")
            for name, why in {
                "on_starting": "Set on_starting; the function gets a ServerEvent.",
                "on_reload": "Set on_reload; the function gets a ServerEvent.",
                "when_ready": "Set when_ready; the function gets a ServerEvent.",
                "worker_exit": "Set worker_exit; the function gets a ServerEvent.",
                "on_exit": "Set on_exit; the function gets a ServerEvent.",
            }.items()
        ),
        *(
            _key(name, why="Not there, because workers are not forked: --worker-hooks calls the application in each.")
            for name in ("pre_fork", "post_fork", "post_worker_init", "worker_int", "worker_abort", "pre_exec",
                         "child_exit", "nworkers_changed", "on_dirty_starting", "dirty_post_fork",
                         "dirty_worker_init", "dirty_worker_exit")
        ),
    ),
    (
        *_LIMITS,
        Default("access_log", False, "There was no access log without --access-logfile."),
        Default("shutdown_timeout", 30.0, "Requests had 30 s to finish at the end; here it is 10 s."),
        Default("trusted_hosts", ("127.0.0.1", "::1"), "X-Forwarded-* from this machine was believed."),
        Default("compression", False, "Answers were sent as they are; here text is compressed for clients that ask."),
    ),
    "application",
    "GUNICORN_",
)  # fmt: skip


def _gunicorn_parser(name: Any) -> Any:
    raise NoEquivalent(f"{name} is gunicorn's own: here pounce-h1fast is taken where it is installed, else h11.")


HYPERCORN = Server(
    "hypercorn",
    (
        _value("--access-log", "access_log_file", _access_file, key="access_log"),
        _value("--access-logfile", "access_log_file", _access_file, key="accesslog"),
        _value("--access-logformat", "access_log_format", key="access_log_format"),
        _value("--backlog"),
        _list("-b --bind", "bind", _binds),
        _value("--ca-certs", "ssl_ca_certs"),
        _value("--certfile", "ssl_certfile"),
        _value("--cert-reqs", "ssl_cert_reqs", _certificates),
        _value("--ciphers", "ssl_ciphers"),
        _value("-c --config"),
        _switch("-D --daemon"),
        _switch("--debug"),
        _value("--error-log", "error_log_file", _error_file, key="error_log"),
        _value("--error-logfile --log-file", "error_log_file", _error_file, key="errorlog"),
        _value("--graceful-timeout", "shutdown_timeout"),
        _value("--read-timeout", "request_timeout"),
        _value("--max-requests"),
        _value("--max-requests-jitter"),
        _value("-g --group"),
        _value("-k --worker-class", "loop", _hypercorn_class),
        _value("--keep-alive", "keep_alive_timeout", key="keep_alive_timeout"),
        _value("--keyfile", "ssl_keyfile"),
        _value("--keyfile-password", "ssl_keyfile_password"),
        _list("--insecure-bind", "bind", _insecure_binds),
        _value("--log-config", key="logconfig"),
        _value("--log-level", "log_level", _level, key="loglevel"),
        _value("-p --pid", "pid_file", key="pid_path"),
        _list("--quic-bind", "quic_bind", _quic_binds, note="With --http3."),
        _switch("--reload", key="use_reloader"),
        _value("--root-path"),
        _list("--server-name", "server_names", key="server_names"),
        _value("--statsd-host", "statsd_address", key="statsd_host"),
        _value("--statsd-prefix"),
        _value("-m --umask", "umask", _octal),
        _value("-u --user"),
        _value("--verify-mode", "ssl_cert_reqs", _certificates),
        _value("--websocket-ping-interval"),
        _value("-w --workers", note="They are threads of one process where the GIL is off."),
        _switch("-h --help"),
        _key("application_path", why="Name it on the command line: pounce serve module:attribute."),
        _key("alpn_protocols", why="Not there: TLS offers what is installed; --disable-plugin h2 leaves HTTP/2 out."),
        _key("alt_svc_headers", why="Not needed: HTTP/3 announces itself; --http3-alt-svc says how."),
        _key("logconfig_dict", "log_config"),
        _key("logger_class", why="Not there: --log-config names loggers, handlers and formatters, of your own too."),
        _key("dogstatsd_tags", why="Write --statsd-format dogstatsd, which has labels as tags."),
        _key("h11_max_incomplete_size", "max_header_size"),
        _key("h11_pass_raw_headers", why="Not there: names of fields have small letters, as ASGI wants it."),
        _key("h2_max_concurrent_streams", "h2.max_concurrent_streams"),
        _key("h2_max_header_list_size", "max_header_size"),
        _key("h2_max_inbound_frame_size", "h2.max_frame_size"),
        _key("include_date_header", "date_header"),
        _key("include_server_header", "server_header", _server_header),
        _key("keep_alive_max_requests", "max_requests_per_connection"),
        _key("max_app_queue_size", why="Not there, because bytes count: up to 64 KiB wait for the application."),
        _key("shutdown_timeout", why="Not there: the end of the lifespan has as much time as --shutdown-timeout says."),
        _key("ssl_handshake_timeout", "tls_handshake_timeout"),
        _key("startup_timeout", "startup_timeout"),
        _key("verify_flags", why="Not there: --ssl-crl has the certificates that are revoked."),
        _key("websocket_max_message_size", "websocket_max_message_size"),
        _key("wsgi_max_body_size", "max_request_size"),
    ),
    (
        *_LIMITS,
        Default("access_log", False, "There was no access log without --access-logfile."),
        Default("websocket_ping_interval", 0.0, "WebSockets were not pinged; here they are every 20 s."),
        Default("compression", False, "Answers were sent as they are; here text is compressed for clients that ask."),
    ),
    "app",
)

GRANIAN = Server(
    "granian",
    (
        _value("--host"),
        _value("--port"),
        _value("--uds"),
        _value("--uds-permissions"),
        _value("--interface", "interface", _interface),
        _value("--http", None, _granian_http),
        _switch("--ws", None, _no_plugin("ws"), off="--no-ws", key="websockets"),
        _value("--workers", note="They are threads of one process where the GIL is off."),
        _value("--blocking-threads", "executor_threads_per_worker"),
        _value("--blocking-threads-idle-timeout"),
        _value("--runtime-threads"),
        _value("--runtime-blocking-threads"),
        _value("--runtime-mode"),
        _value("--loop", "loop", _loop),
        _value("--task-impl"),
        _value("--backlog"),
        _value("--backpressure", "limit_concurrency", note="Of all workers together, not of one."),
        _value("--http1-buffer-size", "max_header_size"),
        _value("--http1-header-read-timeout", "header_timeout", _milliseconds),
        _switch("--http1-keep-alive", None, _one_request, off="--no-http1-keep-alive"),
        _switch("--http1-pipeline-flush", off="--no-http1-pipeline-flush"),
        _switch("--http2-adaptive-window", off="--no-http2-adaptive-window"),
        _value("--http2-initial-connection-window-size", "h2.connection_window"),
        _value("--http2-initial-stream-window-size", "h2.stream_window"),
        _value("--http2-keep-alive-interval"),
        _value("--http2-keep-alive-timeout"),
        _value("--http2-max-concurrent-streams", "h2.max_concurrent_streams"),
        _value("--http2-max-frame-size", "h2.max_frame_size"),
        _value("--http2-max-headers-size", "max_header_size"),
        _value("--http2-max-send-buffer-size"),
        _switch("--log", None, _log_off, off="--no-log", key="log_enabled"),
        _value("--log-level", "log_level", _level),
        _value("--log-config"),
        _switch("--access-log", off="--no-access-log", key="log_access_enabled"),
        _value("--access-log-fmt", "access_log_format", key="log_access_fmt"),
        _value("--ssl-certificate", "ssl_certfile"),
        _value("--ssl-keyfile"),
        _value("--ssl-keyfile-password"),
        _value("--ssl-protocol-min", "ssl_minimum_version", _tls_version),
        _value("--ssl-ca", "ssl_ca_certs"),
        _list("--ssl-crl"),
        _switch("--ssl-client-verify", "ssl_cert_reqs", lambda on: "required" if _truth(on) else "none",
                off="--no-ssl-client-verify"),
        _value("--url-path-prefix", "root_path"),
        _switch("--respawn-failed-workers", off="--no-respawn-failed-workers"),
        _value("--respawn-interval"),
        _value("--rss-sample-interval"),
        _value("--rss-samples"),
        _value("--workers-lifetime", "max_lifetime"),
        _value("--workers-max-rss", "max_rss", _mebibytes),
        _value("--workers-kill-timeout", "shutdown_timeout"),
        _switch("--factory", off="--no-factory"),
        _value("--working-dir", "app_dir"),
        _list("--env-files", why=_ENV_FILE),
        _list("--static-path-route"),
        _list("--static-path-mount"),
        _value("--static-path-dir-to-file", "static_index_file"),
        _value("--static-path-expires", "static_cache_control", lambda age: f"public, max-age={age}"),
        _switch("--metrics", "metrics_enabled", off="--no-metrics", key="metrics_enabled"),
        _value("--metrics-scrape-interval"),
        _value("--metrics-address"),
        _value("--metrics-port"),
        _switch("--reload", off="--no-reload"),
        _list("--reload-paths", "reload_dirs"),
        _list("--reload-ignore-dirs", "reload_exclude", lambda names: tuple(f"{name}/" for name in names)),
        _list("--reload-ignore-patterns"),
        _list("--reload-ignore-paths", "reload_exclude"),
        _value("--reload-tick", "reload_delay", _milliseconds),
        _switch("--reload-ignore-worker-failure", off="--no-reload-ignore-worker-failure"),
        _value("--process-name", "process_title"),
        _value("--pid-file"),
        _switch("--version"),
        _switch("--help"),
    ),
    (
        *_LIMITS,
        Default("access_log", False, "There was no access log without --access-log."),
        Default("websocket_ping_interval", 0.0, "WebSockets were not pinged; here they are every 20 s."),
        Default("compression", False, "Answers were sent as they are; here text is compressed for clients that ask."),
    ),
    "app",
    "GRANIAN_",
)  # fmt: skip

DAPHNE = Server(
    "daphne",
    (
        _value("-p --port"),
        _value("-b --bind", "host"),
        _value("--websocket_timeout"),
        _value("--websocket_connect_timeout"),
        _value("-u --unix-socket", "uds"),
        _value("--fd", "bind", _fd),
        _list("-e --endpoint"),
        _value("-v --verbosity", "log_level", _verbosity),
        _value("-t --http-timeout", "app_timeout", _limit),
        _value("--access-log", "access_log_file", _access_file),
        _value("--log-fmt"),
        _value("--ping-interval", "websocket_ping_interval"),
        _value("--ping-timeout", "websocket_ping_timeout"),
        _value("--websocket-max-message-size", "websocket_max_message_size"),
        _value("--websocket-max-frame-size"),
        _value("--application-close-timeout"),
        _value("--root-path"),
        _switch("--proxy-headers", "trusted_hosts", lambda on: ("*",),
                note="Everybody was believed: name the addresses of your proxies instead."),
        _value("--proxy-headers-host"),
        _value("--proxy-headers-port"),
        _value("-s --server-name", "server_header"),
        _switch("--no-server-name", "server_header", lambda on: ""),
        _switch("-h --help"),
    ),
    (
        *_LIMITS,
        Default("websocket_max_message_size", 1024 * 1024, "Messages of WebSockets were up to 1 MiB; here 16 MiB."),
        Default("compression", False, "Answers were sent as they are; here text is compressed for clients that ask."),
    ),
    "",
)  # fmt: skip

BENGAL = Server(
    "bengal-pounce",
    (
        _value("--app"),
        _value("--config"),
        _value("--host"),
        _value("--port"),
        _value("--workers"),
        _value("--worker-mode"),
        _switch("--cpu-affinity"),
        _value("--log-level"),
        _value("--log-format"),
        _value("--root-path"),
        _switch("--no-compression", "compression", lambda on: False),
        _switch("--server-timing"),
        _switch("--no-access-log", "access_log", lambda on: False),
        _value("--ssl-certfile"),
        _value("--ssl-keyfile"),
        _switch("--no-http2", "http2_enabled", lambda on: False),
        _switch("--http3", "http3_enabled"),
        _switch("--reload"),
        _value("--reload-include", "reload_include", lambda text: tuple(
            f"*.{end.strip().lstrip('.')}" for end in text.split(","))),
        _list("--reload-dir", "reload_dirs"),
        _value("--keep-alive-timeout"),
        _value("--header-timeout"),
        _value("--request-timeout"),
        _value("--write-timeout"),
        _value("--startup-timeout"),
        _value("--max-requests-per-connection"),
        _value("--shutdown-timeout"),
        _value("--uds"),
        _value("--health-check-path"),
        _switch("--debug"),
        _value("--trusted-hosts"),
        _switch("--metrics", "metrics_enabled"),
        _value("--app-name"),
        _value("--app-tagline"),
        _value("--app-version"),
        _value("--signage"),
        _value("--format"),
        _value("--output-format"),
        _value("-o --output-file"),
        _value("--completions"),
        _switch("--llms-txt"),
        _switch("--mcp"),
        _switch("--mcp-install"),
        _switch("--mcp-uninstall"),
        _switch("-v -vv --verbose"),
        _switch("-q --quiet"),
        _switch("--no-color"),
        _switch("-n --dry-run"),
        _switch("--force"),
        _switch("--version"),
        _switch("-h --help"),
    ),
    (Default("request_id", True, "Answers had the id of their request."),),
    "",
)  # fmt: skip

SERVERS: Mapping[str, Server] = {
    server.name: server for server in (UVICORN, GUNICORN, HYPERCORN, GRANIAN, DAPHNE, BENGAL)
}
