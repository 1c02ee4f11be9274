"""Flags of other servers: each is answered by what it is here, or why it is not there."""

import re
from typing import Any

import pytest

from pounce.config import describe
from pounce_cli.commands import BUILT_IN
from pounce_cli.flags import flags, plugin_options, spellings, switched_off
from pounce_cli.foreign import COMMANDS, FLAGS, VALUES, about_flag
from pounce_cli.main import main

PEERS = {
    "uvicorn 0.54.0": """
        --access-log --app-dir --backlog --date-header --env-file --factory --fd --forwarded-allow-ips
        --h11-max-incomplete-event-size --header --help --host --http --http2 --interface --lifespan --limit-concurrency
        --limit-max-requests --limit-max-requests-jitter --log-config --log-level --loop --no-access-log
        --no-date-header --no-proxy-headers --no-server-header --no-use-colors --port --proxy-headers --reload
        --reload-delay --reload-dir --reload-exclude --reload-include --reset-contextvars --root-path --server-header
        --ssl-ca-certs --ssl-cert-reqs --ssl-certfile --ssl-ciphers --ssl-keyfile --ssl-keyfile-password --ssl-version
        --timeout-graceful-shutdown --timeout-keep-alive --timeout-worker-healthcheck --uds --use-colors --version
        --workers --ws --ws-max-queue --ws-max-size --ws-per-message-deflate --ws-ping-interval --ws-ping-timeout
    """,
    "gunicorn 27.0.1": """
        --access-logfile --access-logformat --asgi-disconnect-grace-period --asgi-lifespan --asgi-loop --backlog --bind
        --ca-certs --capture-output --casefold-http-method --cert-reqs --certfile --chdir --check-config --ciphers
        --config --control-socket --control-socket-mode --daemon --dirty-app --dirty-graceful-timeout --dirty-threads
        --dirty-timeout --dirty-workers --disable-redirect-access-to-syslog --do-handshake-on-connect --dogstatsd-tags
        --enable-backlog-metric --enable-stdio-inheritance --env --error-logfile --forwarded-allow-ips
        --forwarder-headers --graceful-timeout --group --header-map --help --http-parser --http-protocols
        --http2-cleartext --http2-initial-window-size --http2-max-concurrent-streams --http2-max-frame-size
        --http2-max-header-list-size --initgroups --keep-alive --keyfile --limit-request-field_size
        --limit-request-fields --limit-request-line --log-config --log-config-json --log-file --log-level --log-syslog
        --log-syslog-facility --log-syslog-prefix --log-syslog-to --logger-class --max-requests --max-requests-jitter
        --name --no-control-socket --no-sendfile --paste --paste-global --paster --permit-obsolete-folding
        --permit-unconventional-http-method --permit-unconventional-http-version --pid --preload --print-config
        --protocol --proxy-allow-from --proxy-protocol --pythonpath --reload --reload-engine --reload-extra-file
        --reuse-port --root-path --spew --ssl-version --statsd-host --statsd-prefix --strip-header-spaces
        --suppress-ragged-eofs --threads --timeout --umask --user --uwsgi-allow-from --version
        --websocket-max-message-size --worker-class --worker-connections --worker-tmp-dir --workers -D -R -b -c -e -g -h
        -k -m -n -p -t -u -v -w
    """,
    "hypercorn 0.18.0": """
        --access-log --access-logfile --access-logformat --backlog --bind --ca-certs --cert-reqs --certfile --ciphers
        --config --daemon --debug --error-log --error-logfile --graceful-timeout --group --help --insecure-bind
        --keep-alive --keyfile --keyfile-password --log-config --log-file --log-level --max-requests
        --max-requests-jitter --pid --quic-bind --read-timeout --reload --root-path --server-name --statsd-host
        --statsd-prefix --umask --user --verify-mode --websocket-ping-interval --worker-class --workers -D -b -c -g -h
        -k -m -p -u -w
    """,
    "granian 2.8.9": """
        --access-log --access-log-fmt --backlog --backpressure --blocking-threads --blocking-threads-idle-timeout
        --env-files --factory --help --host --http --http1-buffer-size --http1-header-read-timeout --http1-keep-alive
        --http1-pipeline-flush --http2-adaptive-window --http2-initial-connection-window-size
        --http2-initial-stream-window-size --http2-keep-alive-interval --http2-keep-alive-timeout
        --http2-max-concurrent-streams --http2-max-frame-size --http2-max-headers-size --http2-max-send-buffer-size
        --interface --log --log-config --log-level --loop --metrics --metrics-address --metrics-port
        --metrics-scrape-interval --no-access-log --no-factory --no-http1-keep-alive --no-http1-pipeline-flush
        --no-http2-adaptive-window --no-log --no-metrics --no-reload --no-reload-ignore-worker-failure
        --no-respawn-failed-workers --no-ssl-client-verify --no-ws --pid-file --port --process-name --reload
        --reload-ignore-dirs --reload-ignore-paths --reload-ignore-patterns --reload-ignore-worker-failure
        --reload-paths --reload-tick --respawn-failed-workers --respawn-interval --rss-sample-interval --rss-samples
        --runtime-blocking-threads --runtime-mode --runtime-threads --ssl-ca --ssl-certificate --ssl-client-verify
        --ssl-crl --ssl-keyfile --ssl-keyfile-password --ssl-protocol-min --static-path-dir-to-file
        --static-path-expires --static-path-mount --static-path-route --task-impl --uds --uds-permissions
        --url-path-prefix --version --workers --workers-kill-timeout --workers-lifetime --workers-max-rss --working-dir
        --ws
    """,
    "bengal-pounce 0.9.2": """
        --app --app-name --app-tagline --app-version --completions --config --cpu-affinity --debug --dry-run --force
        --format --header-timeout --health-check-path --help --host --http3 --keep-alive-timeout --llms-txt --log-format
        --log-level --max-requests-per-connection --mcp --mcp-install --mcp-uninstall --metrics --no-access-log
        --no-color --no-compression --no-http2 --output-file --output-format --port --quiet --reload --reload-dir
        --reload-include --request-timeout --root-path --server-timing --shutdown-timeout --signage --ssl-certfile
        --ssl-keyfile --startup-timeout --trusted-hosts --uds --verbose --version --worker-mode --workers
        --write-timeout -h -n -o -q -v -vv
    """,
}
"""What their --help lists."""
OPTIONS = (*flags(), *plugin_options(lambda plugin: True))
OURS = {
    *("--app", "--set", "--config", "--static", "--help", "-h", "--version"),
    *(flag for item in OPTIONS for flag in spellings(item)),
    *(switched_off(item) for item in OPTIONS if item.kind is bool),
}
ELSEWHERE = {"--json", "--trace", "--install-completion"}
"""Of other commands, ours and Python's."""


@pytest.mark.parametrize("peer", PEERS)
def test_every_flag_is_ours_or_is_answered(peer: str) -> None:
    assert [flag for flag in PEERS[peer].split() if flag not in OURS and about_flag(flag) is None] == []


def test_what_is_ours_is_answered_by_nobody_else() -> None:
    assert OURS & FLAGS.keys() == set()
    assert COMMANDS.keys() & set(BUILT_IN) == set()
    choices = {(item.name, choice) for item in describe() for choice in item.choices}
    assert choices & VALUES.keys() == set()
    assert {name for name, _ in VALUES} <= {item.name for item in describe()}


@pytest.mark.parametrize("flag", FLAGS)
def test_answer_names_what_there_is_or_says_that_there_is_nothing(flag: str) -> None:
    answer = FLAGS[flag]
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", answer))
    assert named <= OURS | ELSEWHERE
    assert answer.startswith(("Write --", "Write pounce ", "Not there", "Not needed: ", "Start in "))
    assert answer.endswith(".")


LINES = {
    "--env-file": "--env-file", "--env-file=.env": "--env-file", "--pid": "--pid", "--use-colors": "--use-colors",
    "-w": "-w", "-w4": "-w", "-b:8000": "-b", "-DR": "-D",
    "--timeout=30": "--timeout",
    "--no-server-header": "--no-server-header", "--limit-request-field_size": "--limit-request-field_size",
}  # fmt: skip
"""What is written, and the flag in the table that it is."""


@pytest.mark.parametrize("word", LINES)
@pytest.mark.parametrize("command", [["serve", "main:app"], ["config", "show"]])
def test_flag_of_another_server_has_its_hint_and_none_by_its_spelling(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, word: str, command: list[str]
) -> None:
    monkeypatch.setenv("POUNCE_LOG_FORMAT", "text")
    assert main([*command, word, "1"]) == 2
    said = capsys.readouterr().err
    assert f"there is no option {word.partition('=')[0]}" in said
    assert said.endswith(f"Hint: {FLAGS[LINES[word]]}\n")


def test_flag_of_nobody_has_a_hint_by_its_spelling(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "main:app", "--prot", "1"]) == 2
    assert "Did you mean --port?" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "value"), VALUES)
def test_value_of_another_server_has_its_hint(capsys: pytest.CaptureFixture[str], name: str, value: str) -> None:
    assert main(["serve", "main:app", "--" + name.replace("_", "-"), value]) == 2
    assert VALUES[name, value] in capsys.readouterr().err


@pytest.mark.parametrize("word", COMMANDS)
def test_command_of_another_server_has_its_hint(capsys: pytest.CaptureFixture[str], word: str) -> None:
    assert main([word]) == 2
    assert COMMANDS[word] in capsys.readouterr().err


def test_flag_before_the_command_is_told_its_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "8000", "main:app"]) == 2
    assert "pounce serve main:app --port" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "hint"),
    [("h1-fast", "Did you mean h1fast?"), ("H11", "Did you mean h11?"), ("httptools", "h1fast, of pounce-h1fast")],
)
def test_parser_that_is_not_there_has_a_hint(pounce: Any, name: str, hint: str) -> None:
    ended, said = pounce.fails("serve", "main:app", "--port", "0", "--http-parser", name, "--log-format", "text")
    assert ended == 2
    assert hint in said
