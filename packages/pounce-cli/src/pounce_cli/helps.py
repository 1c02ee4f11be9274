"""What the help says of each command, in the groups in which `pounce --help` lists them."""

from cyclopts import Group

__all__ = ["GROUPS", "HELPS"]

_NAMES = ("Serving", "A server that runs", "Looking", "Beginning")
_GROUPS = {name: Group(name, sort_key=place) for place, name in enumerate(_NAMES)}

HELPS = {
    "serve": """Serve an ASGI application, or the files of a folder.

The application is module:attribute, or module:factory() for a function that makes it. \
Times may have a unit (500ms, 30s, 5m), and so may sizes (64KiB, 16MiB, 1GB).

What is not given here may be in the environment (POUNCE_PORT for --port), else in pounce.toml, or in the table \
tool.pounce of pyproject.toml.

Exit codes: 0 stopped, 1 forced or unexpected, 2 configuration, 3 start-up of the application, 4 its import, \
5 sockets, 6 TLS, 7 plugins, 130 interrupted.

For example:

pounce serve main:app

pounce serve main:create --factory --workers 4 --bind '[::]:8000'

pounce serve main:app --reload --log-level debug
""",
    "check": """Do everything that a start does, short of serving: import the application, read certificates, build.

It takes the flags of pounce serve. No socket is opened unless --sockets is given, and the lifespan of the application \
does not run.

Exit codes: 0 it would start, else what the start would end with: 2 configuration, 4 import of the application, \
5 sockets, 6 TLS, 7 plugins.

For example:

pounce check main:app

pounce check main:app --sockets --port 80
""",
    "run": """Run a program that starts uvicorn, with this server in its place.

uvicorn.run(), uvicorn.Config and uvicorn.Server mean pounce in that program. Settings in POUNCE_ variables and in the \
configuration file stand above what the program says.

For example:

pounce run program.py --its --own arguments

pounce run -m package

POUNCE_PORT=9000 pounce run program.py
""",
    "status": """Show how a running server does: workers, connections, requests, what was counted.

The exit code is 0 while a process serves, 1 while none does: at the start, and in the drain at the end.

For example:

pounce status

pounce status --control-socket /run/app.ctl --json
""",
    "top": """Watch a running server: rates, latencies, connections, memory, events.

For example:

pounce top --interval 2

pounce top --once --json
""",
    "workers": """Have a running server add workers, or take some away.

For example:

pounce workers +1

pounce workers -2 --control-socket /run/app.ctl
""",
    "reload": """Have a running server start with new processes; the old ones go on until those serve.

For example:

pounce reload

pounce reload --control-socket /run/app.ctl
""",
    "stop": """Have a running server finish its requests and end.

For example:

pounce stop

pounce stop --control-socket /run/app.ctl
""",
    "config": """Look at the configuration: show every setting, print its schema, begin a file.

For example:

pounce config show --workers 4

pounce config schema >pounce.schema.json

pounce config init
""",
    "plugins": """Show the installed plugins, what they bring, and why one is skipped.

For example:

pounce plugins

pounce plugins --json
""",
    "info": """Show versions, Python, machine, and what is installed.

For example:

pounce info

pounce info --json
""",
    "doctor": """Look for what on this machine stands in the way of a server with these settings.

It takes the flags of pounce serve, and names for each finding what was seen, why it matters, and what to type: \
limits, queues of the kernel, certificates, proxies and balancers in front, the GIL, the clock, control groups. With \
an application it says whether that can be imported, and which module switches the GIL on. Nothing is changed.

Exit codes: 0 no problem, 1 one or more, 2 settings that are wrong.

For example:

pounce doctor main:app

pounce doctor --config pounce.toml --json
""",
    "bench": """Measure how fast an application is served, alone or beside other servers.

Each server is started on the application, and measured twice: as fast as it goes, and at a constant rate, where \
latencies count from when a request was due (no coordinated omission). Load and server share this machine: compare \
servers by it, and do not take it for what a machine can do.

For example:

pounce bench main:app

pounce bench main:app --compare uvicorn,granian --html report.html

pounce bench --url http://127.0.0.1:8000/ --protocol h2 --depth 10 --rate 5000 --json
""",
    "init": """Make the folder of a new application, with settings and a test; or of a new plugin.

For example:

pounce init hello

pounce init . --docker

pounce init --plugin gopher --kind wire
""",
    "migrate": """Say what a command line or a configuration of another server is here.

It reads command lines of uvicorn, gunicorn, hypercorn, granian, daphne and bengal-pounce, gunicorn.conf.py, \
configurations of hypercorn, and the command lines in a Procfile, a Dockerfile or a unit of systemd. It prints \
pounce.toml: with the command in its comments, and what has no equivalent, and why.

For example:

pounce migrate gunicorn -k uvicorn.workers.UvicornWorker -w 4 main:app

pounce migrate gunicorn.conf.py >pounce.toml

pounce migrate --write uvicorn main:app --port 80 --proxy-headers
""",
    "completion": """Print what has a shell complete commands and flags.

For example:

source <(pounce completion bash)

pounce completion fish >~/.config/fish/completions/pounce.fish

pounce completion powershell | Out-String | Invoke-Expression
""",
}
"""By command; the first line is what the list of commands says."""

_MEMBERS = {
    "Serving": ("serve", "check", "run"),
    "A server that runs": ("status", "top", "workers", "reload", "stop"),
    "Looking": ("config", "plugins", "info", "doctor", "bench"),
    "Beginning": ("init", "migrate", "completion"),
}
GROUPS = {name: _GROUPS[title] for title, names in _MEMBERS.items() for name in names}
"""The group of each."""
