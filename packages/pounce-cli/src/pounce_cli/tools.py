"""The commands beside a running server, for the parsing library: what each takes, and its help.

What they do is in a module of each, which is imported when its command is asked for.
"""

from typing import Annotated

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
    app.command(_info, name="info", help="Show versions, Python, machine, and what is installed.", group=LOOKING)
    app.command(_run, name="run", help=RUN_HELP, group=MOVING)
    app.command(_migrate, name="migrate", help=MIGRATE_HELP, group=MOVING)


def _info(*, as_json: Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")] = False) -> None:
    from pounce_cli.info import show_info

    show_info(as_json=as_json)


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
