"""One measurement: a fresh server, a verified answer, a warm-up, a load, and what is left afterwards."""

import gzip
import json
import re
import resource
import secrets
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from benchmarks.load import websocket_client
from benchmarks.load.loads import Load
from benchmarks.load.servers import ROOT, SERVER_CORE, Running, Server, environment

LOAD_CORE = "1"
START_TIMEOUT = 30.0
WARM_UP = 1
SCRIPT = Path(__file__).with_name("wrk.lua")
GIL_ENABLED = "global interpreter lock (GIL) has been enabled"


@dataclass(slots=True)
class Sample:
    """Rates per second, times in milliseconds, memory in MiB, `generator` in cores.

    A sample with flags counts for nothing; notes only explain.
    """

    round: int
    load: str
    server: str
    rate: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    processor: float = 0.0
    """Microseconds of processor time of the server for each request."""
    pss: float = 0.0
    start: float = 0.0
    generator: float = 0.0
    flags: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class WrongAnswer(Exception):
    """The server did not answer, or not with what the load expects."""


def measure(server: Server, workers: int, python: Path, load: Load, seconds: int, round_number: int) -> Sample:
    sample = Sample(round_number, load.name, label(server, workers))
    began, started = time.perf_counter(), 0
    with Running(server, python, load.app, load.tls, workers, load.kind) as running:
        try:
            wait_for_answer(running, load)
            sample.start = (time.perf_counter() - began) * 1000
            started = len(running.log())
            size = probe(running.port, load)
            if load.streams:
                # h2load counts the bytes of bodies alone.
                size = len(load.expected)
            warm = run(running, load, WARM_UP)
            busy, worked = children_seconds(), running.processor_seconds()
            result = run(running, load, seconds, as_many_as(warm, server, load, seconds))
            worked = running.processor_seconds() - worked
            sample.generator = (children_seconds() - busy) / (result["microseconds"] / 10**6)
            sample.pss = running.pss_mib()
            sample.flags += complaints(result, load, size)
            sample.rate = result["requests"] / (result["microseconds"] / 1e6)
            sample.processor = worked * 1e6 / max(result["requests"], 1)
            sample.p50, sample.p99 = result["p50"] / 1000, result["p99"] / 1000
            probe(running.port, load)
        except (WrongAnswer, OSError, subprocess.TimeoutExpired) as error:
            sample.flags.append(str(error))
        log = running.log()
        if "Traceback" in log[started:]:
            sample.flags.append(f"the server logged a traceback: {last_line(log)}")
        elif "Traceback" in log:
            sample.notes.append("the server logged a traceback before its first answer")
        if GIL_ENABLED in log:
            sample.notes.append("a module switched the GIL on")
        if sample.generator > 0.9:
            sample.notes.append("the load generator was busy more than 90 % of the time: it may be the limit")
    return sample


def label(server: Server, workers: int) -> str:
    """What the tables call it."""
    return server.name if workers == 1 else f"{server.name}, {workers} workers"


def wait_for_answer(running: Running, load: Load) -> None:
    deadline = time.perf_counter() + START_TIMEOUT
    while True:
        try:
            probe(running.port, load)
            return
        except ConnectionRefusedError:
            if running.process.poll() is not None:
                raise WrongAnswer(f"the server ended: {last_line(running.log())}") from None
            if time.perf_counter() > deadline:
                raise WrongAnswer(f"no answer within {START_TIMEOUT:g} s") from None
            time.sleep(0.002)


class CountingSocket(socket.socket):
    received = 0

    def recv_into(self, *arguments: Any) -> int:
        count = super().recv_into(*arguments)
        self.received += count
        return count


class CountingTLSSocket(ssl.SSLSocket):
    received = 0

    def recv_into(self, *arguments: Any) -> int:
        count = super().recv_into(*arguments)
        self.received += count
        return count


TLS_CLIENT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
TLS_CLIENT.check_hostname = False
TLS_CLIENT.verify_mode = ssl.CERT_NONE
TLS_CLIENT.sslsocket_class = CountingTLSSocket


def connect(port: int, tls: bool) -> CountingSocket | CountingTLSSocket:
    connection = CountingSocket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        connection.settimeout(10)
        connection.connect(("127.0.0.1", port))
        if tls:
            wrapped = TLS_CLIENT.wrap_socket(connection)
            assert isinstance(wrapped, CountingTLSSocket)
            return wrapped
    except BaseException:
        connection.close()
        raise
    return connection


def probe(port: int, load: Load) -> int:
    """Send one request of the load, compare the answer, return its size on the wire in bytes."""
    if load.websocket:
        return probe_websocket(port, load)
    with connect(port, load.tls) as connection:
        try:
            request = load.request(port).replace(b"{id}", b"%012d" % secrets.randbelow(10**12))
            connection.sendall(request.replace(b"{of20}", b"%02d" % secrets.randbelow(20)))
            response = HTTPResponse(connection, method=load.method)
            response.begin()
            body = response.read()
            if load.kind == "gzip":
                if response.getheader("content-encoding") != "gzip":
                    raise WrongAnswer("the answer is not compressed")
                body = gzip.decompress(body)
        except (OSError, HTTPException) as error:
            raise WrongAnswer(f"no answer: {error!r}") from error
        if response.status != load.status:
            raise WrongAnswer(f"status {response.status}, expected {load.status}")
        if body != load.expected:
            raise WrongAnswer(f"body {body[:60]!r} of {len(body)} bytes, expected {load.expected[:60]!r}")
        return connection.received


def probe_websocket(port: int, load: Load) -> int:
    """The same with one message."""
    expected = websocket_client.unmasked(load.expected)
    with websocket_client.connect(port) as connection:
        connection.sendall(websocket_client.masked(load.body))
        frame = websocket_client.read(connection, len(expected))
    if frame != expected:
        raise WrongAnswer(f"frame {frame[:60]!r}, expected {expected[:60]!r}")
    return len(expected)


def as_many_as(warm: dict[str, Any], server: Server, load: Load, seconds: int) -> int:
    """How many requests to send instead of as many as the time allows; 0 where that is no matter."""
    if not (server.h2_requests and load.streams):
        return 0
    return min(server.h2_requests * load.connections, warm["requests"] * seconds // WARM_UP)


def run(running: Running, load: Load, seconds: int, requests: int = 0) -> dict[str, Any]:
    """Put the load on the server; what the generator counted, times in microseconds."""
    if load.streams:
        return run_h2load(running, load, seconds, requests)
    generator = websocket_command if load.websocket else wrk_command
    command = ["taskset", "-c", LOAD_CORE, *generator(running, load, seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False, cwd=ROOT)
    _, _, result = done.stdout.partition("RESULT ")
    if not result:
        raise WrongAnswer(f"{generator.__name__}: {last_line(done.stdout + done.stderr)}")
    parsed: dict[str, Any] = json.loads(result)
    return parsed


def websocket_command(running: Running, load: Load, seconds: int) -> list[str]:
    numbers = (len(load.body), load.connections, seconds)
    return [sys.executable, "-m", websocket_client.__name__, str(running.port), load.websocket, *map(str, numbers)]


def wrk_command(running: Running, load: Load, seconds: int) -> list[str]:
    request = Path(running.folder.name, "request.txt")
    request.write_bytes(b"{next}".join(each.request(running.port) for each in (load, *load.turns)))
    return [
        *("wrk", "--threads", "1", "--connections", str(load.connections)),
        *("--duration", f"{seconds}s", "--latency", "--script", str(SCRIPT)),
        *(
            f"{'https' if load.tls else 'http'}://127.0.0.1:{running.port}/",
            "--",
            str(request),
            str(secrets.randbelow(10**11)),
        ),
    ]


def run_h2load(running: Running, load: Load, seconds: int, requests: int) -> dict[str, Any]:
    """The same figures from h2load, which cannot change header fields between requests, but takes a list of URIs."""
    folder = Path(running.folder.name)
    log, uris, body = (folder / name for name in ("requests.tsv", "uris.txt", "body.bin"))
    some_id = f"{secrets.randbelow(10**12):012}"
    ids = [f"{secrets.randbelow(10**12):012}" for _ in range(20_000)] if "{id}" in load.path else [""]
    uris.write_text("".join(f"https://127.0.0.1:{running.port}{load.path.replace('{id}', id)}\n" for id in ids))
    log.unlink(missing_ok=True)
    extent = ["--requests", str(requests)] if requests else ["--duration", str(seconds)]
    command = ["taskset", "-c", LOAD_CORE, "h2load", *extent, "--clients", str(load.connections)]
    command += ["--max-concurrent-streams", str(load.streams), "--log-file", str(log), "--input-file", str(uris)]
    for header in load.headers:
        name, _, value = header.partition(":")
        if name != "Connection":
            command += ["--header", f"{name.lower()}:{value.replace('{id}', some_id)}"]
    if load.body:
        body.write_bytes(load.body)
        command += ["--data", str(body)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    counts = {
        name: int(count) for count, name in re.findall(r"(\d+) (succeeded|failed|errored|timeout|[345]xx)", done.stdout)
    }
    data = re.search(r"\((\d+)\) data", done.stdout)
    times = sorted(int(line.rsplit("\t", 1)[1]) for line in log.read_text().splitlines()) if log.exists() else []
    if data is None or not times:
        raise WrongAnswer(f"h2load: {last_line(done.stdout + done.stderr)}")
    if "Application protocol: h2" not in done.stdout:
        raise WrongAnswer("the server did not speak HTTP/2")
    return {
        "requests": counts.pop("succeeded"),
        "microseconds": microseconds_of(done.stdout) if requests else seconds * 10**6,
        "bytes": int(data[1]),
        "p50": times[len(times) // 2],
        "p99": times[len(times) * 99 // 100],
        "errors": counts,
    }


def microseconds_of(text: str) -> float:
    """How long h2load took for a number of requests."""
    found = re.search(r"^finished in ([\d.]+)(us|ms|s),", text, re.MULTILINE)
    if found is None:
        raise WrongAnswer("h2load did not say how long it took")
    return float(found[1]) * {"us": 1, "ms": 1000, "s": 10**6}[found[2]]


def children_seconds() -> float:
    """Processor time of the children that have ended; the server has not, so the difference is the generator's."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def complaints(result: dict[str, Any], load: Load, size: int) -> list[str]:
    """Why this result must not count. wrk lets statuses below 400 pass, so the sizes are compared as well."""
    found = [f"{count} {name} errors" for name, count in result["errors"].items() if count]
    if not result["requests"]:
        found.append("no request was answered")
    expected = result["requests"] * size
    # Answers under way when the load ends are in its bytes, but not in its requests; and a server that closes a
    # connection after its thousandth request, or when it is asked to, says so in one header more.
    under_way = load.connections * max(1, load.streams)
    share = 5 if "Connection: close" in {field for each in load.turns for field in each.headers} else 1000
    if not 0 <= result["bytes"] - expected <= under_way * size + expected / share:
        found.append(f"{result['bytes']} bytes for {result['requests']} answers of {size} bytes")
    return found


def import_milliseconds(server: Server, python: Path) -> float:
    if not server.module:
        return float("nan")
    code = f"import time; t = time.perf_counter(); import {server.module}; print(time.perf_counter() - t)"
    command = ["taskset", "-c", SERVER_CORE, str(python), "-P", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment(), timeout=60)
    return float(done.stdout) * 1000 if done.returncode == 0 else float("nan")


def last_line(text: str) -> str:
    return next((line[:160] for line in reversed(text.split("\n")) if line.strip()), "nothing logged")
