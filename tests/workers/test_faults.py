"""Storms: a server under load is reloaded, resized, killed, blocked and ended, and every answer is checked.

Long, so only `make faults` runs it; each test prints its figures.
"""

import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families
from tests.workers.checking_client import CheckingClient
from tests.workers.running import APP, Running, eventually

pytestmark = pytest.mark.faults

MODES = ("thread", "process", "subinterpreter")


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def load(server: Running, name: str, **options: Any) -> Iterator[CheckingClient]:
    defaults: dict[str, Any] = {"keep_alive": 16, "short": 4, "slow": 4, "pause": 0.002}
    with CheckingClient(server.address, **(defaults | options)) as client:
        eventually(lambda: client.verified > 100)
        yield client
    print(f"\n{name}: {client.report()}, {len(client.pids)} processes, versions {sorted(client.versions)}")


@contextmanager
def wrk(server: Running, seconds: int) -> Iterator[None]:
    """The load of wrk, which must not report an error."""
    program = shutil.which("wrk")
    if program is None:
        yield
        return
    url = f"http://{server.address[0]}:{server.address[1]}/"
    with subprocess.Popen(
        [program, "-t1", "-c16", f"-d{seconds}s", url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        yield
        output = process.communicate()[0]
    found = re.search(r"(\d+) requests in", output)
    print(f"\nwrk: {found[1] if found else '?'} requests")
    assert "Socket errors" not in output, output
    assert "Non-2xx" not in output, output


def reload(server: Running, app: str) -> None:
    at = len(server.log)
    server.write(app)
    server.kill(signal.SIGHUP)
    server.wait_for_message("Reloaded", after=at)


def wait_for_recovery(server: Running, client: CheckingClient, processes: int) -> None:
    seen = client.verified
    eventually(lambda: len(server.children()) == processes and client.verified > seen + 100)
    time.sleep(1)


def test_twenty_reloads_with_changing_code(mode: str, tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "2", "--worker-mode", mode) as server:
        with load(server, f"20 reloads, {mode}") as client, wrk(server, 20):
            for number in range(2, 22):
                reload(server, APP.replace("VERSION = 1", f"VERSION = {number}"))
                eventually(lambda number=number: client.versions[number] > 20)
        assert client.faults == {}
        assert set(client.versions) == set(range(1, 22))
        assert server.end() == 0


def test_five_upgrades(mode: str, tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "2", "--worker-mode", mode) as server:
        with load(server, f"5 upgrades, {mode}") as client:
            for number in range(2, 7):
                server.write(APP.replace("VERSION = 1", f"VERSION = {number}"))
                server.upgrade()
                eventually(lambda number=number: client.versions[number] > 20)
        assert client.faults == {}
        assert set(client.versions) == set(range(1, 7))


def certificate(folder: Path, number: int) -> None:
    """Put a certificate with this serial number in place."""
    names = {suffix: folder / f"{number}.{suffix}" for suffix in ("crt", "key")}
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=localhost", "-set_serial", str(number)),
            *("-out", str(names["crt"]), "-keyout", str(names["key"])),
        ],
        check=True,
        capture_output=True,
    )
    # Both change at once: a server must not see the key of another certificate.
    (folder / "both.new").write_bytes(names["key"].read_bytes() + names["crt"].read_bytes())
    (folder / "both.new").rename(folder / "both.pem")


def serial_number(server: Running) -> str:
    with server.connect() as sock, trusting().wrap_socket(sock) as client:
        found = client.getpeercert(binary_form=True)
    assert found is not None
    return str(x509.load_der_x509_certificate(found).serial_number)


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize("what", ["20 reloads", "5 renewals"])
def test_tls(what: str, mode: str, tmp_path: Path) -> None:
    certificate(tmp_path, 1)
    files = ("--ssl-certfile", str(tmp_path / "both.pem"), "--ssl-keyfile", str(tmp_path / "both.pem"))
    with Running(tmp_path, "--workers", "2", "--worker-mode", mode, *files) as server:
        with load(server, f"TLS, {what}, {mode}", tls=trusting()) as client:
            for number in range(2, 22 if what == "20 reloads" else 7):
                if what == "20 reloads":
                    reload(server, APP.replace("VERSION = 1", f"VERSION = {number}"))
                    eventually(lambda number=number: client.versions[number] > 20)
                else:
                    certificate(tmp_path, number)
                    # Each worker looks at the files every 5 s.
                    eventually(lambda number=number: {serial_number(server) for _ in range(20)} == {str(number)})
        assert client.faults == {}
        assert server.end() == 0


def test_supervisor_as_process_1_reaps_its_own_and_ends(mode: str, tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-fp", "--mount-proc", "true"], check=False).returncode:
        pytest.skip("new PID namespaces are not permitted here")
    line = ["-m", "pounce_cli", "serve", "main:app", "--port", "0", "--no-access-log", "--log-format", "json"]
    inside = [unshare, "-fp", "--mount-proc", "--kill-child", sys.executable, *line]
    program = f"import os; os.execv({unshare!r}, {[*inside, '--workers', '2', '--worker-mode', mode]!r})"
    with Running(tmp_path, command=["-c", program]) as server:
        eventually(lambda: bool(server.children()))
        server.pid = server.children()[0]
        for _ in range(3):
            reload(server, APP)
        os.kill(server.children()[0], signal.SIGKILL)
        server.wait_for_message("was killed by SIGKILL")
        expected = 2 if mode == "process" else 1
        # Those that nobody has reaped would still be listed.
        eventually(lambda: len(server.children()) == expected)
        server.kill(signal.SIGUSR2)
        server.wait_for_message("No upgrade: the end of process 1")
        assert server.get()["version"] == 1
        server.kill(signal.SIGTERM)
        assert server.wait() == 0


def test_workers_come_and_go(mode: str, tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "2", "--worker-mode", mode) as server:
        with load(server, f"TTIN and TTOU, {mode}") as client:
            for number in [signal.SIGTTIN, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTTIN, signal.SIGTTOU] * 4:
                server.kill(number)
                time.sleep(0.3)
        assert client.faults == {}
        assert server.end() == 0


@pytest.mark.parametrize("death", ["SIGKILL", "/segfault"])
def test_death_of_a_process_costs_what_it_was_doing_and_nothing_else(death: str, mode: str, tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "2", "--worker-mode", mode) as server:
        with load(server, f"{death}, {mode}", keep_alive=16, short=4, slow=4) as client:
            for _ in range(3):
                at, children = len(server.log), server.children()
                if death == "SIGKILL":
                    os.kill(children[0], signal.SIGKILL)
                else:
                    with server.connect() as killer:
                        killer.sendall(f"GET {death} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
                        assert killer.recv(1) == b""
                server.wait_for_message("was killed by", after=at)
                wait_for_recovery(server, client, len(children))
        assert not [fault for fault in client.faults if fault.startswith("connect")]
        # Each of the connections was on the process that died at the most once for each death.
        assert sum(client.faults.values()) <= 3 * 24
        assert server.end() == 0


def test_loop_that_is_blocked_for_long_is_nobody_elses_concern(mode: str, tmp_path: Path) -> None:
    # What is blocked gets the whole minute: a drain has no shorter bound.
    flags = ("--workers", "2", "--worker-mode", mode, "--worker-timeout", "3", "--shutdown-timeout", "60")
    with Running(tmp_path, *flags) as server:
        with server.connect() as blocker, load(server, f"blocked loop, {mode}") as client:
            blocker.sendall(b"GET /block?60 HTTP/1.1\r\nHost: test\r\n\r\n")
            server.wait_for_message("stands still")
            seen = client.verified
            eventually(lambda: client.verified > seen + 1000)
            blocker.settimeout(90)
            assert b"200 OK" in blocker.recv(65536)
        assert client.faults == {}
        assert client.longest_gap < 5
        assert server.end() == 0


def test_recycling_every_thousand_requests(mode: str, tmp_path: Path) -> None:
    flags = ("--workers", "2", "--worker-mode", mode, "--max-requests", "1000")
    with Running(tmp_path, *flags) as server:
        with load(server, f"recycling, {mode}") as client:
            eventually(lambda: len(client.pids) >= 8, patience=120)
        assert client.faults == {}
        assert server.end() == 0


def test_end_at_full_load_with_slow_requests(mode: str, tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "2", "--worker-mode", mode) as server:
        with load(server, f"SIGTERM at full load, {mode}", slow=16, slow_time=1.5) as client:
            time.sleep(1)
            server.kill(signal.SIGTERM)
            assert server.wait() == 0
        lost = {fault: count for fault, count in client.faults.items() if not fault.startswith("connect")}
        assert lost == {}


def test_versions_that_cannot_start(mode: str, tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "2", "--worker-mode", mode) as server:
        with load(server, f"broken versions, {mode}") as client:
            for broken in ("syntax error", "raise SystemExit(3)", "import ctypes; ctypes.string_at(0)") * 2:
                at = len(server.log)
                server.write(broken)
                server.kill(signal.SIGHUP)
                server.wait_for_message("Reload failed", after=at)
        assert client.faults == {}
        assert set(client.versions) == {1}
        assert server.end() == 0


def test_fifty_reloads_leave_nothing_behind(mode: str, tmp_path: Path) -> None:
    def census() -> tuple[int, int, int]:
        folder = Path(f"/proc/{server.process.pid}")
        return len(list((folder / "fd").iterdir())), len(list((folder / "task").iterdir())), len(server.children())

    def resident() -> int:
        return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{server.process.pid}/status").read_text())[0])

    with Running(tmp_path, "--workers", "2", "--worker-mode", mode) as server:
        for number in range(5):
            reload(server, APP.replace("VERSION = 1", f"VERSION = {number}"))
        eventually(lambda: len(server.children()) == 2 if mode == "process" else 1)
        before, memory = census(), resident()
        for number in range(50):
            reload(server, APP.replace("VERSION = 1", f"VERSION = {number}"))
        eventually(lambda: census() == before)
        print(f"\n50 reloads, {mode}: descriptors, threads, children {before}, RSS {memory} -> {resident()} KiB")
        assert resident() < memory + 1024
        assert server.end() == 0


def test_no_counter_falls_while_workers_are_replaced_and_killed(mode: str, tmp_path: Path) -> None:
    flags = ("--workers", "2", "--worker-mode", mode, "--metrics-enabled")
    with Running(tmp_path, *flags) as server, load(server, f"metrics in reloads, {mode}") as client:
        seen: dict[str, float] = {}
        scrapes = 0

        def scrape() -> None:
            nonlocal scrapes
            with urlopen(f"http://{server.address[0]}:{server.address[1]}/metrics", timeout=60) as answer:
                text = answer.read().decode()
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    name = f"{sample.name}{sorted(sample.labels.items())}"
                    if family.type != "gauge":
                        assert sample.value >= seen.get(name, 0), name
                        seen[name] = sample.value
            scrapes += 1

        for number in range(2, 12):
            scrape()
            reload(server, APP.replace("VERSION = 1", f"VERSION = {number}"))
            scrape()
            if number % 4 == 0:
                os.kill(server.children()[0], signal.SIGKILL)
                server.wait_for_message("A new process starts")
                eventually(lambda number=number: client.versions[number] > 20)
            scrape()
        counted = sum(value for name, value in seen.items() if name.startswith("http_requests_total"))
        print(f"\n{scrapes} scrapes, {counted:.0f} requests")
