"""`pounce serve`: run the server, and show that it runs."""

import logging
import threading

from pounce.config import ServerConfig
from pounce.display import display_of
from pounce.observe.logs import wants_json
from pounce.server import StartInfo, run_alone
from pounce_cli.flags import Given
from pounce_cli.sources import Found, app_of, config_of, find, naming_places

__all__ = ["serve"]

log = logging.getLogger("pounce")


def serve(given: Given) -> None:
    """Serve until the process is told to end. Raises a `PounceError` when it cannot start."""
    found = find(given)
    app, config = app_of(given, found), config_of(given, found)
    with naming_places(found.settings):
        _serve(app, config, found)


def _serve(app: str, config: ServerConfig, found: Found) -> None:
    # What the application says of it is known when it is imported.
    if display_of(config).signage == "off" or wants_json(config):
        run_alone(app, config=config, on_ready=lambda info: _tell_ignored(found))
        return
    if config.error_log_file is None and config.log_config is None:
        log.addFilter(_is_not_the_start)
    try:
        run_alone(app, config=config, on_ready=lambda info: _on_ready(info, config, found))
    finally:
        log.removeFilter(_is_not_the_start)


def _is_not_the_start(record: logging.LogRecord) -> bool:
    """The banner says what the log line of the start does, and more."""
    event = getattr(record, "event", None)
    return not (isinstance(event, dict) and event.get("event") == "startup")


def _on_ready(info: StartInfo, config: ServerConfig, found: Found) -> None:
    _tell_ignored(found)
    _show(info, config)


def _tell_ignored(found: Found) -> None:
    if found.service_links:
        names = ", ".join(sorted(found.service_links))
        log.info("Variables that Kubernetes has for a Service are no settings, and are ignored: %s", names)


def _show(info: StartInfo, config: ServerConfig) -> None:
    """Print the banner beside the loop: it must not wait for the import of a library, or for a terminal."""

    def show() -> None:
        from pounce_cli.banner import show

        show(info, config, minimal=info.display.signage == "minimal")

    if info.display.signage == "off":
        log.info("Listening on %s", ", ".join(info.urls))
        return
    threading.Thread(target=show, name="pounce banner", daemon=True).start()
