"""Programs that start uvicorn themselves, served by pounce.

After `install()` the names `uvicorn.run`, `uvicorn.Config` and `uvicorn.Server` mean this server, in this process and
in those that it starts by multiprocessing. Where uvicorn is installed its own `Config` stays, so that a program finds
there whatever it knows of; where it is not, a module of that name has what is here. `pounce run program.py` installs it
and runs the program.

What a program has to say is said by its arguments, which are uvicorn's: `settings_of()` has what they are here. A limit
that uvicorn does not have is off, because who wrote the program could not know of it. What is given to `install()`
stands above all that.
"""

import asyncio
import importlib
import importlib.util
import logging
import multiprocessing.spawn
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from pounce import server as ours
from pounce.config import ServerConfig, describe
from pounce.errors import ConfigError, PounceError
from pounce.observe.logs import Logs
from pounce.uvicorn_arguments import in_our_words, trusted_hosts
from pounce.variables import set_by_file
from pounce.worker.loop import loop_factory, run_on_new_loop

__all__ = ["Config", "Server", "install", "run", "settings_of"]

log = logging.getLogger("pounce")

STARTUP_FAILURE = 3
SIGNALS = (signal.SIGINT, signal.SIGTERM)
NEVER = 86400.0 * 365
"""Seconds of what has no bound in uvicorn, and must have one here."""
_overrides: dict[str, Any] = {}

_WHERE = {"host", "port", "uds", "bind"}
_DEFAULTS: dict[str, Any] = {
    "host": "127.0.0.1", "port": 8000, "uds": None, "fd": None, "loop": "auto", "http": "auto", "http2": False,
    "ws": "auto", "ws_max_size": 16 * 1024 * 1024, "ws_max_queue": 32, "ws_ping_interval": 20.0,
    "ws_ping_timeout": 20.0, "ws_per_message_deflate": True, "lifespan": "auto", "env_file": None, "log_config": None,
    "log_level": None, "access_log": True, "use_colors": None, "interface": "auto", "reload": False,
    "reload_dirs": None, "reload_delay": 0.25, "reload_includes": None, "reload_excludes": None, "workers": None,
    "proxy_headers": True, "server_header": True, "date_header": True, "forwarded_allow_ips": None, "root_path": "",
    "limit_concurrency": None, "limit_max_requests": None, "limit_max_requests_jitter": 0, "backlog": 2048,
    "timeout_keep_alive": 5, "timeout_notify": 30, "timeout_graceful_shutdown": None,
    "timeout_worker_healthcheck": 5, "callback_notify": None, "ssl_keyfile": None, "ssl_certfile": None,
    "ssl_keyfile_password": None, "ssl_version": ssl.PROTOCOL_TLS_SERVER, "ssl_cert_reqs": ssl.CERT_NONE,
    "ssl_ca_certs": None, "ssl_ciphers": None, "ssl_context_factory": None, "headers": None, "factory": False,
    "h11_max_incomplete_event_size": None, "reset_contextvars": False,
}  # fmt: skip
"""The arguments of `uvicorn.Config`, with what they are unless given."""


def settings_of(config: Any) -> dict[str, Any]:
    """The settings of ours that a `uvicorn.Config` means. Raises `ConfigError` where leaving something out would make
    the server less safe than the program asked for."""

    def said(name: str) -> Any:
        return getattr(config, name, _DEFAULTS[name])

    settings: dict[str, Any] = {"max_request_size": 0, "request_timeout": NEVER, "app_dir": "", "interface": "auto"}
    for name in _DEFAULTS:
        if name not in _APART:
            settings |= _meant(name, said(name))
    # Bytes and whole numbers come as either.
    for item in describe():
        if item.kind is float and isinstance(settings.get(item.name), int):
            settings[item.name] = float(settings[item.name])
    settings |= _trusted(said("forwarded_allow_ips"), believed=said("proxy_headers"))
    if (required := _meant("ssl_cert_reqs", said("ssl_cert_reqs")))["ssl_cert_reqs"] != "none":
        settings |= required | {"ssl_ca_certs": os.fspath(said("ssl_ca_certs") or "")}
    if said("uds") is not None:
        settings["uds"] = os.fspath(said("uds"))
    elif said("fd") is not None:
        settings["bind"] = (f"fd://{said('fd')}",)
    return _above(settings, _overrides)


_APART = {
    "uds", "fd", "http2", "workers", "reload", "reload_dirs", "reload_includes", "reload_excludes", "reload_delay",
    "env_file", "use_colors", "log_config", "proxy_headers", "forwarded_allow_ips", "timeout_worker_healthcheck",
    "ssl_cert_reqs", "ssl_ca_certs",
}  # fmt: skip
"""Arguments that mean something else together with others, or only to `run()`, or are for uvicorn's own loggers and
processes."""


def _meant(name: str, value: Any) -> dict[str, Any]:
    """The settings for an argument; none where there is no equivalent, unless somebody could rely on it."""
    try:
        return in_our_words(name, value) or {}
    except ConfigError:
        if name == "ssl_context_factory":
            raise
        return {}


def _above(settings: dict[str, Any], nearer: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with others above them, which answer alone where to listen if they do at all."""
    if _WHERE & nearer.keys():
        settings = {name: value for name, value in settings.items() if name not in _WHERE}
    return {**settings, **nearer}


def _trusted(given: Any, *, believed: bool) -> dict[str, Any]:
    if not believed:
        return {"proxy_headers": False}
    if given is None:
        given = os.environ.get("FORWARDED_ALLOW_IPS", "127.0.0.1,::1")
    return {"trusted_hosts": trusted_hosts(given)}


class Config:
    """`uvicorn.Config` where uvicorn is not installed: its arguments, as attributes."""

    def __init__(self, app: Any, host: str = "127.0.0.1", port: int = 8000, **arguments: Any) -> None:
        if unknown := arguments.keys() - _DEFAULTS.keys():
            raise TypeError(f"Config() got an unexpected keyword argument {min(unknown)!r}")
        self.app = app
        self.loaded = False
        self.__dict__.update(_DEFAULTS | arguments | {"host": host, "port": port})
        if vars(self)["env_file"] is not None:
            _load(vars(self)["env_file"])
        self.workers: int = arguments.get("workers") or int(os.environ.get("WEB_CONCURRENCY", 1))

    @property
    def should_reload(self) -> bool:
        return isinstance(self.app, str) and bool(vars(self)["reload"])

    @property
    def is_ssl(self) -> bool:
        return bool(vars(self)["ssl_keyfile"] or vars(self)["ssl_certfile"])

    def load(self) -> None:
        """Nothing is to be done before the start."""
        self.loaded = True

    def bind_socket(self) -> socket.socket:
        """A socket that is bound to host and port, for `Server.serve(sockets=[...])`."""
        host, port = vars(self)["host"], vars(self)["port"]
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as exc:
            log.error("%s", exc)
            sys.exit(1)
        sock.set_inheritable(True)
        return sock


def _load(path: Any) -> None:
    try:
        values = importlib.import_module("dotenv").dotenv_values(path)
    except ModuleNotFoundError as exc:
        raise ConfigError("env_file needs python-dotenv", hint="pip install python-dotenv") from exc
    for name, value in values.items():
        if value is not None:
            set_by_file(name, value)


class _State:
    """`server.server_state`, in which nothing is counted."""

    def __init__(self) -> None:
        self.total_requests = 0
        self.connections: set[Any] = set()
        self.tasks: set[Any] = set()
        self.default_headers: list[Any] = []


class _Bound:
    """An entry of `server.servers`: the addresses of a server, and its end."""

    def __init__(self, server: Server, sockets: Sequence[Any]) -> None:
        self.sockets = tuple(sockets)
        self._server = server

    def is_serving(self) -> bool:
        return self._server.started

    def close(self) -> None:
        self._server.should_exit = True


class _Name:
    """A listening socket, as far as its address."""

    def __init__(self, url: str) -> None:
        host, _, port = url.partition("://")[2].rpartition(":")
        self._name: Any
        if url.startswith("unix:"):
            self.family, self._name = socket.AF_UNIX, url[5:]
        elif host.startswith("["):
            # With flow information and scope, as sockets of that family have it.
            self.family, self._name = socket.AF_INET6, (host.strip("[]"), int(port), 0, 0)
        else:
            self.family, self._name = socket.AF_INET, (host, int(port))

    def getsockname(self) -> Any:
        return self._name


class Server:
    """`uvicorn.Server`: `run()` or `await serve()`; or `startup()`, `main_loop()`, `shutdown()`, one after the other.

    It is made to be derived from. `should_exit` and `force_exit` may be set from any thread, and end it at once rather
    than at the next look; `started` is True from when connections are accepted.
    """

    def __init__(self, config: Any) -> None:
        self.config = config
        self.server_state = _State()
        self.started = False
        self.last_notified = 0.0
        self.servers: list[_Bound] = []
        self._should_exit = False
        self._force_exit = False
        self._captured_signals: list[int] = []
        self._server: ours.Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._lock = threading.Lock()
        """Protects the two wishes and the server that is to hear them, which may come from different threads."""

    def __getstate__(self) -> dict[str, Any]:
        """What a process needs that is to run it: a reloader hands it the method `run`."""
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_server", "_serving")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._lock, self._server, self._serving = threading.Lock(), None, None
        vars(self).update(state)

    @property
    def should_exit(self) -> bool:
        """Whether it is to end, or has."""
        return self._should_exit

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._wish(value, self._force_exit)

    @property
    def force_exit(self) -> bool:
        """Whether it is to end without waiting for requests."""
        return self._force_exit

    @force_exit.setter
    def force_exit(self, value: bool) -> None:
        self._wish(self._should_exit, value)

    def _wish(self, should_exit: bool, force_exit: bool) -> None:
        with self._lock:
            self._should_exit, self._force_exit = should_exit, force_exit
            server = self._server
        if server is not None and (should_exit or force_exit):
            server.shutdown(force=force_exit)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on a loop of its own; blocks."""
        with _failing_as_theirs():
            loop = settings_of(self.config).get("loop", "auto")
        run_on_new_loop(partial(self.serve, sockets), loop_factory(loop))

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on the running loop. `SystemExit(3)` where it cannot start, as with uvicorn."""
        with self.capture_signals():
            await self._serve(sockets)

    async def _serve(self, sockets: list[socket.socket] | None = None) -> None:
        with _failing_as_theirs(), _logs(self.config):
            await self.startup(sockets)
            try:
                await self.main_loop()
            finally:
                if self.started:
                    await self.shutdown(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start: when it returns connections are accepted. `SystemExit(3)` where that cannot be."""
        ready = asyncio.Event()

        def on_ready(info: ours.StartInfo) -> None:
            self.servers = [_Bound(self, [_Name(url)]) for url in info.urls]
            self.started = True
            ready.set()

        app = getattr(self.config, "loaded_app", None) if self.config.loaded else None
        with _failing_as_theirs():
            settings = settings_of(self.config) | {"workers": 1}
            if app is not None:
                # What `load()` has made is the application, whatever it was made of.
                settings |= {"factory": False, "interface": "asgi"}
            config = ServerConfig.of(settings)
            if sockets:
                # The caller closes those that it has.
                own = {"bind": tuple(f"fd://{os.dup(sock.fileno())}" for sock in sockets)}
                config = ServerConfig.of(_above(settings, own))
            server = ours.Server(config, self.config.app if app is None else app, on_ready=on_ready)
        self._serving = asyncio.ensure_future(server.serve())
        with self._lock:
            self._server = server
        self._wish(self._should_exit, self._force_exit)
        waiting = asyncio.ensure_future(ready.wait())
        try:
            await asyncio.wait([waiting, self._serving], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # Nobody would end what goes on starting.
            self._serving.cancel()
            await asyncio.wait([self._serving])
            self.started = False
            raise
        finally:
            waiting.cancel()
        if self._serving.done():
            self._check()

    def _check(self) -> None:
        """Say why the server has ended, if it was by a failure."""
        assert self._serving is not None
        error = self._serving.exception() if not self._serving.cancelled() else None
        if error is not None:
            with _failing_as_theirs():
                raise error

    async def main_loop(self) -> None:
        """Wait for the end."""
        if self._serving is None or self._serving.done():
            return
        notify = asyncio.ensure_future(self._notify())
        try:
            await asyncio.shield(self._serving)
        finally:
            notify.cancel()

    async def _notify(self) -> None:
        callback = getattr(self.config, "callback_notify", None)
        while callback is not None:
            await callback()
            await asyncio.sleep(self.config.timeout_notify)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End: requests that run are finished first."""
        self._wish(True, self._force_exit)
        for sock in sockets or ():
            sock.close()
        if self._serving is not None:
            await asyncio.wait([self._serving])
            self.started = False
            self._check()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Within it SIGINT and SIGTERM are `handle_exit`; they are raised again behind it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.install_signal_handlers()
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        for captured in reversed(self._captured_signals):
            signal.raise_signal(captured)

    def install_signal_handlers(self) -> None:
        """Nothing: programs of old put nothing in its place, to have no signals handled."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called with a signal: the first ends the server, a second SIGINT does so by force."""
        self._captured_signals.append(sig)
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        else:
            self.should_exit = True


@contextmanager
def _failing_as_theirs() -> Iterator[None]:
    """Within it what keeps a server from starting is told to the log, and is `SystemExit(3)`."""
    try:
        yield
    except PounceError as error:
        log.error("%s", error.message, exc_info=error.__cause__)
        raise SystemExit(STARTUP_FAILURE) from error


def _logs(config: Any) -> AbstractContextManager[Any]:
    """What the server logs goes where ours does, unless somebody has said otherwise already."""
    if logging.getLogger("pounce").handlers:
        return nullcontext()
    return Logs(ServerConfig.of({key: value for key, value in settings_of(config).items() if key in _LOGGING}))


_LOGGING = {item.name for item in describe() if item.group == "logging"} - {"access_log_filter"}


def run(app: Any, *, app_dir: str | None = None, **arguments: Any) -> None:
    """`uvicorn.run`: serve until the process is told to end; blocks. Raises a `PounceError` when it cannot start."""
    if app_dir is not None:
        sys.path.insert(0, app_dir)
    config = sys.modules["uvicorn"].Config(app, **arguments) if "uvicorn" in sys.modules else Config(app, **arguments)
    settings = settings_of(config)
    if config.workers > 1:
        settings.setdefault("workers", config.workers)
    if config.should_reload:
        settings = {"reload": True, "app_dir": _folder(app_dir)} | _reloading(arguments) | settings
    if config.should_reload or settings.get("workers", 1) > 1:
        # Other processes import the application anew, from where this one would.
        settings["app_dir"] = settings["app_dir"] or _folder(app_dir)
    ours.run(app, config=ServerConfig.of(settings))


def _folder(given: str | None) -> str:
    return given or (sys.path[0] if sys.path and os.path.isdir(sys.path[0]) else ".")


def _reloading(arguments: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"reload_delay": float(arguments.get("reload_delay", 0.25))}
    for name in ("reload_dirs", "reload_includes", "reload_excludes"):
        if arguments.get(name):
            found |= _meant(name, arguments[name])
    return found


def install(overrides: Mapping[str, Any] | None = None) -> None:
    """Have `uvicorn.run`, `uvicorn.Config` and `uvicorn.Server` mean this server, from now on.

    `overrides` are settings of ours that stand above what a program says. What a module has imported from uvicorn
    before stays what it is: this is for the first line of a program.
    """
    _overrides.clear()
    _overrides.update(overrides or {})
    if importlib.util.find_spec("uvicorn") is not None:
        _put_into_installed()
    else:
        _make_module()
    _reach_processes()


def _put_into_installed() -> None:
    found: Any = importlib.import_module("uvicorn")
    for name in ("main", "server"):
        importlib.import_module(f"uvicorn.{name}").Server = Server  # type: ignore[attr-defined]
    # The package has a function of this name, and no way to its module.
    sys.modules["uvicorn.main"].run = found.run = run  # type: ignore[attr-defined]
    found.Server = Server


def _make_module() -> None:
    module: Any = ModuleType("uvicorn", "uvicorn's names, served by pounce.")
    module.__path__ = []
    module.__spec__ = ModuleSpec("uvicorn", None, is_package=True)
    module.__version__ = "0.54.0"
    for name, names in _MODULES.items():
        part: Any = ModuleType(f"uvicorn.{name}")
        vars(part).update(names)
        setattr(module, name, part)
        sys.modules[f"uvicorn.{name}"] = part
    # Of the package `main` is the command line, and there is none.
    del module.main
    module.Config, module.Server, module.run = Config, Server, run
    sys.modules["uvicorn"] = module


_MODULES: dict[str, dict[str, Any]] = {
    "config": {"Config": Config, "LOGGING_CONFIG": {"version": 1, "disable_existing_loggers": False, "formatters": {
        "default": {"format": "%(message)s"}, "access": {"format": "%(message)s"}}, "handlers": {}, "loggers": {}}},
    "server": {"Server": Server},
    "main": {"Server": Server, "Config": Config, "run": run, "STARTUP_FAILURE": STARTUP_FAILURE},
}  # fmt: skip


class _Installed:
    """Installs this where it arrives."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Any, ...]]:
        return install, (dict(_overrides),)


def _reach_processes() -> None:
    """Have processes that multiprocessing starts begin with this, before they import the program."""
    module: Any = multiprocessing.spawn
    if getattr(module.get_preparation_data, "is_pounce", False):
        return
    original = module.get_preparation_data

    def get_preparation_data(name: str) -> dict[str, Any]:
        return {"pounce": _Installed(), **original(name)}

    get_preparation_data.is_pounce = True  # type: ignore[attr-defined]
    module.get_preparation_data = get_preparation_data


def run_program(words: Sequence[str]) -> None:
    """Run a program as `python` would: a file, or `-m` and a module; the other words are its arguments."""
    import runpy

    if words[0] == "-m":
        sys.argv = [*words[1:]]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        path = Path(words[0])
        sys.argv = [*words]
        sys.path.insert(0, str(path.resolve().parent))
        runpy.run_path(str(path), run_name="__main__")
