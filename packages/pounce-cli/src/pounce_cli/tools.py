"""The commands beside a running server, for the parsing library: what each takes, and its help.

What they do is in a module of each, which is imported when its command is asked for.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from cyclopts import Parameter

__all__ = ["TOOLS", "separated"]

RAW = {"migrate", "run"}
"""Commands that take the words of another program, which may begin with hyphens."""


def separated(words: list[str]) -> list[str]:
    """The words, with `--` in front of those that are another program's."""
    if words[:1] and words[0] in RAW:
        for place, word in enumerate(words[1:], 1):
            if word == "--":
                break
            if not word.startswith("-") or word == "-m":
                return [*words[:place], "--", *words[place:]]
    return words


def _info(*, as_json: Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")] = False) -> None:
    from pounce_cli.info import show_info

    show_info(as_json=as_json)


def _bench(
    app: Annotated[str | None, Parameter(name="APP", help="The application, for example main:app.")] = None,
    /,
    *,
    url: Annotated[str | None, Parameter(name="--url", help="Measure a server that runs instead.")] = None,
    compare: Annotated[
        tuple[str, ...], Parameter(name="--compare", negative=(), help="Others: uvicorn,granian.", metavar="NAMES")
    ] = (),
    python: Annotated[
        str | None, Parameter(name="--python", help="Interpreter of an environment that has them.", metavar="PATH")
    ] = None,
    workers: Annotated[int, Parameter(name="--workers", help="Workers of each server.")] = 1,
    duration: Annotated[str, Parameter(name="--duration", help="Time of each measurement.", metavar="TIME")] = "10s",
    warm_up: Annotated[str, Parameter(name="--warm-up", help="Time before it that is not counted.")] = "1s",
    connections: Annotated[int, Parameter(name="--connections", help="Connections in all.")] = 50,
    threads: Annotated[int, Parameter(name="--threads", help="Threads of the load; 0 is half of the CPUs.")] = 0,
    rate: Annotated[float, Parameter(name="--rate", help="Requests in a second; 0: half of what the slowest can.")] = 0,
    protocol: Annotated[Literal["h1", "h2"], Parameter(name="--protocol", help="HTTP/1.1 or HTTP/2.")] = "h1",
    depth: Annotated[
        int, Parameter(name="--depth", help="At once on a connection: pipelining, or streams of HTTP/2.")
    ] = 1,
    method: Annotated[str, Parameter(name="--method", help="GET, or POST with a body, unless given.")] = "",
    path: Annotated[str, Parameter(name="--path", help="What is asked for.")] = "/",
    header: Annotated[
        tuple[str, ...], Parameter(name="--header", negative=(), help="Field of each request, as Name:Value.")
    ] = (),
    body: Annotated[
        str | None, Parameter(name="--body", help="Text, @FILE, or a number of bytes.", metavar="BODY")
    ] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")] = False,
    html: Annotated[str | None, Parameter(name="--html", help="Write a page with charts.", metavar="FILE")] = None,
    quiet: Annotated[bool, Parameter(name="--quiet", negative=(), help="Show no progress.")] = False,
) -> None:
    import os
    import sys

    from pounce.errors import ConfigError
    from pounce_cli.bench.command import Asked, bench
    from pounce_cli.bench.load import Plan

    for name, number in (("connections", connections), ("depth", depth), ("workers", workers)):
        if number < 1:
            raise ConfigError(f"--{name} must be at least 1 (got {number})")
    if rate < 0 or threads < 0:
        raise ConfigError("--rate and --threads must not be below 0")
    threads = threads or max(1, (os.process_cpu_count() or 1) // 2)
    plan = Plan(_seconds("duration", duration), connections, threads, depth, rate, _seconds("warm-up", warm_up))
    names = tuple(name for text in compare for name in text.split(",") if name)
    bench(
        Asked(app, url, names, python or sys.executable, workers, plan, protocol, method, path, header, body, as_json,
              html, quiet)
    )  # fmt: skip


def _seconds(name: str, text: str) -> float:
    import re

    from pounce.errors import ConfigError

    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", text)
    if found is None or (name == "duration" and not float(found[1])):
        raise ConfigError(f"--{name} must be a time (got {text!r})", hint="For example 10s, 500ms or 2m.")
    return float(found[1]) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600, None: 1}[found[2]]


def _flag(name: str, help: str) -> Parameter:
    return Parameter(name=name, negative=(), help=help, show_default=False)


def _run(
    *words: Annotated[
        str, Parameter(name="PROGRAM", help="File, or -m and a module; then its arguments.", allow_leading_hyphen=True)
    ],
    config: Annotated[str | None, Parameter(name="--config", help="Configuration file.", metavar="FILE")] = None,
) -> None:
    from pounce_cli.program import run

    run(words, config)


def _migrate(
    *words: Annotated[
        str, Parameter(name="SERVER", help="Command line, or file, of another server.", allow_leading_hyphen=True)
    ],
    write: Annotated[bool, _flag("--write", "Write pounce.toml into this folder, and print the command.")] = False,
    force: Annotated[bool, _flag("--force", "Also over one that is there.")] = False,
    same_defaults: Annotated[bool, _flag("--same-defaults", "Set what that server had by default.")] = False,
    as_json: Annotated[bool, _flag("--json", "Print JSON.")] = False,
) -> None:
    import shlex
    from pathlib import Path

    from pounce.errors import ConfigError
    from pounce_cli.migrate import FILE, migrate, show

    migration = migrate(words)
    text = show(migration, source=shlex.join(words), same_defaults=same_defaults, as_json=as_json and not write)
    if not write:
        print(text, end="" if text.endswith("\n") else "\n")
        return
    path = Path(FILE)
    if path.exists() and not force:
        raise ConfigError(f"{FILE} is there already", hint="Add --force to write over it, or leave --write out.")
    path.write_text(text, encoding="utf-8")
    print("pounce serve" if migration.app else "pounce serve main:app")


TOOLS: dict[str, Callable[..., Any]] = {"bench": _bench, "info": _info, "run": _run, "migrate": _migrate}
"""Them by name."""
