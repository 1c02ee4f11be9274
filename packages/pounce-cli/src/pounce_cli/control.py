"""`pounce status`, `top`, `workers`, `reload` and `stop`: speak to a running server through its control socket."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pounce.config import ServerConfig
from pounce.contract.totals import METRICS
from pounce.errors import ConfigError, ReloadError, SupervisorError
from pounce.observe.logs import escaped_line
from pounce.supervisor.control import ask
from pounce.supervisor.control_folder import AUTO, OFF, is_named, running
from pounce_cli.flags import Given
from pounce_cli.sources import settings_of

__all__ = ["found_status", "reload", "resize", "socket_of", "status", "stop"]

PATIENCE = 10.0
"""Seconds in which a server says how it does."""


def socket_of(path: str | None, config: str | None) -> str:
    """The control socket that was named, else that of the settings, of which `config` is the file, else the only one
    of this user's servers that run.

    Raises `ConfigError` where there is none, or more than one.
    """
    if path is None:
        found = settings_of(Given(config=config)).get("control_socket")
        path = str(found.value) if found is not None else AUTO
    if is_named(path):
        # What the server would refuse is refused here too.
        ServerConfig(control_socket=path)
        return path
    if path == OFF:
        raise ConfigError("control_socket is off", hint="Name the server's own one by --control-socket.")
    found_ones = running()
    if not found_ones:
        raise ConfigError(
            "no server of this user runs that has a control socket",
            code="POUNCE_CONTROL_NO_SERVER",
            hint="If it was started with one of its own, by another user, or in a container, name that one by"
            " --control-socket, POUNCE_CONTROL_SOCKET, or control_socket in the configuration file.",
        )
    if len(found_ones) > 1:
        raise ConfigError(
            f"{len(found_ones)} servers run",
            code="POUNCE_CONTROL_SEVERAL",
            hint=f"Say which: {' or '.join(f'--control-socket {each}' for each in found_ones)}",
        )
    return found_ones[0]


def status(path: str, *, as_json: bool = False) -> int:
    """Print how the server does; an exit code, 0 while any of its processes serves. Raises `ConfigError` when no
    server answers at `path`."""
    found, lines = found_status(path, _lines)
    print(json.dumps(found, indent=2) if as_json else "\n".join(map(escaped_line, lines)))
    return 0 if any(process["state"] == "serving" for process in found["processes"]) else 1


def found_status[T](path: str, show: Callable[[dict[str, Any]], Iterable[T]]) -> tuple[dict[str, Any], list[T]]:
    """How the server does, and what `show` makes of that. Raises `ConfigError` when none answers at `path`, or its
    status is not what `show` takes."""
    answer = _ask(path, "status", timeout=PATIENCE)
    try:
        return answer["status"], list(show(answer["status"]))
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as exc:
        raise _is_no_server(path, "its status has another form") from exc


def _lines(found: dict[str, Any]) -> Iterator[str]:
    """A status for people, of which nothing is certain: raises whatever its form leads to."""
    yield f"pounce {found['version']}  pid {found['pid']}  {', '.join(found['urls'])}"
    yield f"up {found['uptime_seconds']:.0f} s, {_workers(found['workers'])} ({found['worker_mode']}), {found['state']}"
    yield f"{'process':>8}  {'state':<9} {'worker':>6} {'connections':>11} {'requests':>8} {'served':>10}  silent"
    for process in found["processes"]:
        for worker in process["workers"] or [None]:
            line = f"{process['pid']:>8}  {process['state']:<9}"
            if worker is not None:
                line += f" {worker['number']:>6} {worker['connections']:>11} {worker['requests']:>8}"
                line += f" {worker['served']:>10}  {worker['silence']:.1f} s"
            yield line
    # Those of metrics have labels, and are for Prometheus.
    counts = [(name, count) for name, count in found.get("counts", {}).items() if not name.startswith(METRICS)]
    counts.sort(key=lambda item: (-item[1], item[0]))
    yield from (f"{count:>12.0f}  {name}" for name, count in counts)


def reload(path: str) -> None:
    """Have the server reload, and wait until it has. Raises `SupervisorError` when it could not."""
    _ask(path, "reload")
    print("reloaded")


def resize(path: str, by: int) -> None:
    """Have the server add so many workers, or take away with a negative number. Raises `SupervisorError` when it
    cannot."""
    number = None
    for _ in range(abs(by)):
        number = _ask(path, "add-worker" if by > 0 else "remove-worker", timeout=PATIENCE).get("workers")
    print(_workers(number))


def _workers(number: int | None) -> str:
    return f"{number} worker" if number == 1 else f"{number} workers"


def stop(path: str) -> None:
    """Have the server end, and wait until it has."""
    _ask(path, "stop", until_end=True)
    print("stopped")


def _ask(path: str, command: str, **options: Any) -> dict[str, Any]:
    try:
        if command != "status":
            # What is told to end or to reload may take its time; who is no server says so at once.
            ask(path, "status", timeout=PATIENCE)
        answer = ask(path, command, **options)
    except OSError as exc:
        raise ConfigError(
            f"no server answers at {path}: {exc.strerror or exc}",
            code="POUNCE_CONTROL_NO_SERVER",
            hint="Start it with the same --control-socket, as the same user.",
        ) from exc
    except ValueError as exc:
        raise _is_no_server(path, str(exc)) from exc
    if not answer["ok"] and command == "reload":
        raise ReloadError(answer["error"])
    if not answer["ok"]:
        raise SupervisorError(answer["error"], code="POUNCE_CONTROL_FAILED")
    sys.stdout.flush()
    return answer


def _is_no_server(path: str, why: str) -> ConfigError:
    return ConfigError(
        f"what answers at {path} is no pounce server: {why}",
        code="POUNCE_CONTROL_NO_SERVER",
        hint="Give the path that the server was started with as --control-socket.",
    )
