"""`pounce doctor` finds what is wrong with a machine, and says what to type."""

import json
import resource
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from pounce.config import ServerConfig
from pounce_cli import doctor as doctor_module
from pounce_cli.doctor import LOOKS, Finding, Machine, examine
from pounce_cli.main import main

PEER = "0500000A"
"""10.0.0.5, as a machine with the low byte first writes it."""


def machine(root: Path, written: dict[str, str] | None = None, **fields: Any) -> Machine:
    """A machine on which nothing is wrong, but for these files."""
    good = {
        "proc/sys/net/core/somaxconn": "4096\n",
        "proc/self/cgroup": "0::/\n",
        "sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc\n",
        "proc/sys/fs/inotify/max_user_watches": "524288\n",
    }
    for path, text in (good | (written or {})).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    usual = {"environment": {}, "files": (1 << 20, 1 << 20), "is_installed": lambda name: name != "uvloop"}
    return Machine(root=root, **(usual | fields))


def found(config: ServerConfig, at: Machine) -> list[Finding]:
    """Without what this Python itself is to blame for."""
    return [each for look in LOOKS if look is not doctor_module.gil for each in look(config, at)]


def test_nothing_is_found_on_a_machine_that_is_well(tmp_path: Path) -> None:
    assert found(ServerConfig(), machine(tmp_path)) == []


ROW = "  0: 0100007F:1F40 {peer}:A000 01 00000000:00000000 00:00000000 00000000\n"
LISTS: list[tuple[dict[str, str], dict[str, Any], dict[str, Any], str, str, str]] = [
    ({}, {"files": (256, 256)}, {}, "problem", "256 files may be open", "LimitNOFILE=10064"),
    ({}, {"files": (1024, 1 << 20)}, {}, "advice", "1024 files may be open", "ulimit -n 10064"),
    ({"proc/sys/net/core/somaxconn": "128\n"}, {}, {}, "advice", "queues 128 connections", "net.core.somaxconn=2048"),
    ({"proc/net/netstat": "TcpExt: A ListenOverflows\nTcpExt: 1 7\n"}, {}, {}, "advice", "7 connections were dropped",
     "nstat"),
    ({}, {}, {"trusted_hosts": ("10.0.0.1",), "keep_alive_timeout": 20.0}, "problem", "ended after 20 s",
     "--trusted-keep-alive-timeout"),
    ({}, {"environment": {"DYNO": "web.1"}}, {}, "advice", "this is Heroku", "--trusted-hosts"),
    ({"proc/net/tcp": "head\n" + 12 * ROW.format(peer=PEER)}, {}, {},
     "advice", "12 of 12 connections", "--trusted-hosts"),
    ({"sys/devices/system/clocksource/clocksource0/current_clocksource": "hpet\n"}, {}, {}, "advice", "is hpet",
     "clocksource=tsc"),
    ({"run/systemd/timesync/empty": ""}, {}, {}, "advice", "not set by the network", "timedatectl"),
    ({}, {"is_installed": lambda name: False}, {"reload": True}, "advice", "watchfiles is not installed",
     "pip install watchfiles"),
    ({"proc/sys/fs/inotify/max_user_watches": "8192\n"}, {}, {"reload": True}, "advice", "8192 files may be watched",
     "sysctl"),
    ({}, {"is_installed": lambda name: False}, {"loop": "uvloop"}, "problem", "not installed", "pip install uvloop"),
    ({}, {"is_installed": lambda name: True}, {}, "advice", "uvloop is installed", "--loop asyncio"),
    ({}, {}, {"workers": 1000}, "advice", "1000 workers share", "--workers"),
    ({"sys/fs/cgroup/cpu.stat": "nr_throttled 9\n"}, {}, {}, "advice", "held up 9 times", "CPU limit"),
    ({"sys/fs/cgroup/memory.events": "oom 1\noom_kill 2\n"}, {}, {}, "problem", "ended 2 processes", "--max-rss"),
    ({"sys/fs/cgroup/memory.max": "268435456\n"}, {}, {}, "advice", "256 MiB of the control group",
     "--max-buffered 64MiB"),
    ({"sys/fs/cgroup/pids.max": "100\n", "sys/fs/cgroup/pids.current": "90\n"}, {}, {}, "problem", "90 of 100",
     "TasksMax"),
    ({}, {}, {"debug": True, "host": "0.0.0.0"}, "problem", "debug is on", "--no-debug"),
    ({}, {}, {"ssl_keylog": "keys"} | {"host": "0.0.0.0"}, "problem", "ssl_keylog is set", "leave it out"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "fields", "settings", "level", "what", "do"), LISTS, ids=[each[4] for each in LISTS])
def test_what_is_wrong_is_found_with_what_to_type(
    tmp_path: Path, files: Any, fields: Any, settings: Any, level: str, what: str, do: str
) -> None:
    [finding] = found(ServerConfig(**settings), machine(tmp_path, files, **fields))
    assert finding.level == level
    assert what in finding.what
    assert do in finding.do
    assert finding.why.endswith(".")


def test_proxy_that_is_trusted_is_nothing_to_say(tmp_path: Path) -> None:
    rows = {"proc/net/tcp": "head\n" + 12 * ROW.format(peer=PEER)}
    address = doctor_module._address(PEER)
    assert found(ServerConfig(trusted_hosts=(address,)), machine(tmp_path, rows)) == []


@pytest.mark.parametrize(
    ("text", "address"), [("0100007F", "127.0.0.1"), ("0000000000000000FFFF00000100007F", "127.0.0.1"),
                          ("00000000000000000000000001000000", "::1")],
)  # fmt: skip
def test_addresses_are_read_as_the_kernel_writes_them(text: str, address: str) -> None:
    assert doctor_module._address(text) == address


def test_unlimited_files_are_enough(tmp_path: Path) -> None:
    at = machine(tmp_path)
    at.files = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert found(ServerConfig(), at) == []


# Certificates

KEYS = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("authority", "site", "other")}
END = datetime(2040, 1, 1, tzinfo=UTC)


def certificate(subject: str, issuer: str) -> str:
    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    built = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(KEYS[subject].public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(END - timedelta(days=9000))
        .not_valid_after(END)
    )
    return built.sign(KEYS[issuer], hashes.SHA256()).public_bytes(Encoding.PEM).decode()


AUTHORITY, SITE, OTHER = (certificate(name, "authority") for name in KEYS)
BEFORE = END.timestamp() - 86400 * 100
CHAINS: list[tuple[str, int, float, list[str]]] = [
    (SITE + AUTHORITY, 0o600, BEFORE, []),
    (AUTHORITY, 0o600, BEFORE, []),
    (SITE, 0o600, BEFORE, ["who issued it is not in the file"]),
    (SITE + OTHER, 0o600, BEFORE, ["do not lead from one to the next"]),
    (SITE + AUTHORITY, 0o644, BEFORE, ["everybody on this machine can read"]),
    ("nothing", 0o600, BEFORE, ["has no certificate"]),
    (SITE + AUTHORITY, 0o600, END.timestamp() - 86400 * 3, ["expires in 3 days"]),
    (SITE + AUTHORITY, 0o600, END.timestamp() + 1, ["has expired"]),
]


@pytest.mark.parametrize(("chain", "mode", "now", "what"), CHAINS, ids=[str(each[3]) for each in CHAINS])
def test_certificates_are_looked_at(tmp_path: Path, chain: str, mode: int, now: float, what: list[str]) -> None:
    certfile, keyfile = tmp_path / "cert.pem", tmp_path / "key.pem"
    certfile.write_text(chain)
    keyfile.write_text("")
    keyfile.chmod(mode)
    config = ServerConfig(ssl_certfile=str(certfile), ssl_keyfile=str(keyfile))
    findings = found(config, machine(tmp_path, now=now))
    assert len(findings) == len(what)
    assert all(said in finding.what for said, finding in zip(what, findings, strict=True))


def test_each_file_of_a_certificate_is_looked_at_wherever_it_is_named(tmp_path: Path) -> None:
    good, bad, both = (tmp_path / name for name in ("good.pem", "bad.pem", "both.pem"))
    good.write_text(AUTHORITY)
    bad.write_text("nothing")
    both.write_text("nothing")
    for path in (good, bad, both):
        path.chmod(0o600)
    bind = f"127.0.0.1:19500?ssl_certfile={bad}&ssl_keyfile={bad}"
    at = machine(tmp_path, now=BEFORE)
    [finding] = found(ServerConfig(bind=(bind,)), at)
    assert finding.what == f"{bad} cannot be read: it has no certificate"
    usual: dict[str, Any] = {"ssl_certfile": str(good), "ssl_keyfile": str(good)}
    [finding] = found(ServerConfig(ssl_sni=(f"a={both}",), **usual), at)
    assert finding.what.startswith(f"{both} cannot be read")
    [finding] = found(ServerConfig(bind=(f"127.0.0.1:19500?ssl_sni=a={both}", "127.0.0.1:19501"), **usual), at)
    assert finding.what.startswith(f"{both} cannot be read")
    assert found(ServerConfig(bind=(f"{bind}&tls=off",)), at) == []


# Settings of binds


def test_proxy_that_one_bind_trusts_is_looked_at_with_the_times_of_that_bind(tmp_path: Path) -> None:
    trusted = "127.0.0.1:19500?trusted_hosts=10.0.0.1"
    for settings, what in (
        ({"bind": (trusted,), "keep_alive_timeout": 20.0}, " at 127.0.0.1:19500 are ended after 20 s"),
        ({"bind": (f"{trusted}&keep_alive_timeout=30s",)}, " at 127.0.0.1:19500 are ended after 30 s"),
        ({"bind": ("127.0.0.1:19500?proxy_protocol=on",)}, " are ended after 5 s"),
        # The setting of the server, where one bind has another.
        ({"bind": ("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3?keep_alive_timeout=75s"), "trusted_hosts": ("10.0.0.1",),
          "keep_alive_timeout": 20.0}, " are ended after 20 s"),
    ):  # fmt: skip
        [finding] = found(ServerConfig(**settings), machine(tmp_path))  # type: ignore[arg-type]
        assert (finding.level, finding.what) == ("problem", f"connections of the proxy in front{what}")
    enough = {"bind": (f"{trusted}&keep_alive_timeout=75s",), "keep_alive_timeout": 20.0}
    assert found(ServerConfig(**enough), machine(tmp_path)) == []  # type: ignore[arg-type]


def test_time_that_no_trusted_proxy_gets_is_not_taken_for_enough(tmp_path: Path) -> None:
    # Nobody is believed whose fields are not read.
    config = ServerConfig(trusted_hosts=("10.0.0.1",), proxy_headers=False, trusted_keep_alive_timeout=75.0)
    [finding] = found(config, machine(tmp_path))
    assert finding.what.endswith("are ended after 5 s")
    assert finding.do.startswith("--keep-alive-timeout 75s")


def test_what_a_bind_trusts_is_trusted_at_its_port(tmp_path: Path) -> None:
    rows = {"proc/net/tcp": "head\n" + 12 * ROW.format(peer=PEER)}
    address = doctor_module._address(PEER)
    at = machine(tmp_path, rows, environment={"DYNO": "web.1"})
    assert found(ServerConfig(bind=(f"127.0.0.1:8000?trusted_hosts={address}",)), at) == []
    [finding] = found(ServerConfig(bind=("127.0.0.1:8000", f"127.0.0.1:19500?trusted_hosts={address}")), at)
    assert "12 of 12 connections to port 8000" in finding.what


# The application


def test_module_that_switches_the_gil_on_is_named(tmp_path: Path) -> None:
    said = "The global interpreter lock (GIL) has been enabled to load module 'old.part', which has not declared"
    (tmp_path / "app_with_gil.py").write_text(f"import sys\nsys.stderr.write({said!r})\napp = print\n")
    at = machine(tmp_path, app="app_with_gil:app")
    [finding] = doctor_module.application(ServerConfig(app_dir=str(tmp_path)), at)
    assert finding.what == "old.part, which the application imports, switches the GIL on"


@pytest.mark.parametrize(
    ("app", "what", "do"),
    [("nomod:app", "there is no module 'nomod'", "Start in the folder of the application, or give it with --app-dir."),
     ("broken:app", "broken could not be imported: KeyError: 'x' ({root}/broken.py:2)",
      "pounce check broken:app shows more"),
     ("good:none", "good has no attribute 'none'", "It has app."),
     ("ends:app", "the import of ends:app ended its process", "pounce check ends:app shows more")],
)  # fmt: skip
def test_application_that_cannot_be_imported_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], app: str, what: str, do: str
) -> None:
    (tmp_path / "broken.py").write_text("print('hello')\n{}['x']\n")
    (tmp_path / "good.py").write_text("app = print\n")
    (tmp_path / "ends.py").write_text("import os\nos._exit(3)\n")
    monkeypatch.setattr(doctor_module, "LOOKS", (doctor_module.application,))
    assert main(["doctor", app, "--json"]) == 1
    [finding] = json.loads(capsys.readouterr().out)
    assert (finding["level"], finding["what"], finding["do"]) == ("problem", what.format(root=tmp_path), do)


def test_application_whose_import_does_not_end_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_module, "IMPORT_TIMEOUT", 0.0)
    [finding] = doctor_module.application(ServerConfig(), machine(tmp_path, app="main:app"))
    assert (finding.level, finding.what) == ("problem", "main:app is not imported after 0 s")


def test_application_that_can_be_imported_is_none(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("app = print\n")
    at = machine(tmp_path, app="good:app")
    assert list(doctor_module.application(ServerConfig(app_dir=str(tmp_path)), at)) == []


# The GIL


@pytest.mark.parametrize(
    ("flags", "environment", "on", "what"),
    [("", {}, True, "this Python has the GIL"), ("t", {"PYTHON_GIL": "1"}, True, "PYTHON_GIL=1"),
     ("t", {}, True, "the GIL is on in this process")],
)  # fmt: skip
def test_gil_is_told_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, environment: dict[str, str], on: bool, what: str
) -> None:
    monkeypatch.setattr(doctor_module, "gil_enabled", lambda: on)
    monkeypatch.setattr(doctor_module.sys, "abiflags", flags)
    [finding] = doctor_module.gil(ServerConfig(), machine(tmp_path, environment=environment))
    assert what in finding.what


# The command


def test_problems_come_first_and_are_the_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_module, "LOOKS", (lambda config, at: [Finding("advice", "a", "b.", "c")],))
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.startswith("advice: a\n    why: b.\n    do:  c\nproblems: 0, advice: 1, ")
    bad = (*doctor_module.LOOKS, lambda config, at: [Finding("problem", "d", "e.", "f")])
    monkeypatch.setattr(doctor_module, "LOOKS", bad)
    assert main(["doctor", "--json", "main:app"]) == 1
    assert [each["what"] for each in json.loads(capsys.readouterr().out)] == ["d", "a"]


def test_settings_that_are_wrong_are_told_as_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--port", "70000"]) == 2


def test_a_real_machine_is_looked_at_without_a_fault() -> None:
    assert all(each.level in ("problem", "advice") for each in examine(ServerConfig(), Machine()))
