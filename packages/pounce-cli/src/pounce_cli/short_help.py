"""`pounce serve -h`: the flags that most need, on one page; `--help` has all."""

from collections.abc import Iterator

from pounce_cli.flags import flags, shown_default, spellings, value_name

__all__ = ["short_help"]

MOST = (
    "host", "port", "bind", "uds", "workers", "worker_mode", "factory", "reload", "ssl_certfile", "ssl_keyfile",
    "http3_enabled", "trusted_hosts", "root_path", "static_files", "max_request_size", "keep_alive_timeout",
    "shutdown_timeout", "log_level", "access_log", "debug", "metrics_enabled", "probes",
)  # fmt: skip
"""Settings, in their order."""


def short_help(command: str) -> str:
    """The page for a command that takes flags of the server."""
    return "\n".join(_lines(command)) + "\n"


def _lines(command: str) -> Iterator[str]:
    known = {item.name: item for item in flags()}
    yield f"Usage: pounce {command} [APP] [OPTIONS]"
    yield ""
    yield "  APP is module:attribute, or module:factory(); without it, app in pounce.toml."
    yield ""
    for name in MOST:
        item = known[name]
        flag = min(spellings(item), key=len)
        value = "" if item.kind is bool else f" {value_name(item)}"
        default = shown_default(item)
        yield f"  {flag + value:<32} {item.help}" + (f" [{default}]" if default and item.kind is not bool else "")
    yield ""
    yield f"All {len(known)} flags, and examples: pounce {command} --help"
