"""Command lines and configurations of other servers become ours, and what has no equivalent is named."""

import json
import os
import re
import runpy
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest

from pounce.config import ServerConfig
from pounce_cli import plain_line
from pounce_cli.flags import Given, spellings
from pounce_cli.foreign import FLAGS
from pounce_cli.main import main
from pounce_cli.migrate import answer_to, migrate, of_words, setting_of
from pounce_cli.peers import SERVERS, Server, Theirs, all_flags
from pounce_cli.sources import config_of

LINES: dict[str, tuple[str | None, dict[str, object]]] = {
    "uvicorn main:app": ("main:app", {}),
    "uvicorn main:app --host 0.0.0.0 --port 80 --workers 4": (
        "main:app", {"host": "0.0.0.0", "port": 80, "workers": 4}),
    "uvicorn --port=80 main:app --reload --reload-dir src --reload-dir lib": (
        "main:app", {"port": 80, "reload": True, "reload_dirs": ("src", "lib")}),
    "uvicorn main:create --factory --log-level trace --no-access-log": (
        "main:create", {"factory": True, "log_level": "debug", "access_log": False}),
    "uvicorn main:app --fd 3 --host 0.0.0.0": ("main:app", {"bind": ("fd://3",)}),
    "uvicorn main:app --uds /run/a.sock --port 9": ("main:app", {"uds": "/run/a.sock"}),
    "uvicorn main:app --ssl-certfile c --ssl-keyfile k --ssl-cert-reqs 2 --ssl-ca-certs a --ssl-version 17": (
        "main:app", {"ssl_certfile": "c", "ssl_keyfile": "k", "ssl_cert_reqs": "required", "ssl_ca_certs": "a"}),
    "uvicorn main:app --ssl-certfile c --ssl-keyfile k --ssl-ca-certs a": (
        "main:app", {"ssl_certfile": "c", "ssl_keyfile": "k"}),
    "uvicorn main:app --ws none --no-server-header --header X-A:1 --header X-B:2": (
        "main:app", {"disable_plugin": ("ws",), "server_header": "", "headers": ("X-A:1", "X-B:2")}),
    "uvicorn main:app --limit-max-requests 1000 --limit-max-requests-jitter 101 --ws-per-message-deflate false": (
        "main:app", {"max_requests": 1000, "recycle_jitter": 11, "websocket_compression": False}),
    "uvicorn main:app --forwarded-allow-ips 10.0.0.0/8,::1 --interface asgi3 --timeout-graceful-shutdown 3": (
        "main:app", {"trusted_hosts": ("10.0.0.0/8", "::1"), "interface": "asgi", "shutdown_timeout": 3.0}),
    "UVICORN_PORT=90 WEB_CONCURRENCY=3 exec /srv/venv/bin/python3.14t -m uvicorn main:app": (
        "main:app", {"port": 90, "workers": 3}),
    "uv run uvicorn main:app --port 1": ("main:app", {"port": 1}),
    "gunicorn -w4 -k uvicorn.workers.UvicornWorker -b :80 -b unix:/run/a.sock main:app": (
        "main:app", {"workers": 4, "interface": "asgi", "bind": ("0.0.0.0:80", "unix:/run/a.sock")}),
    "gunicorn a:b --no-control-socket": ("a:b", {"control_socket": "off"}),
    "gunicorn -Rw 4 a:b": ("a:b", {"workers": 4}),
    "gunicorn mysite.wsgi": ("mysite.wsgi:application", {}),
    "gunicorn 'mysite:create()' -k sync": ("mysite:create()", {"interface": "wsgi", "wsgi_threads": 1}),
    "gunicorn mysite:app -k gthread --threads 8 --bind 0.0.0.0:80,[::]:81": (
        "mysite:app", {"wsgi_threads": 8, "bind": ("0.0.0.0:80", "[::]:81")}),
    "gunicorn a:b --timeout 60": ("a:b", {"app_timeout": 60.0}),
    "gunicorn a:b -k sync --threads 1 -t 60": ("a:b", {"interface": "wsgi", "wsgi_threads": 1, "app_timeout": 60.0}),
    "gunicorn a:b --timeout 60 --threads 8": ("a:b", {"worker_timeout": 60.0, "wsgi_threads": 8}),
    "gunicorn a:b --timeout 60 -k gthread": ("a:b", {"worker_timeout": 60.0}),
    "gunicorn a:b --timeout 60 -k uvicorn.workers.UvicornWorker": (
        "a:b", {"worker_timeout": 60.0, "interface": "asgi"}),
    "gunicorn a:b --graceful-timeout 20 --keep-alive 3 --access-logfile - --error-logfile e.log --pid p": (
        "a:b", {"shutdown_timeout": 20.0, "keep_alive_timeout": 3.0, "access_log_file": "-",
                "error_log_file": "e.log", "pid_file": "p"}),
    "gunicorn a:b --http2-max-concurrent-streams 50 --grace 20": (
        "a:b", {"h2.max_concurrent_streams": 50, "shutdown_timeout": 20.0}),
    "hypercorn main -b 0.0.0.0 --insecure-bind :80 --certfile c --keyfile k": (
        "main:app", {"bind": ("0.0.0.0:8000", "http://0.0.0.0:80"), "ssl_certfile": "c", "ssl_keyfile": "k"}),
    "hypercorn asgi:src/main:app --verify-mode CERT_REQUIRED --ca-certs a --certfile c --keyfile k": (
        "src.main:app", {"interface": "asgi", "ssl_cert_reqs": "required", "ssl_ca_certs": "a", "ssl_certfile": "c",
                         "ssl_keyfile": "k"}),
    "granian --interface asgi main:app --http1-header-read-timeout 500 --workers-max-rss 512 --workers-lifetime 6h": (
        "main:app", {"interface": "asgi", "header_timeout": 0.5, "max_rss": 512 * 1024**2, "max_lifetime": 21600.0}),
    "GRANIAN_PORT=81 granian main --no-ws --static-path-route /s --static-path-mount public --no-http1-keep-alive": (
        "main:app", {"port": 81, "disable_plugin": ("ws",), "static_files": {"/s": "public"},
                     "max_requests_per_connection": 1}),
    "daphne -b 0.0.0.0 -p 8001 -t 60 mysite.asgi:application --no-server-name": (
        "mysite.asgi:application", {"host": "0.0.0.0", "port": 8001, "app_timeout": 60.0, "server_header": ""}),
    "pounce serve --app main:app --no-compression --reload-include html,.css --reload": (
        "main:app", {"compression": False, "reload_include": ("*.html", "*.css"), "reload": True}),
}  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_line_of_another_server_is_that_of_ours(line: str) -> None:
    app, settings = LINES[line]
    migration = migrate([line])
    assert (migration.app, migration.settings) == (app, settings)


@pytest.mark.parametrize("line", LINES)
def test_command_and_file_say_the_same(line: str, tmp_path: Path) -> None:
    migration = migrate([line])
    assert migration.command[:2] == ["pounce", "serve"]
    words = plain_line.read(migration.command[2:]) or None
    if words is None:
        # An empty value, which only the library reads.
        from pounce_cli import commands

        read: list[Given] = []
        commands.run(migration.command[1:], serve=read.append)
        [words] = read
    (tmp_path / "pounce.toml").write_text(migration.toml())
    assert config_of(words) == config_of(Given(config=str(tmp_path / "pounce.toml")))


WITHOUT = {
    "uvicorn main:app --loop zuvloop --ws-max-queue 9 --interface asgi2": ["--loop zuvloop", "--ws-max-queue",
                                                                            "--interface asgi2"],
    "gunicorn a:b -k gevent --worker-tmp-dir /tmp": ["-k gevent", "--worker-tmp-dir"],
    "gunicorn a:create(1)": ["a:create(1)"],
    "hypercorn a:b -k trio": ["-k trio"],
    "granian --interface rsgi a:b --ssl-protocol-min tls1.0 --http 2": [
        "--interface rsgi", "--ssl-protocol-min tls1.0", "--http 2"],
    "daphne a:b -e ssl:443 --log-fmt x": ["-e", "--log-fmt"],
    "SECRET=1 uvicorn main:app": ["SECRET"],
    "uvicorn main:app --port many": ["--port many"],
    "gunicorn a:b --max-requests many --max-requests-jitter 5": ["--max-requests-jitter", "--max-requests many"],
}  # fmt: skip


@pytest.mark.parametrize("line", WITHOUT)
def test_what_has_no_equivalent_is_named_with_a_reason(line: str) -> None:
    remarks = migrate([line]).remarks
    assert [each.what for each in remarks] == WITHOUT[line]
    assert all(each.why.endswith(".") for each in remarks)


def test_gunicorn_s_own_file_is_run_and_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(
        "import multiprocessing\n"
        "bind = ['0.0.0.0:80', 'unix:/run/a.sock']\n"
        "workers = 1 + 2\n"
        "worker_class = 'uvicorn.workers.UvicornWorker'\n"
        "daemon = False\n"
        "accesslog = '-'\n"
        "wsgi_app = 'main:app'\n"
        "tmp_upload_dir = None\n"
        "def post_fork(server, worker):\n    pass\n"
    )
    migration = migrate(["gunicorn.conf.py"])
    assert migration.app == "main:app"
    assert migration.settings == {
        "bind": ("0.0.0.0:80", "unix:/run/a.sock"),
        "workers": 3,
        "interface": "asgi",
        "access_log_file": "-",
    }
    assert [each.what for each in migration.remarks] == ["post_fork"]
    # It is read without being named, and the line is nearer.
    assert migrate(["gunicorn", "-w", "7"]).settings["workers"] == 7


def test_timeout_of_gunicorn_has_a_note_that_fits_its_workers() -> None:
    notes = {
        line: [each.why for each in of_words(line.split()).notes]
        for line in ("gunicorn a:b -t 60", "gunicorn a:b -t 60 -k asgi")
    }
    assert notes == {
        "gunicorn a:b -t 60": ["The client gets 504; no worker is ended, and a thread goes on until its view returns."],
        "gunicorn a:b -t 60 -k asgi": [
            "How long an event loop may stand still; of sync workers it is --app-timeout."
        ],
    }


def test_hypercorn_s_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "h.toml").write_text(
        'bind = ["0.0.0.0:443"]\ninsecure_bind = "0.0.0.0:80"\ncertfile = "c"\nkeyfile = "k"\n'
        'loglevel = "DEBUG"\nkeep_alive_max_requests = 9\nverify_flags = "VERIFY_X509_STRICT"\nfoo = 1\n'
    )
    migration = migrate(["hypercorn", "-c", "h.toml", "main:app"])
    assert migration.settings == {
        "bind": ("0.0.0.0:443", "http://0.0.0.0:80"),
        "ssl_certfile": "c",
        "ssl_keyfile": "k",
        "log_level": "debug",
        "max_requests_per_connection": 9,
    }
    assert [each.what for each in migration.remarks] == ["verify_flags", "foo"]
    assert migrate(["h.toml"]).settings == migration.settings


@pytest.mark.parametrize(
    ("name", "text"),
    [("Procfile", "release: true\nweb: gunicorn -w 2 main:app\n"),
     ("app.service", "[Service]\nExecStart=/srv/bin/uvicorn main:app \\\n  --workers 2\n"),
     ("Dockerfile", 'FROM python\nCMD ["uvicorn", "main:app", "--workers", "2"]\n')],
)  # fmt: skip
def test_line_is_found_in_the_file_that_has_it(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    migration = migrate([name])
    assert (migration.app, migration.settings) == ("main:app", {"workers": 2})


IMAGES = {
    'ENTRYPOINT ["uvicorn"]\nCMD ["main:app", "--port", "80"]': ({"port": 80}, []),
    'entrypoint ["uvicorn", \\\n# of the image\n"main:app"]\nCMD ["--port", "1"]\nCMD ["--port", "2"]': (
        {"port": 2}, []),
    'ENTRYPOINT ["tini", "--"]\nCMD ["uvicorn", "main:app", "--port", "3"]': ({"port": 3}, []),
    'ENTRYPOINT ["python", "-m"]\nCMD ["uvicorn", "main:app", "--port", "3"]': ({"port": 3}, []),
    'ENTRYPOINT ["tini", "--"]\nCMD uvicorn main:app --port 4': ({"port": 4}, []),
    'ENTRYPOINT exec uvicorn main:app --port 5\nCMD ["--port", "6"]': ({"port": 5}, ['CMD ["--port", "6"]']),
    'ENTRYPOINT ["uvicorn", "main:app"]\nCMD --port 7': ({}, ["CMD --port 7"]),
    'CMD ["uvicorn", "main:app"]\nCMD ["gunicorn", "main:app", "--workers", "2"]': ({"workers": 2}, []),
    'CMD ["uvicorn", "main:app", "--port", "1"]\nFROM python\nCMD ["uvicorn", "main:app", "--port", "8"]': (
        {"port": 8}, []),
    'ENTRYPOINT ["uvicorn", "main:app"]\nFROM base\nCMD ["--port", "9"]': ({"port": 9}, []),
    'CMD ["x", "y"]\nFROM base\nENTRYPOINT ["uvicorn", "main:app"]': ({}, []),
    'CMD ["uvicorn", "main:app", "--port", "9"]\nFROM nginx\nCMD ["nginx"]': ({"port": 9}, []),
}  # fmt: skip
"""What stands in a Dockerfile behind the first line, the settings, and what is not taken over."""


@pytest.mark.parametrize("text", IMAGES)
def test_command_of_an_image_is_what_docker_makes_of_both_instructions(text: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM python AS base\n{text}\n")
    migration = migrate(["Dockerfile"])
    found = migration.app, migration.settings, [each.what for each in migration.remarks]
    assert found == ("main:app", *IMAGES[text])


def test_flag_is_answered_as_that_of_its_own_server() -> None:
    for line, flag in {
        "daphne a:b -e ssl:443:privateKey=key.pem": "--endpoint",
        "gunicorn a:b -e X=1": "--env",
        "pounce serve a:b -n": "--dry-run",
    }.items():
        assert [each.why for each in migrate([line]).remarks] == [FLAGS[flag]], line


@pytest.mark.parametrize("server", SERVERS.values(), ids=lambda server: server.name)
def test_answer_does_not_depend_on_the_spelling_of_a_flag(server: Server) -> None:
    for option in server.options:
        assert len({answer_to(option, flag) for flag in option.flags}) <= 1, option.key


def test_limit_of_requests_is_not_said_to_have_them_wait() -> None:
    # Nobody waits without request_queue_enabled.
    [note] = migrate(["uvicorn main:app --limit-concurrency 10"]).notes
    assert "wait" not in note.why


@pytest.mark.parametrize(
    ("words", "said"),
    [(["nginx"], "begins with no server that is known"), (["uvicorn", "a:b", "--prot", "1"], "no option --prot"),
     (["gunicorn", "-c", "gone.py"], "gone.py cannot be read"), (["uvicorn 'a"], "is no command line"),
     (["pounce", "serve", "--config", "pounce.toml"], "a file of this server too"),
     (["gone.toml"], "there is no file gone.toml"), (["gunicorn.conf.py"], "there is no file gunicorn.conf.py"),
     (["Procfile"], "there is no file Procfile"), (["./x.service"], "there is no file ./x.service"),
     (["deploy/Dockerfile"], "there is no file deploy/Dockerfile")],
)  # fmt: skip
def test_what_cannot_be_read_is_an_error(capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    assert main(["migrate", *words]) == 2
    assert said in capsys.readouterr().err


def test_configuration_that_fails_says_how(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("1 / 0\n")
    assert main(["migrate", "gunicorn.conf.py"]) == 2
    assert "gunicorn.conf.py cannot be run: ZeroDivisionError" in capsys.readouterr().err


def test_output_is_a_file_that_serves(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["migrate", "uvicorn", "main:app", "--workers", "4", "--ws-max-queue", "1", "--uds", "a"]) == 0
    text = capsys.readouterr().out
    assert tomllib.loads(text) == {"app": "main:app", "workers": 4, "uds": "a"}
    assert "# Start with: pounce serve\n" in text
    assert "# Or without this file: pounce serve main:app --workers 4 --uds a\n" in text
    assert f"#   --ws-max-queue: {FLAGS['--ws-max-queue']}\n" in text
    assert "# max_request_size = 0  # " in text


@pytest.mark.parametrize("text", ["a\nworkers = 9", "\x7f", "\U0001f600", "a\u2028b\r"])
def test_no_text_of_a_line_gets_out_of_its_place(capsys: pytest.CaptureFixture[str], text: str) -> None:
    line = ["uvicorn", f"main:{text}", "--env-file", text, "--uds", text]
    assert main(["migrate", *line]) == 0
    assert tomllib.loads(capsys.readouterr().out) == {"app": f"main:{text}", "env_file": [text], "uds": text}


def test_what_a_configuration_prints_is_not_in_the_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text("print('workers = 9')\nworkers = 2\n")
    assert main(["migrate", "gunicorn", "main:app"]) == 0
    assert tomllib.loads(capsys.readouterr().out) == {"app": "main:app", "workers": 2}


@pytest.mark.parametrize(("name", "text", "remark"), [
    ("gunicorn.conf.py", "worker_class = 5", "worker_class 5"),
    ("hypercorn.toml", "bind = 8000", "bind 8000"),
])  # fmt: skip
def test_value_of_another_kind_is_named(tmp_path: Path, name: str, text: str, remark: str) -> None:
    (tmp_path / name).write_text(text)
    assert [each.what for each in migrate([name]).remarks] == [remark]


def test_module_without_a_name_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "gunicorn", "-c", "python:", "a:b"]) == 2
    assert ".py cannot be read" in capsys.readouterr().err


def test_folders_of_static_files_are_in_the_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "--json", "granian", "main:app", "--static-path-mount", "public"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"] == {"static_files": {"/static": "public"}}


def test_file_is_written_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["migrate", "--write", "--same-defaults", "uvicorn", "main:app", "--port", "90"]) == 0
    assert capsys.readouterr().out == "pounce serve\n"
    config = config_of(Given(config="pounce.toml"))
    assert (config.port, config.max_request_size, config.trusted_hosts) == (90, 0, ("127.0.0.1", "::1"))
    assert main(["migrate", "--write", "uvicorn", "main:app"]) == 2
    assert "pounce.toml is there already" in capsys.readouterr().err
    assert main(["migrate", "--write", "--force", "uvicorn", "main:app"]) == 0
    assert config_of(Given(config="pounce.toml")) == ServerConfig()


def test_files_of_variables_are_named_in_both(tmp_path: Path) -> None:
    migration = migrate(["granian main:app --env-files a.env --env-files b.env"])
    assert migration.command[3:] == ["--env-file", "a.env", "--env-file", "b.env"]
    assert tomllib.loads(migration.toml()) == {"app": "main:app", "env_file": ["a.env", "b.env"]}
    assert migration.remarks == []


def test_json_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "--json", "uvicorn", "main:app", "--port", "90", "--reset-contextvars"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["server"], found["app"], found["settings"]) == ("uvicorn", "main:app", {"port": 90})
    assert shlex.split(found["command"]) == ["pounce", "serve", "main:app", "--port", "90"]
    assert found["not_taken_over"] == [{"what": "--reset-contextvars", "why": FLAGS["--reset-contextvars"]}]


# The tables

NATIVE = {"help", "version", "app", "config"}
"""Those that mean the same, or nothing, wherever they are."""
BY_SERVER = pytest.mark.parametrize("server", SERVERS.values(), ids=lambda server: server.name)


def is_known(option: Theirs) -> bool:
    if option.setting is not None or (option.convert is None and option.why is None and option.key not in NATIVE):
        return setting_of(option) is not None or any(flag in FLAGS for flag in option.flags)
    return True


@BY_SERVER
def test_option_is_a_setting_or_is_answered(server: Server) -> None:
    assert [option for option in server.options if not is_known(option)] == []


@BY_SERVER
def test_answer_to_a_flag_names_the_setting_that_it_becomes(server: Server) -> None:
    for option in server.options:
        setting = setting_of(option)
        for flag in option.flags:
            # Of daphne it is the Server header.
            if setting is not None and flag.startswith("--") and flag in FLAGS and flag != "--server-name":
                answer = FLAGS[flag]
                assert any(f"{name} " in f"{re.sub('[.,:;=]', ' ', answer)} " for name in spellings(setting)), flag


def test_no_server_has_a_flag_or_a_key_twice() -> None:
    for server in SERVERS.values():
        flags, keys = all_flags(server), [option.key for option in server.options]
        assert (len(set(flags)), len(set(keys))) == (len(flags), len(keys))


@BY_SERVER
def test_defaults_of_another_server_are_values_of_ours(server: Server) -> None:
    ServerConfig.of({each.setting: each.value for each in server.defaults})


def test_pages_are_what_the_tables_say() -> None:
    script = Path(__file__).parents[3] / "scripts" / "migration-pages"
    found = runpy.run_path(str(script))
    for name in found["PAGES"]:
        written = (script.parents[1] / "docs" / f"coming-from-{name}.md").read_text()
        assert written == found["page"](name), "write them anew with scripts/migration-pages"
    assert {*found["PAGES"], "bengal-pounce"} == SERVERS.keys()


def test_words_of_the_command_line_are_of_the_other_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert of_words(["uvicorn", "a:b", "--help", "--version"]).settings == {}
    assert main(["migrate", "uvicorn", "a:b", "--version", "--host", "::"]) == 0
    assert 'host = "::"' in capsys.readouterr().out


# The programs themselves, where the environment of the benchmarks has them

FLAGS_OF = {
    "uvicorn": "from uvicorn.main import main\nfor each in main.params: print(*each.opts, *each.secondary_opts)",
    "gunicorn": (
        "from gunicorn.config import KNOWN_SETTINGS\n"
        "for each in KNOWN_SETTINGS: print(*(each.cli or ()))\n"
        "for each in KNOWN_SETTINGS: print('key', each.name)"
    ),
    "hypercorn": (
        "import re, subprocess, sys\n"
        "text = subprocess.run([sys.executable, '-m', 'hypercorn', '--help'], capture_output=True, text=True).stdout\n"
        "print(*re.findall(r'(?<![\\w-])--?[a-zA-Z][a-z-]*', text.partition('options:')[2]))"
    ),
    "granian": "from granian.cli import cli\nfor each in cli.params: print(*each.opts, *each.secondary_opts)",
}
"""What prints the flags of a program, and of gunicorn the names in its files."""


def environment_of_peers() -> Path | None:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pounce"
    found = sorted(cache.glob("bench-peers-*/bin/python"))
    return found[-1] if found else None


@pytest.mark.skipif(environment_of_peers() is None, reason="python -m benchmarks.load makes it")
@pytest.mark.parametrize("name", FLAGS_OF)
def test_every_flag_that_a_program_has_is_in_its_table(name: str) -> None:
    code = ["-c", FLAGS_OF[name]]
    ran = subprocess.run([str(environment_of_peers()), *code], capture_output=True, text=True, check=True)
    lines = [line.split() for line in ran.stdout.splitlines()]
    theirs = {word for line in lines if line[:1] != ["key"] for word in line if word.startswith("-")}
    # hypercorn's help mentions them in its texts.
    theirs -= {"--", "-R", "-"} if name == "hypercorn" else set()
    assert len(theirs) > 25
    assert theirs - {*all_flags(SERVERS[name])} == set()
    keys = {line[1] for line in lines if line[:1] == ["key"]}
    assert keys - {option.key for option in SERVERS[name].options} - {"wsgi_app"} == set()
