"""`pounce check`: everything that a start does, short of serving.

The application is imported, plugins are found, certificates are read, and a worker is put together with its middleware.
No socket is opened unless that is asked for, and the lifespan of the application does not run: it may begin what only
one server may do. What would end a start ends this with the same error and the same exit code.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator
from typing import NamedTuple

from pounce.config import ServerConfig
from pounce.errors import PounceError
from pounce.gil import gil_enabled
from pounce.idle_settings import idle_settings
from pounce.observe.logs import Logs, escaped_line
from pounce.supervisor.modes import check_workers, mode_of, workers_of
from pounce_cli.flags import Given
from pounce_cli.sources import app_of, config_of, find, naming_places

__all__ = ["check"]


class Found(NamedTuple):
    """What one look has found; `warning` where it works and may not be meant."""

    what: str
    detail: str
    warning: bool = False


def check(given: Given, *, sockets: bool, as_json: bool) -> None:
    """Print what was found. Raises the `PounceError` that a start would end with."""
    found: list[Found] = []
    try:
        for each in _look(given, sockets=sockets):
            found.append(each)
            if not as_json:
                print(escaped_line(f"{'note' if each.warning else 'ok':<5} {each.what:<14} {each.detail}"))
                sys.stdout.flush()
    except PounceError as exc:
        if not as_json:
            raise
        error = {"message": exc.message, "code": exc.code, "hint": exc.hint}
        _print_json(found, error)
        raise SystemExit(exc.exit_code) from exc
    if as_json:
        _print_json(found, None)


def _print_json(found: list[Found], error: dict[str, str | None] | None) -> None:
    print(json.dumps({"ok": error is None, "found": [each._asdict() for each in found], "error": error}, indent=2))


def _look(given: Given, *, sockets: bool) -> Iterator[Found]:
    settings = find(given)
    app, config = app_of(given, settings), config_of(given, settings)
    places = [*settings.settings.values(), *filter(None, [settings.app])]
    origins = {at.origin.partition(":")[0] for at in places if not at.origin.startswith("-")}
    yield Found("configuration", ", ".join(sorted(origins)) or "defaults and the command line")
    with naming_places(settings.settings):
        yield from _start(app, config, sockets=sockets)


def _start(app: str, config: ServerConfig, *, sockets: bool) -> Iterator[Found]:
    from pounce.net.bind import binds_of, open_listeners
    from pounce.net.tls import with_certificate
    from pounce.supervisor.privileges import Privileges
    from pounce.supervisor.server_hooks import ServerHooks
    from pounce.worker.loop import import_loop, loop_factory, run_on_new_loop
    from pounce.worker.shared import prepare
    from pounce.worker.worker import Worker

    if idle := idle_settings(config):
        yield Found("configuration", f"these settings do nothing: {idle}", warning=True)
    binds = ", ".join(bind.place for bind in binds_of(config))
    # Its files are opened by a start alone, but what it is made of has to be there.
    with Logs(dataclasses.replace(config, error_log_file=None, access_log_file=None)):
        pass
    import_loop(config.loop)
    check_workers(config)
    Privileges.of(config)
    made = with_certificate(config) if config.ssl_self_signed else config
    shared = prepare(made, app)
    description = shared.describe()
    yield Found("plugins", ", ".join(entry.name for entry in shared.registry.loaded if not entry.skipped))
    for entry in shared.registry.loaded:
        if entry.skipped:
            yield Found("plugins", f"{entry.name} is skipped: {entry.skipped}", warning=True)
    if config.ssl_self_signed:
        yield Found("TLS", "a certificate for development")
    elif shared.tls is not None:
        yield from _certificates(config)
    application = shared.application()
    ServerHooks(config)
    yield Found("application", f"{app} is imported")
    if gil_enabled() and _free_threaded():
        yield Found("GIL", f"it is on again: {app} or what it imports switched it on", warning=True)

    async def build() -> None:
        Worker(made, application, shared.registry, [], shared.tls, admission=shared.admission)

    run_on_new_loop(build, loop_factory(config.loop))
    number = workers_of(config)
    yield Found("workers", f"{number} ({mode_of(config)}), {', '.join(description.wires)}, {description.http_parser}")
    if sockets:
        for listener in open_listeners(config):
            listener.close()
        yield Found("sockets", f"{binds} can be opened")
    else:
        yield Found("sockets", f"{binds}, not opened")


def _certificates(config: ServerConfig) -> Iterator[Found]:
    from datetime import UTC, datetime
    from pathlib import Path

    from pounce.net.not_after import not_after

    assert config.ssl_certfile is not None
    days = (not_after(_first(Path(config.ssl_certfile).read_text())) - datetime.now(UTC).timestamp()) / 86400
    yield Found("TLS", f"{config.ssl_certfile} is valid for {days:.0f} days", warning=days < 14)


def _first(text: str) -> str:
    end = "-----END CERTIFICATE-----"
    return text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)] + "\n"


def _free_threaded() -> bool:
    return "t" in sys.abiflags
