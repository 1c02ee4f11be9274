"""The commands beside a running server, for the parsing library: what each takes, and its help.

What they do is in a module of each, which is imported when its command is asked for.
"""

from typing import Annotated, Literal

from cyclopts import App, Group, Parameter

__all__ = ["MIGRATE_HELP", "add_tools", "separated"]

LOOKING = Group("Looking", sort_key=3)
MOVING = Group("Moving in", sort_key=5)

MIGRATE_HELP = """Say what a command line or a configuration of another server is here.

It reads command lines of uvicorn, gunicorn, hypercorn, granian, daphne and bengal-pounce, gunicorn.conf.py, \
configurations of hypercorn, and the command lines in a Procfile, a Dockerfile or a unit of systemd. It prints \
pounce.toml: with the command in its comments, and what has no equivalent, and why.

Examples:

pounce migrate gunicorn -k uvicorn.workers.UvicornWorker -w 4 main:app

pounce migrate gunicorn.conf.py >pounce.toml

pounce migrate --write uvicorn main:app --port 80 --proxy-headers
"""

RUN_HELP = """Run a program that starts uvicorn, with this server in its place.

uvicorn.run(), uvicorn.Config and uvicorn.Server mean pounce in that program. Settings in POUNCE_ variables and in the \
configuration file stand above what the program says.

Examples:

pounce run program.py --its --own arguments

pounce run -m package

POUNCE_PORT=9000 pounce run program.py
"""

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


def add_tools(app: App) -> None:
    """Add them."""
    app.command(_bench, name="bench", help=BENCH_HELP, group=LOOKING)
    app.command(_info, name="info", help="Show versions, Python, machine, and what is installed.", group=LOOKING)
    app.command(_run, name="run", help=RUN_HELP, group=MOVING)
    app.command(_migrate, name="migrate", help=MIGRATE_HELP, group=MOVING)


def _info(*, as_json: Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")] = False) -> None:
    from pounce_cli.info import show_info

    show_info(as_json=as_json)


BENCH_HELP = """Measure how fast an application is served, alone or beside other servers.

Each server is started on the application, and measured twice: as fast as it goes, and at a constant rate, where \
latencies count from when a request was due (no coordinated omission). Load and server share this machine: compare \
servers by it, and do not take it for what a machine can do.

Examples:

pounce bench main:app

pounce bench main:app --compare uvicorn,granian --html report.html

pounce bench --url http://127.0.0.1:8000/ --protocol h2 --depth 10 --rate 5000 --json
"""


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
