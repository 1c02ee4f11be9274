"""The command: what its words ask for, and where the results go."""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from pounce.errors import ConfigError
from pounce.observe.logs import escaped_line
from pounce_cli.bench.client import Request
from pounce_cli.bench.load import Plan
from pounce_cli.bench.measure import Order, Outcome, Progress, measure, measure_url, of_outcome
from pounce_cli.bench.report import as_text
from pounce_cli.errors import UsageError

__all__ = ["Asked", "bench"]


class Asked(NamedTuple):
    """The words of the command."""

    app: str | None
    url: str | None
    compare: tuple[str, ...]
    python: str
    workers: int
    plan: Plan
    protocol: str
    method: str
    path: str
    headers: tuple[str, ...]
    body: str | None
    as_json: bool
    html: str | None
    quiet: bool


def bench(asked: Asked) -> Outcome:
    """Measure, and print or write what came of it. Raises `ConfigError` and `LoadError`."""
    if (asked.app is None) == (asked.url is None):
        raise UsageError(
            "give an application or --url", hint="For example: pounce bench main:app, pounce bench --url http://host/"
        )
    if asked.url is not None and asked.compare:
        raise UsageError("--compare starts servers on an application, which --url does not name")
    progress = _silent if asked.quiet or asked.as_json else _shown
    if asked.url is not None:
        outcome = _of_url(asked, asked.url, progress)
    else:
        order = Order(_request(asked, "http", "", asked.path), asked.plan, asked.protocol, asked.workers)
        servers = [("pounce", sys.executable), *((name, asked.python) for name in asked.compare)]
        with _on_path():
            outcome = measure(order, str(asked.app), servers, progress)
    if asked.html is not None:
        from pounce_cli.bench.page import as_page

        Path(asked.html).write_text(as_page(outcome), encoding="utf-8")
    print(json.dumps(of_outcome(outcome), indent=2) if asked.as_json else as_text(outcome), end="")
    if asked.html is not None and not asked.as_json:
        print(escaped_line(f"Written: {asked.html}"))
    return outcome


@contextlib.contextmanager
def _on_path() -> Iterator[None]:
    """Servers that do not look in the current folder by themselves find the application there all the same."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.getcwd(), before]))
    try:
        yield
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _of_url(asked: Asked, url: str, progress: Progress) -> Outcome:
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as exc:
        raise ConfigError(f"{url!r} is no URL: {exc}") from exc
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"{url!r} is no URL of a server", hint="For example http://127.0.0.1:8000/")
    path = (parts.path or asked.path) + (f"?{parts.query}" if parts.query else "")
    order = Order(_request(asked, parts.scheme, parts.netloc, path), asked.plan, asked.protocol, asked.workers)
    return measure_url(order, parts.hostname, port, progress)


def _request(asked: Asked, scheme: str, authority: str, path: str) -> Request:
    headers = []
    for text in asked.headers:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise ConfigError(f"--header must be Name:Value (got {text!r})")
        headers.append((name.strip().lower(), value.strip()))
    body = _body(asked.body)
    method = asked.method or ("POST" if body else "GET")
    return Request(method.upper(), path, authority, scheme, tuple(headers), body)


def _body(text: str | None) -> bytes:
    if text is None:
        return b""
    if text.startswith("@"):
        try:
            return Path(text[1:]).read_bytes()
        except OSError as exc:
            raise ConfigError(f"the body {text[1:]} cannot be read: {exc.strerror or exc}") from exc
    if text.isdigit():
        return b"x" * int(text)
    return text.encode()


def _silent(what: str) -> None:
    return None


def _shown(what: str) -> Callable[[float, int], object] | None:
    """A bar on a terminal."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns: Sequence[Any] = (TextColumn("{task.description:<40}"), BarColumn(), TextColumn("{task.fields[answers]:,}"))
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=1.0, answers=0)
    bar.start()

    def progress(share: float, answers: int) -> None:
        bar.update(task, completed=share, answers=answers)
        if share >= 1.0:
            bar.stop()

    return progress
