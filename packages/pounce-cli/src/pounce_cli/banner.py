"""What a terminal shows when the server has started."""

import sys

from rich.console import Console
from rich.text import Text

from pounce.config import ServerConfig
from pounce.cpus import usable_cpus
from pounce.observe.logs import escaped_line
from pounce.server import StartInfo

__all__ = ["show"]

MANY_CPUS = 4
"""From so many on it is worth saying that one worker uses one of them."""
_KINDS = {"thread": "threads", "process": "processes", "subinterpreter": "interpreters"}


def show(info: StartInfo, config: ServerConfig, *, minimal: bool) -> None:
    """Print the banner, or one line, on stderr, in one write."""
    console = Console(stderr=True, highlight=False)
    console.print(_line(info) if minimal else _banner(info, config), soft_wrap=True)


def _line(info: StartInfo) -> Text:
    urls, app = escaped_line("  ".join(info.urls)), escaped_line(info.display.name or info.app or "")
    return Text.assemble(("pounce ", "bold"), info.version, "  ", (urls, "cyan"), f"  {app}  pid {info.pid}")


def _banner(info: StartInfo, config: ServerConfig) -> Text:
    text = Text("\n")
    shown = info.display
    if shown.name:
        version = f" {escaped_line(shown.version)}" if shown.version else ""
        text.append_text(Text.assemble("  ", (escaped_line(shown.name), "bold"), version, "\n"))
    for line in (*([shown.tagline] if shown.tagline else []), *shown.lines):
        text.append_text(Text.assemble("  ", (escaped_line(line), "dim"), "\n"))
    if shown.name or shown.tagline or shown.lines:
        text.append("\n")
    text.append_text(Text.assemble("  ", ("pounce", "bold"), f" {info.version}"))
    if info.app:
        text.append_text(Text.assemble("  serving ", (escaped_line(info.app), "bold")))
    text.append("\n\n")
    for url in info.urls:
        text.append_text(Text.assemble("  ", (escaped_line(url), "bold cyan"), "\n"))
    text.append("\n")
    for name, value, style in _rows(info, config):
        text.append_text(Text.assemble("  ", (f"{name:<11}", "dim"), (escaped_line(value), style), "\n"))
    for hint in _hints(info, config):
        text.append_text(Text.assemble("\n  ", ("Hint: ", "dim"), hint, "\n"))
    return text.append_text(Text("\n  Press Ctrl+C to stop\n", "dim"))


def _rows(info: StartInfo, config: ServerConfig) -> list[tuple[str, str, str]]:
    workers = "1 worker" if info.workers == 1 else f"{info.workers} workers in {_KINDS[info.worker_mode]}"
    rows = [
        ("Python", f"{info.python}, {_gil(info)}", "yellow" if info.gil and _free_threaded() else ""),
        ("Process", f"{info.pid}, {workers}", ""),
        ("Protocols", f"{', '.join(_protocols(info, config))} (HTTP/1.1 parser {info.http_parser})", ""),
        ("TLS", "on" if info.tls else "off", ""),
    ]
    if config.trusted_hosts and config.proxy_headers:
        all_of_them = "*" in config.trusted_hosts
        rows.append(("Proxies", f"trusted: {', '.join(config.trusted_hosts)}", "yellow" if all_of_them else ""))
    if config.debug:
        rows.append(("Debug", f"on, its pages for {', '.join(config.debug_hosts)}", "yellow"))
    if paths := _paths(config):
        rows.append(("Paths", ", ".join(paths), ""))
    if config.reload:
        rows.append(("Reload", f"on, watching {', '.join(config.reload_dirs) or config.app_dir}", ""))
    return rows


def _paths(config: ServerConfig) -> list[str]:
    """What the server itself answers."""
    return [
        *(["/livez", "/readyz"] if config.probes else []),
        *([config.health_check_path] if config.health_check_path is not None else []),
        *([config.metrics_path] if config.metrics_enabled else []),
        *([config.status_page_path] if config.status_page_enabled else []),
        *([config.introspection_path] if config.introspection_enabled else []),
    ]


def _protocols(info: StartInfo, config: ServerConfig) -> tuple[str, ...]:
    return (*info.wires, "h3") if config.http3_enabled else info.wires


def _hints(info: StartInfo, config: ServerConfig) -> list[str]:
    """What may be worth another start; nothing where somebody is just writing the application."""
    if config.reload or config.debug:
        return []
    cpus = usable_cpus()
    if info.workers == 1 and cpus >= MANY_CPUS:
        return [f"one worker uses one of {cpus} CPUs; --workers 0 uses all."]
    return []


def _gil(info: StartInfo) -> str:
    if not _free_threaded():
        return "with the GIL"
    return "free-threaded, but the GIL is on" if info.gil else "free-threaded, GIL off"


def _free_threaded() -> bool:
    return "t" in sys.abiflags
