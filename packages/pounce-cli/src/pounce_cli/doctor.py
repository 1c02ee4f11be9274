"""`pounce doctor`: what on this machine stands in the way of a server with these settings.

Each finding says what was seen, why that matters, and what to type. Nothing is changed, and nothing is asked of the
network: what is looked at are files of the kernel, settings, certificates, and the application in a process of its own.
`Machine` is where all of it is read from.
"""

import importlib.util
import ipaddress
import json
import os
import re
import resource
import ssl
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

from pounce.config import ServerConfig
from pounce.cpus import usable_cpus
from pounce.gil import gil_enabled
from pounce.identity.identity import idle_behind_proxy
from pounce.net.bind import Bind, binds_of
from pounce.net.networks import Networks
from pounce.net.not_after import not_after
from pounce.net.tls import certificate_files
from pounce.observe.logs import escaped_line
from pounce.registry import Registry
from pounce.supervisor.modes import workers_of
from pounce_cli.flags import flag_of

__all__ = ["LOOKS", "Finding", "Machine", "doctor", "examine"]

BALANCER_IDLE = 60.0
"""Seconds for which load balancers commonly keep a connection to a server that is quiet."""
SPARE_FILES = 64
EXPIRES_SOON = 14
PLATFORMS = {
    "KUBERNETES_SERVICE_HOST": "Kubernetes", "DYNO": "Heroku", "RAILWAY_ENVIRONMENT": "Railway", "FLY_APP_NAME": "Fly",
    "RENDER": "Render", "K_SERVICE": "Cloud Run", "WEBSITE_INSTANCE_ID": "Azure App Service",
    "AWS_EXECUTION_ENV": "AWS",
}  # fmt: skip
"""Variables by which platforms with a proxy in front are known."""
GOOD_CLOCKS = ("tsc", "kvm-clock", "arch_sys_counter", "hyperv_clocksource_tsc_page", "xen")
IMPORT_TIMEOUT = 120.0
IMPORT = """
import sys
from pounce.config import ServerConfig
from pounce.errors import AppImportError
from pounce.importer import import_factory

try:
    import_factory(sys.argv[1], ServerConfig(app_dir=sys.argv[2]))
except AppImportError as exc:
    sys.exit(f"\\0{exc.message}\\1{exc.hint or ''}")
"""
"""What imports an application as the server does. What it has against it comes last, behind whatever that prints."""
PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class Finding(NamedTuple):
    """Something to know: a `problem` loses requests or will, an `advice` may."""

    level: Literal["problem", "advice"]
    what: str
    why: str
    do: str


@dataclass
class Machine:
    """Where things are read."""

    root: Path = Path("/")
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    files: tuple[int, int] = field(default_factory=lambda: resource.getrlimit(resource.RLIMIT_NOFILE))
    """Descriptors that a process may have open, and what it may raise that to."""
    now: float = field(default_factory=time.time)
    app: str | None = None
    is_installed: Callable[[str], bool] = lambda name: importlib.util.find_spec(name) is not None

    def text(self, path: str) -> str | None:
        """A file, None where it is not there."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        """The number in a file, None where there is none."""
        text = (self.text(path) or "").strip()
        return int(text) if re.fullmatch(r"-?\d+", text) else None


def doctor(config: ServerConfig, machine: Machine, *, as_json: bool) -> int:
    """Print what was found; the exit code: 1 where there is a problem."""
    found = list(examine(config, machine))
    if as_json:
        print(json.dumps([each._asdict() for each in found], indent=2))
    else:
        for each in found:
            print(escaped_line(f"{each.level}: {each.what}"))
            print(escaped_line(f"    why: {each.why}"))
            print(escaped_line(f"    do:  {each.do}"))
        problems = sum(each.level == "problem" for each in found)
        print(f"problems: {problems}, advice: {len(found) - problems}, of {len(LOOKS)} looks")
    return int(any(each.level == "problem" for each in found))


def examine(config: ServerConfig, machine: Machine) -> Iterator[Finding]:
    """Everything that is found, problems first."""
    found = [each for look in LOOKS for each in look(config, machine)]
    yield from sorted(found, key=lambda each: each.level != "problem")


# Looks


def open_files(config: ServerConfig, machine: Machine) -> Iterator[Finding]:
    soft, hard = machine.files
    needed = config.max_connections + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        way = f"ulimit -n {needed}" if hard == resource.RLIM_INFINITY or hard >= needed else "as root"
        yield Finding(
            "problem" if soft < 1024 else "advice",
            f"{soft} files may be open, and {config.max_connections} connections are allowed",
            "Each connection is an open file. When there are no more, nobody is accepted, and nothing can be opened.",
            f"{way}; in a unit of systemd LimitNOFILE={needed}; or --max-connections {max(soft - SPARE_FILES, 1)}",
        )


def backlog(config: ServerConfig, machine: Machine) -> Iterator[Finding]:
    allowed = machine.number("proc/sys/net/core/somaxconn")
    if allowed is not None and allowed < config.backlog:
        yield Finding(
            "advice",
            f"the kernel queues {allowed} connections, and the backlog is {config.backlog}",
            "What comes in a burst, or while the server is reloaded, waits in this queue; beyond it, it is dropped.",
            f"sysctl -w net.core.somaxconn={config.backlog}",
        )
    counters = _counters(machine, "TcpExt")
    queues = {"ListenOverflows": "a queue was full", "TCPReqQFullDrop": "a queue of handshakes was full"}
    for name, what in queues.items():
        if counters.get(name):
            yield Finding(
                "advice",
                f"{counters[name]} connections were dropped since this machine started, because {what} ({name})",
                "Some server here was too slow to accept. A client waits a second and more before it tries again.",
                "nstat -az TcpExtListenOverflows shows whether it still grows; then --backlog, or more --workers",
            )


def _counters(machine: Machine, group: str) -> dict[str, int]:
    lines = [line.split() for line in (machine.text("proc/net/netstat") or "").splitlines() if line.startswith(group)]
    return dict(zip(lines[0][1:], map(int, lines[1][1:]), strict=False)) if len(lines) == 2 else {}


def certificates(config: ServerConfig, machine: Machine) -> Iterator[Finding]:
    files = [*certificate_files(config).values()] if config.uses_tls else []
    for bind, its in _settings_of_binds(config):
        if bind.tls is not False and its.uses_tls:
            files += certificate_files(its).values()
    for certfile, keyfile in dict.fromkeys(files):
        try:
            chain = PEM.findall(Path(certfile).read_text(encoding="ascii", errors="replace"))
            mode = os.stat(keyfile).st_mode
            yield from _chain(certfile, chain, machine.now)
        except (OSError, ValueError, IndexError) as exc:
            yield Finding("problem", f"{certfile} cannot be read: {exc}", "The server does not start.", "pounce check")
            continue
        if mode & 0o004:
            yield Finding(
                "problem",
                f"everybody on this machine can read {keyfile}",
                "Who has the private key is the server, to every client.",
                f"chmod o-rwx {keyfile}",
            )


def _chain(certfile: str, chain: list[str], now: float) -> Iterator[Finding]:
    if not chain:
        raise ValueError("it has no certificate")
    days = (min(map(not_after, chain)) - now) / 86400
    if days < EXPIRES_SOON:
        yield Finding(
            "problem",
            f"{certfile} expires in {days:.0f} days" if days > 0 else f"{certfile} has expired",
            "Clients refuse to talk to a server whose certificate has expired.",
            "renew it; the files are looked at every few seconds (--ssl-reload), and the server goes on",
        )
    names = [_names_of(ssl.PEM_cert_to_DER_cert(each)) for each in chain]
    for (issuer, _), (_, following) in pairwise(names):
        if issuer != following:
            yield Finding(
                "problem",
                f"the certificates in {certfile} do not lead from one to the next",
                "A client cannot follow a chain that is out of order, or belongs to another certificate.",
                f"cat server.pem intermediate.pem >{certfile}",
            )
            return
    issuer, subject = names[0]
    if len(names) == 1 and issuer != subject:
        yield Finding(
            "advice",
            f"{certfile} has one certificate, and who issued it is not in the file",
            "Browsers find a missing intermediate by themselves, other clients do not and refuse the server.",
            f"cat server.pem intermediate.pem >{certfile}, or take fullchain.pem of your authority",
        )


def _names_of(der: bytes) -> tuple[bytes, bytes]:
    """Issuer and subject of a certificate, as they are encoded (RFC 5280 4.1)."""

    def element(at: int) -> tuple[int, int]:
        """Where the content of the element begins, and where it ends."""
        length, begin = der[at + 1], at + 2
        if length & 0x80:
            begin += length & 0x7F
            length = int.from_bytes(der[at + 2 : begin])
        return begin, begin + length

    at = element(element(0)[0])[0]
    if der[at] == 0xA0:
        at = element(at)[1]
    found = []
    # serial number, signature, issuer, validity, subject
    for _ in range(5):
        end = element(at)[1]
        found.append(der[at:end])
        at = end
    return found[2], found[4]


def balancer(config: ServerConfig, machine: Machine) -> Iterator[Finding]:
    # Binds that have the same settings have the same fault.
    yield from dict.fromkeys(_short_times(config))


def _short_times(config: ServerConfig) -> Iterator[Finding]:
    for bind, its in _settings_of_binds(config):
        if not _speaks_http(bind) or not (its.trusted_hosts or bind.has_proxy_header(its)):
            continue
        trusts = bool(its.trusted_hosts) and its.proxy_headers
        idle = idle_behind_proxy(its) if trusts else its.keep_alive_timeout
        if idle > BALANCER_IDLE:
            continue
        name = "trusted_keep_alive_timeout" if trusts else "keep_alive_timeout"
        where = "" if its is config else f" at {bind.place}"
        enough = f"{flag_of(name)} 75s" if its is config else f"{name}=75s in that bind"
        yield Finding(
            "problem",
            f"connections of the proxy in front{where} are ended after {idle:g} s",
            f"Load balancers keep one for {BALANCER_IDLE:g} s (ALB, nginx): who ends it first, while a request is on "
            "its way, turns that into a 502.",
            f"{enough}, or a shorter time in the balancer",
        )


def proxies(config: ServerConfig, machine: Machine) -> Iterator[Finding]:
    binds = [(bind, its) for bind, its in _settings_of_binds(config) if _speaks_http(bind)]
    if not any(its.trusted_hosts or bind.has_proxy_header(its) for bind, its in binds):
        platform = next((name for variable, name in PLATFORMS.items() if variable in machine.environment), None)
        if platform is not None:
            yield Finding(
                "advice",
                f"this is {platform}, which has a proxy in front, and no proxy is trusted",
                "Applications see the address of the proxy as that of each client, and http where clients have https; "
                "limits for each client hold for all of them together.",
                "--trusted-hosts with the network of the proxy, for example 10.0.0.0/8",
            )
    for port in sorted({bind.port for bind, _ in binds if bind.port}):
        here = [(bind, its) for bind, its in binds if bind.port == port]
        if any(bind.has_proxy_header(its) for bind, its in here):
            continue
        trusted = Networks(tuple(host for _, its in here for host in its.trusted_hosts), "trusted_hosts")
        peers = Counter(_peers(machine, port))
        total = sum(peers.values())
        for address, count in peers.most_common(1):
            way = f"--trusted-hosts {address}" if here[0][1] is config else f"trusted_hosts={address} in that bind"
            if total >= 10 and count >= 0.8 * total and not trusted.has((address, 0)):
                yield Finding(
                    "advice",
                    f"{count} of {total} connections to port {port} come from {address}, which is not trusted",
                    "That looks like a proxy. What it says of its clients is taken away, and all are one client.",
                    way,
                )


def _settings_of_binds(config: ServerConfig) -> list[tuple[Bind, ServerConfig]]:
    """What is listened on, each with the settings that its connections have. Raises `ConfigError`."""
    registry = Registry.discover(config)
    return [(bind, registry.config_of(bind, config)) for bind in binds_of(config)]


def _speaks_http(bind: Bind) -> bool:
    """To clients, over TCP or a Unix socket: not to who operates the server, and no wire of another kind alone."""
    return not bind.serves and not bind.datagrams and (not bind.wires or not {"h1", "h2"}.isdisjoint(bind.wires))


def _peers(machine: Machine, port: int) -> Iterator[str]:
    """Addresses of those who have a connection to this port."""
    for name in ("tcp", "tcp6"):
        for line in (machine.text(f"proc/net/{name}") or "").splitlines()[1:]:
            fields = line.split()
            if len(fields) > 3 and fields[3] == "01" and int(fields[1].rpartition(":")[2], 16) == port:
                yield _address(fields[2].rpartition(":")[0])


def _address(text: str) -> str:
    """An address as the kernel writes it: words in the order of the machine."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def gil(config: ServerConfig, machine: Machine) -> Iterator[Finding]:
    if "t" not in sys.abiflags:
        yield Finding(
            "advice",
            "this Python has the GIL",
            "Workers are processes then: each has the application in memory once more.",
            "uv python install 3.14t, and install there",
        )
        return
    if machine.environment.get("PYTHON_GIL") == "1":
        yield Finding("problem", "PYTHON_GIL=1 switches the GIL on", "One thread runs at a time.", "unset PYTHON_GIL")
        return
    if gil_enabled():
        yield Finding(
            "problem", "the GIL is on in this process", "Something that was imported has switched it on.",
            "pounce plugins shows which plugin did, python -X importtime which module",
        )  # fmt: skip


def application(config: ServerConfig, machine: Machine) -> Iterator[Finding]:
    """What is seen when it is imported, in a process of its own."""
    if machine.app is None:
        return
    check = f"pounce check {machine.app} shows more"
    try:
        ran = subprocess.run(
            [sys.executable, "-Pc", IMPORT, machine.app, config.app_dir],
            capture_output=True, encoding="utf-8", errors="replace", timeout=IMPORT_TIMEOUT,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        yield Finding(
            "problem",
            f"{machine.app} is not imported after {IMPORT_TIMEOUT:g} s",
            "The server does not serve before it is.",
            f"python -X importtime -c 'import {machine.app.partition(':')[0]}' shows what takes so long",
        )
        return
    if ran.returncode:
        _, marked, told = ran.stderr.rstrip().rpartition("\0")
        what, _, hint = told.partition("\1") if marked else (f"the import of {machine.app} ended its process", "", "")
        yield Finding("problem", what, "The server does not start.", hint or check)
    for module in re.findall(r"\(GIL\) has been enabled to load module '([\w.]+)'", ran.stderr):
        yield Finding(
            "problem",
            f"{module}, which the application imports, switches the GIL on",
            "One thread runs at a time from then on: more workers do not serve more.",
            f"take a {module.partition('.')[0]} for free-threaded Python; PYTHON_GIL=0 keeps it off at your risk",
        )


def loop(config: ServerConfig, machine: Machine) -> Iterator[Finding]:
    if config.loop == "uvloop" and not machine.is_installed("uvloop"):
        yield Finding(
            "problem", "loop is uvloop, which is not installed", "The server does not start.", "pip install uvloop"
        )
    elif config.loop == "auto" and machine.is_installed("uvloop"):
        yield Finding(
            "advice",
            "uvloop is installed, and is the loop",
            "The server's own loop has a shorter way to new connections, which uvloop does not take.",
            "--loop asyncio, and measure both with pounce bench",
        )


def clock(config: ServerConfig, machine: Machine) -> Iterator[Finding]:
    source = (machine.text("sys/devices/system/clocksource/clocksource0/current_clocksource") or "").strip()
    if source and source not in GOOD_CLOCKS:
        yield Finding(
            "advice",
            f"the clock of this machine is {source}",
            "Reading it takes a call of the kernel, and a server reads it for every request.",
            "cat /sys/devices/system/clocksource/clocksource0/available_clocksource; boot with clocksource=tsc",
        )
    timesync = machine.root / "run/systemd/timesync"
    if timesync.is_dir() and not (timesync / "synchronized").exists():
        yield Finding(
            "advice",
            "the clock is not set by the network yet",
            "Certificates, cookies and signatures of requests depend on the time of day.",
            "timedatectl set-ntp true",
        )


def watching(config: ServerConfig, machine: Machine) -> Iterator[Finding]:
    if not config.reload:
        return
    if not machine.is_installed("watchfiles"):
        yield Finding(
            "advice",
            "watchfiles is not installed",
            "Files are looked at one by one then, which takes longer where there are many.",
            "pip install watchfiles",
        )
    watches = machine.number("proc/sys/fs/inotify/max_user_watches")
    if watches is not None and watches < 65536:
        yield Finding(
            "advice",
            f"{watches} files may be watched",
            "Editors and builds share that number; beyond it a change is not seen.",
            "sysctl -w fs.inotify.max_user_watches=524288",
        )


def control_groups(config: ServerConfig, machine: Machine) -> Iterator[Finding]:
    cpus, wanted = usable_cpus(machine.root), workers_of(config)
    if wanted > cpus:
        yield Finding(
            "advice",
            f"{wanted} workers share {cpus} CPUs",
            "Each has a loop that can keep one CPU busy; more of them take turns, and answers wait for it.",
            f"--workers {cpus}, or 0 for as many as there are",
        )
    group = _own_group(machine)
    stat = dict(line.split() for line in (machine.text(f"{group}/cpu.stat") or "").splitlines() if line.count(" ") == 1)
    if int(stat.get("nr_throttled", 0)):
        yield Finding(
            "advice",
            f"the control group was held up {stat['nr_throttled']} times for using its CPUs up",
            "All of its threads stand still for the rest of the period, up to 100 ms: answers are late by that.",
            "a higher CPU limit, or none; fewer workers do not help",
        )
    events = dict(line.split() for line in (machine.text(f"{group}/memory.events") or "").splitlines())
    if int(events.get("oom_kill", 0)):
        yield Finding(
            "problem",
            f"the kernel has ended {events['oom_kill']} processes of this control group for its memory",
            "Requests that they served are lost.",
            "a higher memory limit, --max-rss below it, or --max-buffered",
        )
    limit = machine.number(f"{group}/memory.max")
    buffered = config.max_connections * 2 * 65536
    if limit is not None and not config.max_buffered and buffered > limit:
        yield Finding(
            "advice",
            f"{config.max_connections} connections may hold more than the {limit // 1024**2} MiB of the control group",
            "Peers that send and do not read make a server hold up to 128 KiB for each of them.",
            f"--max-buffered {limit // 4 // 1024**2}MiB, or a lower --max-connections",
        )
    pids, running = machine.number(f"{group}/pids.max"), machine.number(f"{group}/pids.current")
    if pids is not None and running is not None and pids - running < 64:
        yield Finding(
            "problem",
            f"{running} of {pids} threads and processes are in use",
            "A worker, a thread for a call, or a process of a reload cannot be started.",
            "a higher pids limit (TasksMax= of systemd, --pids-limit of a container)",
        )


def _own_group(machine: Machine) -> str:
    for line in (machine.text("proc/self/cgroup") or "").splitlines():
        if line.startswith("0::"):
            own = f"sys/fs/cgroup{line[3:]}".rstrip("/")
            if (machine.root / own / "cgroup.controllers").exists():
                return own
    return "sys/fs/cgroup"


def names(config: ServerConfig, machine: Machine) -> Iterator[Finding]:
    """What is open to the world and may not be meant so."""
    wide = [bind.place for bind in binds_of(config) if bind.host in ("0.0.0.0", "::")]
    if wide and config.debug:
        yield Finding(
            "problem",
            f"debug is on, and {', '.join(wide)} is open to everybody",
            "Codes and hints of errors are shown to every client.",
            "--no-debug",
        )
    if wide and config.ssl_keylog is not None:
        yield Finding("problem", "ssl_keylog is set", "Who has that file reads every connection.", "leave it out")


LOOKS: tuple[Callable[[ServerConfig, Machine], Iterator[Finding]], ...] = (
    open_files, backlog, certificates, balancer, proxies, application, gil, loop, clock, watching,
    control_groups, names,
)  # fmt: skip
"""Everything that is looked at."""
