"""What flags and values of other servers are here: uvicorn, gunicorn, hypercorn, granian, daphne, bengal-pounce.

Asked only for what is no flag or value of ours; where a name is in these tables, no hint goes by its spelling. A flag
that is a setting of ours by another name is in `peers`, and here only where more than the name is to be said. A letter
that is one thing for one server and another for the next is in `SHARED` as well, which goes by the value.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["COMMANDS", "FLAGS", "OF_COMMANDS", "SHARED", "VALUES", "about_flag", "about_flag_of_command"]

_VARIABLES = "Write --env-file FILE, or set them before the start."
_STDERR = "Not there: what an application prints goes where the server's own stdout and stderr go."
_SYSLOG = "Write --error-log-file syslog, or syslog:host:port?facility=local0&tag=name."
_LOGGING = "Not there: --log-config names loggers, handlers and formatters, of your own too."
_STATSD = "Write --statsd-address host:port; --statsd-format dogstatsd has labels as tags."
_METRICS = "Write --metrics-enabled: Prometheus reads --metrics-path on the addresses of the server."
_USER = "Write --user and --group. A socket file: --bind unix:/path?user=x&group=y."
_STRICT = "Not there, because a request is read in one way only: what two readers could take for two things is refused."
_STATIC = "Write --static-files /path=folder; --static-index-file and other flags say how."
_TASKS = "Not there: long work belongs into a queue of tasks, with processes of its own."
_ONE_RUNTIME = "Not there, because there is no runtime beside the event loop; --workers gives each core one of its own."
_TITLE = "Write --process-title."
_REPLACED = "Not there, because several workers always do so: one that dies is replaced, up to 5 times in 60 s."
_RELOAD_STAYS = "Not there, because it is always so: while the new version cannot start the old one serves on."
_NO_PASTE = "Not there: name the application as module:attribute, or a function that makes it as module:create()."
_NO_HTTP2_SWITCH = "HTTP/2 is spoken where pounce-h2 is installed; --disable-plugin h2 leaves it out."
_NO_WS_SWITCH = "WebSocket is spoken where pounce-ws is installed; --disable-plugin ws leaves it out."
_COLORS = "Not there: the variables NO_COLOR and FORCE_COLOR decide."
_NO_CGI = "Not there, because ASGI has no variables that fields could collide in."
_FOLDER = "Start in that folder, or give that of the application with --app-dir."
_PATIENT = "Not there, because an application may take its time after http.disconnect."
_FORWARDED = "Not there: trusted proxies are read by X-Forwarded-*, with --forwarded-real-ip by X-Real-IP too."
_JITTER = "Write --recycle-jitter: per cent, of max_requests and the other reasons to replace a worker."
_CLIENT_CERTIFICATES = "Write --ssl-cert-reqs none, optional or required, with --ssl-ca-certs."
_NO_PINGS = "Not there: --keep-alive-timeout ends connections without requests, --write-timeout those that stall."
_THREADS = "Write --wsgi-threads for a WSGI application; --workers are threads themselves where the GIL is off."
_MODE = "Write --worker-mode thread, process or subinterpreter; the event loop is --loop."
_SILENCE = "Write --worker-timeout: how long an event loop may stand still. An answer has --app-timeout."
_UMASK = "Write --umask; --uds-permissions is the mode of the Unix socket itself."
_DAEMON = "Not there: systemd, a container or & run a server in the background; --pid-file tells its process id."
_HEAD_SIZE = "Write --max-header-size: of the request line and the fields together."
_HELP = "Not there: pounce --help lists the commands, pounce serve --help the flags."
_STDIO = "Not needed: processes of the server have its stdout and stderr."
_CHECK = "Write pounce check; pounce config show has every setting."
_EACH_CPU = "Write 0: one for each CPU that the process may use."
_NO_OUTPUT = "Not there: pounce config show prints TOML, pounce status and pounce plugins take --json."
_NO_FILE = "Not there: send the output on with >file."

FLAGS = {
    # uvicorn
    "--ws": f"Not needed: {_NO_WS_SWITCH}",
    "--ws-max-queue": "Not there, because bytes count: up to 64 KiB of messages wait for the application.",
    "--limit-max-requests-jitter": _JITTER,
    "--timeout-worker-healthcheck": _SILENCE,
    "--ssl-version": "Write --ssl-minimum-version 1.2 or 1.3.",
    "--reset-contextvars": "Not needed: each request has a context of its own.",
    "--no-reset-contextvars": "Not there, because each request has a context of its own.",
    # gunicorn
    "-c": "Write --config FILE; it is TOML, see pounce config show.",
    "-k": _MODE,
    "--worker-class": _MODE,
    "--threads": _THREADS,
    "--worker-connections": "Write --max-connections: of the whole server.",
    "--max-requests-jitter": _JITTER,
    "-t": _SILENCE,
    "--timeout": _SILENCE,
    "--graceful-timeout": "Write --shutdown-timeout.",
    "--keep-alive": "Write --keep-alive-timeout.",
    "--limit-request-line": _HEAD_SIZE,
    "--limit-request-fields": "Write --max-headers.",
    "--limit-request-field_size": _HEAD_SIZE,
    "--reload-engine": "Not there: watchfiles is used where it is installed.",
    "--reload-extra-file": "Write --reload-include, and --reload-dir for a folder outside that of the application.",
    "--spew": "Not there: python -m trace --trace shows every line that is run.",
    "--check-config": _CHECK,
    "--print-config": _CHECK,
    "--no-sendfile": "Not there, because the server sends files by the kernel only where the application asks for it.",
    "-D": _DAEMON,
    "--daemon": _DAEMON,
    "-e": _VARIABLES,
    "--env": _VARIABLES,
    "-p": "Write --pid-file.",
    "--pid": "Write --pid-file.",
    "--worker-tmp-dir": "Not needed: workers say that they live without a file.",
    "-u": _USER,
    "-g": _USER,
    "-m": _UMASK,
    "--access-logfile": "Write --access-log-file; --no-access-log leaves the access log out.",
    "--access-logformat": "Write --access-log-format, which takes the same values.",
    "--error-logfile": "Write --error-log-file.",
    "--log-file": "Write --error-log-file.",
    "--capture-output": _STDERR,
    "--logger-class": _LOGGING,
    "--log-config-json": "Write --log-config, which takes a file in JSON too.",
    "--log-syslog": _SYSLOG,
    "--log-syslog-to": _SYSLOG,
    "--log-syslog-prefix": _SYSLOG,
    "--log-syslog-facility": _SYSLOG,
    "--disable-redirect-access-to-syslog": "Write --access-log-file, which can be another place.",
    "-R": _STDIO,
    "--enable-stdio-inheritance": _STDIO,
    "--statsd-host": _STATSD,
    "--dogstatsd-tags": _STATSD,
    "--enable-backlog-metric": _STATSD,
    "-n": _TITLE,
    "--name": _TITLE,
    "--pythonpath": "Write --app-dir for one folder, or set PYTHONPATH.",
    "--paste": _NO_PASTE,
    "--paster": _NO_PASTE,
    "--paste-global": _NO_PASTE,
    "--proxy-allow-from": "Write --proxy-protocol-from.",
    "--protocol": "Not there, because only HTTP is spoken, not uWSGI's protocol.",
    "--uwsgi-allow-from": "Not there, because only HTTP is spoken, not uWSGI's protocol.",
    "--keyfile": "Write --ssl-keyfile.",
    "--certfile": "Write --ssl-certfile.",
    "--cert-reqs": _CLIENT_CERTIFICATES,
    "--ca-certs": "Write --ssl-ca-certs.",
    "--ciphers": "Write --ssl-ciphers.",
    "--suppress-ragged-eofs": "Not needed: clients that end without close_notify are taken for ended.",
    "--do-handshake-on-connect": "Not needed: nobody waits for the handshake of another.",
    "--http-protocols": f"Not there: {_NO_HTTP2_SWITCH} --http3 adds HTTP/3.",
    "--http2-cleartext": "Not needed: prior knowledge is understood; --h2-upgrade lets clients change by Upgrade.",
    "--http2-max-concurrent-streams": "Write --h2-max-concurrent-streams.",
    "--http2-initial-window-size": "Write --h2-stream-window.",
    "--http2-max-frame-size": "Write --h2-max-frame-size.",
    "--http2-max-header-list-size": "Write --max-header-size.",
    "--permit-obsolete-folding": _STRICT,
    "--strip-header-spaces": _STRICT,
    "--permit-unconventional-http-method": "Not needed: a method is any token, and the application gets it.",
    "--permit-unconventional-http-version": _STRICT,
    "--casefold-http-method": "Not there, because methods are case-sensitive (RFC 9110 9.1).",
    "--forwarder-headers": _NO_CGI,
    "--header-map": _NO_CGI,
    "--asgi-loop": "Write --loop.",
    "--asgi-lifespan": "Write --lifespan.",
    "--asgi-disconnect-grace-period": _PATIENT,
    "--dirty-app": _TASKS,
    "--dirty-workers": _TASKS,
    "--dirty-timeout": _TASKS,
    "--dirty-threads": _TASKS,
    "--dirty-graceful-timeout": _TASKS,
    "--control-socket-mode": "Not there, because the control socket is for its owner alone.",
    "--no-control-socket": "Write --control-socket off.",
    # hypercorn
    "--error-log": "Write --error-log-file.",
    "--insecure-bind": "Write --bind http://HOST:PORT: a bind without TLS beside those with it.",
    "--read-timeout": "Write --request-timeout: between two pieces of a body.",
    "--keyfile-password": "Write --ssl-keyfile-password-file, or --ssl-keyfile-password.",
    "--server-name": "Write --server-names.",
    "--verify-mode": _CLIENT_CERTIFICATES,
    # granian
    "--no-ws": f"Write --disable-plugin ws. {_NO_WS_SWITCH}",
    "--blocking-threads": "Write --executor-threads-per-worker.",
    "--blocking-threads-idle-timeout": "Not there: threads for calls stay until the worker ends.",
    "--runtime-threads": _ONE_RUNTIME,
    "--runtime-blocking-threads": _ONE_RUNTIME,
    "--runtime-mode": _ONE_RUNTIME,
    "--task-impl": _ONE_RUNTIME,
    "--backpressure": "Write --limit-concurrency, for all workers together.",
    "--http1-buffer-size": "Write --max-header-size; of a body no more than 64 KiB is read ahead of the application.",
    "--http1-header-read-timeout": "Write --header-timeout: seconds, or 500ms.",
    "--http1-keep-alive": "Not needed: connections are kept. --keep-alive-timeout says how long.",
    "--no-http1-keep-alive": "Write --max-requests-per-connection 1.",
    "--http1-pipeline-flush": "Not needed: answers to requests that come together leave together.",
    "--no-http1-pipeline-flush": "Not there, because answers to requests that come together leave together.",
    "--http2-adaptive-window": "Not there: --h2-stream-window and --h2-connection-window say how much may wait.",
    "--no-http2-adaptive-window": "Not needed: --h2-stream-window and --h2-connection-window say how much may wait.",
    "--http2-initial-connection-window-size": "Write --h2-connection-window.",
    "--http2-initial-stream-window-size": "Write --h2-stream-window.",
    "--http2-keep-alive-interval": _NO_PINGS,
    "--http2-keep-alive-timeout": _NO_PINGS,
    "--http2-max-headers-size": "Write --max-header-size.",
    "--http2-max-send-buffer-size": "Not there, because send() waits until the client takes what is there.",
    "--log": "Not needed: --log-level says how much is logged.",
    "--no-log": "Write --log-level critical.",
    "--access-log-fmt": "Write --access-log-format; docs/logging.md has the values.",
    "--ssl-certificate": "Write --ssl-certfile.",
    "--ssl-protocol-min": "Write --ssl-minimum-version 1.2 or 1.3.",
    "--ssl-ca": "Write --ssl-ca-certs.",
    "--ssl-client-verify": _CLIENT_CERTIFICATES,
    "--no-ssl-client-verify": _CLIENT_CERTIFICATES,
    "--url-path-prefix": "Write --root-path.",
    "--respawn-failed-workers": _REPLACED,
    "--no-respawn-failed-workers": _REPLACED,
    "--respawn-interval": _REPLACED,
    "--rss-sample-interval": "Not there: with --max-rss memory is looked at every second or so.",
    "--rss-samples": "Not there: with --max-rss one look is enough.",
    "--workers-lifetime": "Write --max-lifetime.",
    "--workers-max-rss": "Write --max-rss: bytes, or 512MiB.",
    "--workers-kill-timeout": "Write --shutdown-timeout: a few seconds later who has not ended is killed.",
    "--working-dir": _FOLDER,
    "--env-files": _VARIABLES,
    "--static-path-route": _STATIC,
    "--static-path-mount": _STATIC,
    "--static-path-dir-to-file": "Write --static-index-file.",
    "--static-path-expires": "Write --static-cache-control 'public, max-age=SECONDS'.",
    "--metrics": _METRICS,
    "--no-metrics": "Not needed: there are none without --metrics-enabled.",
    "--metrics-address": _METRICS,
    "--metrics-port": _METRICS,
    "--metrics-scrape-interval": _METRICS,
    "--reload-paths": "Write --reload-dir.",
    "--reload-ignore-dirs": "Write --reload-exclude.",
    "--reload-ignore-paths": "Write --reload-exclude.",
    "--reload-ignore-patterns": "Write --reload-exclude: patterns as of files, not regular expressions.",
    "--reload-tick": "Write --reload-delay: how long files must rest.",
    "--reload-ignore-worker-failure": _RELOAD_STAYS,
    "--no-reload-ignore-worker-failure": _RELOAD_STAYS,
    "--process-name": _TITLE,
    # daphne
    "--websocket_timeout": "Not there: --websocket-idle-timeout ends WebSockets on which nothing happens.",
    "--websocket_connect_timeout": "Not there, because an application may take its time to accept a WebSocket.",
    "--endpoint": "Write --bind host:port, unix:/path or fd://NUMBER: what is written for Twisted is not read.",
    "--log-fmt": _LOGGING,
    "--websocket-max-frame-size": "Write --websocket-max-message-size: of the message, whatever its frames.",
    "--application-close-timeout": _PATIENT,
    "--proxy-headers-host": _FORWARDED,
    "--proxy-headers-port": _FORWARDED,
    # bengal-pounce
    "--format": _NO_OUTPUT,
    "--output-format": _NO_OUTPUT,
    "--llms-txt": _HELP,
    "--mcp": _HELP,
    "--mcp-install": _HELP,
    "--mcp-uninstall": _HELP,
    "--completions": "Write pounce completion bash, zsh, fish or powershell.",
    "-v": "Write pounce --version for the versions, --log-level debug for a longer log.",
    "--verbose": "Write --log-level debug.",
    "-q": "Write --log-level warning and --signage off.",
    "--quiet": "Write --log-level warning and --signage off.",
    "--no-color": _COLORS,
    "--dry-run": _CHECK,
    "-o": _NO_FILE,
    "--output-file": _NO_FILE,
    "--force": "Not there: pounce config init alone has it, as nothing else writes over what is there.",
}  # fmt: skip
"""What to write instead, or why there is nothing of the kind."""

OF_COMMANDS = {
    ("config schema", "--output-format"): "Not there: it prints JSON. pounce config init --print prints TOML.",
    ("init", "--directory"): "Write the folder alone: pounce init FOLDER.",
    ("init", "--force"): "Not there, because what is there is never written over.",
}
"""The same where it depends on the command."""

COMMANDS = {
    "start": "Write pounce serve.",
}
"""The same for the first word."""

VALUES = {
    ("log_level", "trace"): "debug is the least severe level.",
    ("log_level", "notset"): "debug is the least severe level.",
    ("log_level", "warn"): "Did you mean warning?",
    ("log_level", "fatal"): "Did you mean critical?",
    ("log_level", "10"): "Did you mean debug?",
    ("log_level", "20"): "Did you mean info?",
    ("log_level", "30"): "Did you mean warning?",
    ("log_level", "40"): "Did you mean error?",
    ("log_level", "50"): "Did you mean critical?",
    ("interface", "rsgi"): "RSGI is not there: serve the ASGI side of the application, which auto finds.",
    ("interface", "asginl"): "Write asgi, with --lifespan off.",
    ("interface", "asgi2"): "Not there: asgiref.compatibility.guarantee_single_callable(app) makes ASGI 3 of it.",
    ("interface", "uwsgi"): "Only HTTP is spoken, not uWSGI's protocol; an application of WSGI is wsgi.",
    ("workers", "auto"): _EACH_CPU,
    ("workers", "max"): _EACH_CPU,
    ("lifespan", "true"): "Did you mean on?",
    ("lifespan", "false"): "Did you mean off?",
    ("port", "auto"): "Write 0: the system takes a port that is free.",
    ("ssl_minimum_version", "tls1.2"): "Did you mean 1.2?",
    ("ssl_minimum_version", "tls1.3"): "Did you mean 1.3?",
}
"""The same by setting and value."""


class Meaning(NamedTuple):
    """What a letter means for some of the servers that have it."""

    servers: str
    instead: str
    """What is to be written for it."""
    values: str
    """The values that it certainly has this meaning with, as a pattern."""
    more: str = ""
    """What is to be said beside, where the meaning is certain."""


SHARED = {
    "-p": (
        Meaning("gunicorn and hypercorn", "--pid-file", r".*[^\d].*"),
        Meaning("daphne", "--port", r"\d+"),
    ),
    "-u": (
        Meaning(
            "gunicorn and hypercorn", "--user and --group", r"\d+", "A socket file: --bind unix:/path?user=x&group=y."
        ),
        Meaning("daphne", "--uds", r".*/.*|.*\.sock"),
    ),
    "-e": (
        Meaning("gunicorn", "--env-file FILE, or set them before the start", r"\w+=.*"),
        Meaning(
            "daphne",
            "--bind host:port, unix:/path or fd://NUMBER",
            r"(ssl|tls|tcp6?|unix|fd|systemd):.*",
            "What is written for Twisted is not read; TLS is --ssl-certfile and --ssl-keyfile.",
        ),
    ),
    "-t": (
        Meaning("gunicorn", "--worker-timeout: how long an event loop may stand still", r"(?!)"),
        Meaning("daphne", "--app-timeout: how long an answer may take", r"(?!)"),
    ),
    "-n": (
        Meaning("gunicorn", "--process-title", r"[^:]+"),
        Meaning("bengal-pounce", "pounce check", r""),
    ),
    "-v": (
        Meaning("gunicorn", "pounce --version", r"(?!)"),
        Meaning("daphne", "--log-level: warning for 0, info for 1, debug for more", r"\d+"),
        Meaning("bengal-pounce", "--log-level debug", r"(?!)"),
    ),
}  # fmt: skip
"""Letters of which servers differ."""


def about_flag(word: str, following: str = "") -> str | None:
    """What is to be said of a flag of another server, which may have its value attached (`-w4`) or in the `following`
    word; None of a stranger."""
    flag, equals, value = word.partition("=")
    if not flag.startswith("--"):
        if flag[2:]:
            flag, equals, value = word[:2], "=", word[2:]
        if flag in SHARED:
            return _by_value(SHARED[flag], value if equals else "" if following.startswith("-") else following)
    return _answer(word.partition("=")[0]) or _answer(flag)


def about_flag_of_command(command: str, flag: str, names: Sequence[str]) -> str | None:
    """What is to be said of a flag of bengal-pounce that is no setting; None of a stranger. `names` are the flags that
    the command has."""
    if (command, flag) in OF_COMMANDS:
        return OF_COMMANDS[command, flag]
    if flag in ("--format", "--output-format"):
        return "Write --json, or neither for text." if "--json" in names else _NO_OUTPUT
    return {"-o": _NO_FILE, "--output-file": _NO_FILE, "--no-color": _COLORS}.get(flag)


def _by_value(meanings: tuple[Meaning, ...], value: str) -> str:
    certain = [each for each in meanings if re.fullmatch(each.values, value, re.DOTALL)]
    if len(certain) == 1:
        return " ".join(filter(None, [f"Write {certain[0].instead}.", certain[0].more]))
    return "Write " + ", or ".join(f"{each.instead} (for that of {each.servers})" for each in meanings) + "."


def _answer(flag: str) -> str | None:
    if flag in FLAGS:
        return FLAGS[flag]
    from pounce_cli.flags import flag_of
    from pounce_cli.peers import SERVERS

    found = (server.of_flag(flag) for server in SERVERS.values())
    return next((f"Write {flag_of(each.setting)}." for each in found if each is not None and each.setting), None)
