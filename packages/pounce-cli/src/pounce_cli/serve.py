"""`pounce serve`: run the server, and show that it runs."""

import logging
import threading

from pounce.config import ServerConfig
from pounce.observe.logs import wants_json
from pounce.server import StartInfo, run
from pounce_cli.flags import Given, app_of
from pounce_cli.sources import config_of

__all__ = ["serve"]


def serve(given: Given) -> None:
    """Serve until the process is told to end. Raises a `PounceError` when it cannot start."""
    app, config = app_of(given), config_of(given)
    if config.signage == "off" or wants_json(config):
        run(app, config=config)
        return
    start = logging.getLogger("pounce")
    if config.error_log_file is None and config.log_config is None:
        start.addFilter(_is_not_the_start)
    try:
        run(app, config=config, on_ready=lambda info: _show(info, config))
    finally:
        start.removeFilter(_is_not_the_start)


def _is_not_the_start(record: logging.LogRecord) -> bool:
    """The banner says what the log line of the start does, and more."""
    event = getattr(record, "event", None)
    return not (isinstance(event, dict) and event.get("event") == "startup")


def _show(info: StartInfo, config: ServerConfig) -> None:
    """Print the banner beside the loop: it must not wait for the import of a library, or for a terminal."""

    def show() -> None:
        from pounce_cli.banner import show

        show(info, minimal=config.signage == "minimal")

    threading.Thread(target=show, name="pounce banner", daemon=True).start()
