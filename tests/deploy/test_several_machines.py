"""Three machines behind HAProxy, each a network namespace with an address and a server of its own; a limit in Redis.

One after the other is upgraded under load, then one is killed. `make faults`; the figures are printed.
"""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest
from tests.deploy.proxies import DEPLOY, PATIENCE, replaced
from tests.workers.running import eventually

POUNCE = Path(sys.executable).with_name("pounce")
NET = "10.213.77"
REDIS, FRONT = f"{NET}.1", f"{NET}.2"
SERVERS = [f"{NET}.{number}" for number in (11, 12, 13)]
CLIENTS = 12
LIMIT = 1_000_000
APP = """
import os, socket

async def app(scope, receive, send):
    assert scope["type"] == "http"
    while (message := await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": VERSION.encode() + b" " + os.environ["MACHINE"].encode()})
"""
pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"),
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy (apt install haproxy)"),
    pytest.mark.skipif(shutil.which("redis-server") is None, reason="needs redis-server (apt install redis-server)"),
]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture
def machines() -> Iterator[dict[str, list[str]]]:
    """By address: what runs a command there."""
    bridge = "pounce-br"
    with ExitStack() as stack:
        ip("link", "add", bridge, "type", "bridge")
        stack.callback(ip, "link", "del", bridge)
        ip("addr", "add", f"{REDIS}/24", "dev", bridge)
        ip("link", "set", bridge, "up")
        for number, address in enumerate((FRONT, *SERVERS)):
            name, outer = f"pounce-{number}", f"pounce-v{number}"
            ip("netns", "add", name)
            stack.callback(ip, "netns", "del", name)
            ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
            # By itself it would end some time after its namespace.
            stack.callback(ip, "link", "del", outer)
            ip("link", "set", outer, "master", bridge, "up")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield {address: ["ip", "netns", "exec", f"pounce-{n}"] for n, address in enumerate((FRONT, *SERVERS))}


def kill_all(machine: str) -> bool:
    """False where no process is left."""
    pids = subprocess.check_output(["ip", "netns", "pids", machine], text=True).split()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    return bool(pids)


def until_open(address: str, port: int, process: subprocess.Popen[bytes]) -> None:
    while True:
        assert process.poll() is None
        try:
            socket.create_connection((address, port)).close()
        except ConnectionRefusedError:
            continue
        return


def until_all_are_up(front: subprocess.Popen[bytes]) -> None:
    """Until HAProxy has looked at each server: before that one look that is late is enough to leave it out."""
    while True:
        assert front.poll() is None
        table = csv.DictReader(httpx.get(f"http://{FRONT}:8404/;csv", timeout=PATIENCE).text.splitlines())
        if [row["check_status"] for row in table if row["svname"].startswith("s")] == ["L7OK"] * len(SERVERS):
            return


class Load:
    """Clients that ask for as long as they are let, and count what they get."""

    def __init__(self, url: str, cert: Path) -> None:
        self.answers: Counter[str] = Counter()
        self.faults: list[str] = []
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(url, cert, n)) for n in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def _ask(self, url: str, cert: Path, number: int) -> None:
        with httpx.Client(base_url=url, verify=False, http2=number % 2 == 0, timeout=PATIENCE) as client:
            while not self._over.wait(0.01):
                try:
                    answer = client.get("/") if number % 3 else client.post("/", content=b"x" * 2000)
                    said = answer.text if answer.status_code == 200 else None
                    fault = f"{answer.status_code}: {answer.text[:80]}"
                except httpx.HTTPError as error:
                    said, fault = None, repr(error)
                with self._lock:
                    if said is None:
                        self.faults.append(fault)
                    else:
                        self.answers[said] += 1

    def until(self, said: str, count: int = 200) -> None:
        """Until so many further answers have said this."""
        wanted = self.answers[said] + count
        eventually(lambda: self.answers[said] >= wanted)

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)


def test_machines_are_upgraded_one_after_the_other_and_one_is_killed(
    machines: dict[str, list[str]], tmp_path: Path, tls_files: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    both = tmp_path / "both.pem"
    both.write_text("".join(Path(name).read_text() for name in tls_files))
    proxy = tmp_path / "haproxy.cfg"
    servers = "\n".join(f"    server s{n} {address}:8001" for n, address in enumerate(SERVERS))
    proxy.write_text(
        replaced(
            DEPLOY / "haproxy" / "haproxy.cfg",
            ("/etc/ssl/app.example/both.pem", str(both)),
            ("    server one 127.0.0.1:8001\n    server two 127.0.0.1:8002", servers),
        )
        + f"\nfrontend looks\n    bind {FRONT}:8404\n    stats enable\n    stats uri /\n"
    )
    main = tmp_path / "main.py"
    main.write_text('VERSION = "1"\n' + APP)
    logs = [(tmp_path / f"log{n}").open("wb") for n in range(4)]
    running: list[subprocess.Popen[bytes]] = []
    try:
        redis = subprocess.Popen(
            ["redis-server", "--bind", REDIS, "--port", "6379", "--save", "", "--protected-mode", "no"],
            stdout=subprocess.DEVNULL, cwd=tmp_path,
        )  # fmt: skip
        running.append(redis)
        until_open(REDIS, 6379, redis)
        for n, address in enumerate(SERVERS):
            command = [
                *machines[address], str(POUNCE), "serve", "main:app", "--workers", "2", "--probes",
                "--drain-delay", "3",
                "--bind", f"{address}:8001?proxy_protocol=on&proxy_protocol_from={FRONT}", "--pid-file", f"pid{n}",
                "--rate-limit-enabled", "--rate-limit-requests-per-second", str(LIMIT),
                "--rate-limit-burst", str(LIMIT), "--rate-limit-store", f"redis://{REDIS}:6379",
                "--no-access-log", "--control-socket", "off",
            ]  # fmt: skip
            environment = {**os.environ, "MACHINE": str(n), "PWD": str(tmp_path)}
            server = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=logs[n], stderr=logs[n])
            running.append(server)
            until_open(address, 8001, server)
        front = subprocess.Popen(
            [*machines[FRONT], "haproxy", "-db", "-f", str(proxy)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        running.append(front)
        until_open(FRONT, 443, front)
        until_all_are_up(front)
        load = Load(f"https://{FRONT}", Path(tls_files[0]))
        try:
            for n in range(3):
                load.until(f"1 {n}")
            main.write_text('VERSION = "2"\n' + APP)
            for n in range(3):
                os.kill(int((tmp_path / f"pid{n}").read_text()), signal.SIGUSR2)
                load.until(f"2 {n}")
            upgraded, lost = sum(load.answers.values()), list(load.faults)
            # The whole machine: its supervisor and all processes at once.
            kill_all("pounce-2")
            before = load.answers["2 1"]
            load.until("2 0", 2000)
            load.until("2 2", 2000)
        finally:
            load.end()
        faults = load.faults[len(lost) :]
        with capsys.disabled():
            print(
                "\n3 machines:", json.dumps(load.answers), f"upgrades: {upgraded} answers, {len(lost)} lost;",
                f"kill -9 of one: {sum(load.answers.values()) - upgraded} answers, {len(faults)} lost", Counter(faults),
            )  # fmt: skip
        assert lost == []
        # What the machine held when it died, and what was sent there before HAProxy had noticed: no client twice.
        assert len(faults) <= CLIENTS
        assert load.answers["2 1"] - before <= CLIENTS
    finally:
        for process in reversed(running):
            process.kill()
            process.wait()
        for number in range(1, 4):
            # A supervisor may have made another one meanwhile.
            while kill_all(f"pounce-{number}"):
                pass
        for log in logs:
            log.close()
