"""Of the application, of what it runs in, and of the process."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pounce.options import option
from pounce.settings.types import (
    ApplicationScope,
    Interface,
    Lifespan,
    LifespanScope,
    WorkerMode,
    WorkerStartupFailure,
)

__all__ = ["WORKER_TIMEOUT", "ApplicationSettings"]

WORKER_TIMEOUT = 30.0
"""Default of `worker_timeout`. Any other one brings a thread to one worker in the calling process."""


@dataclasses.dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class ApplicationSettings:
    """Of the application, of what it runs in, and of the process."""

    # Application
    root_path: str = option(
        "",
        "Path prefix the application is mounted under (ASGI root_path).",
        group="application",
        per_bind=True,
    )
    factory: bool = option(
        False, "Treat the application as a factory: call it to get the ASGI application.", group="application"
    )
    app_dir: str = option(
        ".",
        "Folder put first on sys.path before the application is imported; empty leaves it alone.",
        group="application",
    )
    interface: Interface = option(
        "auto", "What the application speaks; auto tells ASGI 3 and WSGI apart.", group="application"
    )
    wsgi_threads: int = option(
        0,
        "Requests that a WSGI application runs at once in each worker; 0 is as many threads as executors have.",
        group="application",
        ge=0,
    )
    lifespan: Lifespan = option(
        "auto", "Run the ASGI lifespan: auto serves without it where the application has none.", group="application"
    )
    asgi_extensions: tuple[str, ...] = option(
        ("early_hint",),
        "Offer the application this way to answer: early_hint, trailers, pathsend, zerocopysend, sendfile.",
        group="application",
    )
    debug: bool = option(False, "Show error codes and hints in the bodies of error answers.", group="application")
    probes: bool = option(
        False,
        "Answer /livez and /readyz, as orchestrators and load balancers ask: the latter for the whole server.",
        group="application",
    )
    health_check_path: str | None = option(
        None, "Path answered by the server itself with its health, for example /healthz.", group="application"
    )
    debug_hosts: tuple[str, ...] = option(
        ("127.0.0.1", "::1"),
        "Addresses that are shown the debug page, unix for Unix sockets, * for all. May be repeated.",
        group="application",
        needs="debug",
    )
    error_pages: Mapping[str, str] = option(
        dict,
        "Error pages, files or applications, by status or class: 404=404.html, 5xx=main:oops. May be repeated.",
        group="application",
        factory=True,
    )
    server_header: str = option("pounce", "Value of the Server response header; empty sends none.", group="application")
    date_header: bool = option(True, "Send a Date response header.", group="application")
    middleware: tuple[Any, ...] = option(
        (),
        "Middleware around the application, outermost first, as module:attribute or, in files, [module:attribute,"
        " {settings}]. May be repeated.",
        group="application",
    )
    sync_app: Any = option(
        None,
        "Answers requests at once, without a coroutine, or leaves them to the application: what has handle_sync(),"
        " or module:attribute.",
        group="application",
        flag=False,
    )

    # Workers
    workers: int = option(
        1, "Event loops that serve, each on a core of its own; 0 takes as many as there are CPUs to use.",
        group="workers", ge=0, le=1024,
    )  # fmt: skip
    worker_mode: WorkerMode = option(
        "auto",
        "What workers run in: auto is thread without the GIL and process with it; sync and async are auto.",
        group="workers",
    )

    executor_threads_per_worker: int = option(
        0, "Threads for what an application runs in its loop's executor; 0 is Python's own number.",
        group="workers", ge=0, le=1024,
    )  # fmt: skip
    application_scope: ApplicationScope = option(
        "auto",
        "Call a factory once for each worker, or for all workers of a process; auto is worker, for an object process.",
        group="workers",
    )
    lifespan_scope: LifespanScope = option(
        "worker",
        "Run the lifespan once for each worker, on its loop, or once for all workers of a process.",
        group="workers",
        needs="lifespan",
    )
    worker_hooks: bool = option(
        False, "Call the application with pounce.worker.startup, .draining and .shutdown in each worker.",
        group="workers",
    )  # fmt: skip
    worker_startup_failure: WorkerStartupFailure = option(
        "shutdown",
        "What a pounce.worker.startup that fails means: the end of the start, or nothing.",
        group="workers",
        needs="worker_hooks",
    )
    max_requests: int = option(
        0, "Requests after which a worker is replaced by a fresh one; 0 sets no limit.", group="workers", ge=0
    )
    max_lifetime: float = option(
        0.0, "Time after which a worker is replaced; 0 sets no limit.", group="workers", unit="seconds", ge=0
    )
    max_rss: int = option(
        0,
        "Physical memory of its process at which a worker is replaced (Linux); 0 sets no limit.",
        group="workers",
        unit="bytes",
        ge=0,
    )
    recycle_jitter: int = option(
        10, "Per cent by which each of these is raised at random, so that workers do not end together.",
        group="workers", ge=0, le=100, needs="max_requests or max_lifetime or max_rss",
    )  # fmt: skip
    worker_timeout: float = option(
        WORKER_TIMEOUT,
        "Time an event loop may stand still before its worker is replaced; 0 sets no limit.",
        group="workers",
        unit="seconds",
        ge=0,
    )
    cpu_affinity: bool = option(
        False, "Keep each worker on a CPU of its own, of those that are allowed (Linux).", group="workers"
    )
    pid_file: str | None = option(None, "File that holds the process id while the server runs.", group="workers")
    control_socket: str | None = option(
        "auto",
        "Unix socket on which pounce status, reload and stop reach the server; auto is one in a folder of its user"
        " where they find it, off none.",
        group="workers",
    )
    reload: bool = option(False, "Start new processes when files of the application change.", group="workers")
    reload_dirs: tuple[str, ...] = option(
        (),
        "Watch this folder instead of app_dir; may be repeated.",
        group="workers",
        also=("reload_dir",),
        needs="reload",
    )
    reload_include: tuple[str, ...] = option(
        (),
        "Watch what matches this line of a .gitignore beside *.py, for example *.sql; may be repeated.",
        group="workers",
        also=("reload_includes",),
        needs="reload",
    )
    reload_exclude: tuple[str, ...] = option(
        (),
        "Do not watch what matches this line of a .gitignore, for example data/; may be repeated.",
        group="workers",
        also=("reload_excludes",),
        needs="reload",
    )
    reload_delay: float = option(
        0.25, "Time that files must rest before a change counts.", group="workers", unit="seconds", ge=0, needs="reload"
    )

    # Process
    user: str | None = option(
        None,
        "User that the server becomes when its sockets are open, by name or number; started by root alone.",
        group="process",
    )
    group: str | None = option(
        None, "Group that it becomes; none is that of user.", group="process"
    )
    initgroups: bool = option(
        False, "Give it the other groups of user too; otherwise it has none.", group="process", needs="user"
    )
    umask: int | None = option(
        None,
        "What files that it makes do not allow, where nothing else says so; none leaves that as it is.",
        group="process",
        unit="octal",
        ge=0,
        le=0o777,
    )
    process_title: str | None = option(
        None, "What its processes are called in lists of processes; needs pounce-core[title].", group="process"
    )
    preload: bool = option(
        False,
        "Import the application once, and start processes as copies of that (fork): they share memory, and a reload"
        " brings nothing new.",
        group="process",
    )
    on_starting: Any = option(
        None,
        "Function that is called before sockets are opened, or module:attribute; it gets a ServerEvent.",
        group="process",
    )
    when_ready: Any = option(None, "The same, once connections are accepted.", group="process")
    on_reload: Any = option(None, "The same, when a reload is through.", group="process")
    worker_exit: Any = option(None, "The same, when a process of workers has ended.", group="process")
    on_exit: Any = option(None, "The same, at the end.", group="process")
