"""What a terminal shows when the server has started."""

import sys

from rich.console import Console
from rich.text import Text

from pounce.observe.logs import escaped_line
from pounce.server import StartInfo

__all__ = ["show"]


def show(info: StartInfo, *, minimal: bool) -> None:
    """Print the banner, or one line, on stderr, in one write."""
    console = Console(stderr=True, highlight=False)
    console.print(_line(info) if minimal else _banner(info), soft_wrap=True)


def _line(info: StartInfo) -> Text:
    urls, app = escaped_line("  ".join(info.urls)), escaped_line(info.app or "")
    return Text.assemble(("pounce ", "bold"), info.version, "  ", (urls, "cyan"), f"  {app}  pid {info.pid}")


def _banner(info: StartInfo) -> Text:
    text = Text.assemble("\n  ", ("pounce", "bold"), f" {info.version}")
    if info.app:
        text.append_text(Text.assemble("  serving ", (escaped_line(info.app), "bold")))
    text.append("\n\n")
    for url in info.urls:
        text.append_text(Text.assemble("  ", (escaped_line(url), "bold cyan"), "\n"))
    text.append("\n")
    for name, value, style in _rows(info):
        text.append_text(Text.assemble("  ", (f"{name:<11}", "dim"), (value, style), "\n"))
    return text.append_text(Text("\n  Press Ctrl+C to stop\n", "dim"))


def _rows(info: StartInfo) -> list[tuple[str, str, str]]:
    workers = "1 worker" if info.workers == 1 else f"{info.workers} workers"
    return [
        ("Python", f"{info.python}, {_gil(info)}", "yellow" if info.gil and _free_threaded() else ""),
        ("Process", f"{info.pid}, {workers}", ""),
        ("Protocols", f"{', '.join(info.wires)} (HTTP/1.1 parser {info.http_parser})", ""),
        ("TLS", "on" if info.tls else "off", ""),
    ]


def _gil(info: StartInfo) -> str:
    if not _free_threaded():
        return "with the GIL"
    return "free-threaded, but the GIL is on" if info.gil else "free-threaded, GIL off"


def _free_threaded() -> bool:
    return "t" in sys.abiflags
