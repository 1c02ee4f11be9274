"""The servers side by side: their command lines, and one of them running."""

import os
import signal
import socket
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from benchmarks.load.around_apps import write_files
from benchmarks.load.certificate import certificate_files

SERVER_CORE = "0"
ALL_CORES = "0,1"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Server:
    """`arguments` follow `python -m`; `{app}`, `{port}`, `{workers}` and `{here}`, this folder, are filled in. `tls` is
    added for loads over TLS, with `{certificate}` and `{key}`. `h2` says that the server has HTTP/2, `h2_requests`
    after how many requests it breaks off each connection of it; 0 stands for never.

    `files`, `gzip` and `wsgi` are in place of `arguments` for loads of that kind; a server without them has none. Of
    what is no module of Python's, `arguments` are empty, and they begin with a program. `{folder}` is where it runs."""

    name: str
    arguments: str
    tls: str = "--ssl-certfile {certificate} --ssl-keyfile {key}"
    peer: bool = True
    h2: bool = False
    h2_requests: int = 0
    files: str = ""
    gzip: str = ""
    wsgi: str = ""

    @property
    def module(self) -> str:
        return self.arguments.split()[0].removesuffix("_cli") if self.arguments else ""

    def command(self, kind: str) -> str:
        """The arguments for loads of a kind; empty where it is not for them."""
        if kind in OWN:
            return self.arguments if self.peer else f"{self.arguments} {OWN[kind]}"
        return {"": self.arguments, "files": self.files, "gzip": self.gzip, "wsgi": self.wsgi}[kind]


POUNCE = "pounce_cli serve {app} --port {port} --workers {workers} --no-access-log --log-level warning"
OWN = {"upload": "--max-request-size 0", "pathsend": "--asgi-extensions pathsend"}
"""What ours is told for loads of a kind; others have no such bound, or offer what they have."""
AROUND = "benchmarks.load.around_apps:"
UVICORN = "uvicorn {app} --port {port} --workers {workers} --no-access-log --log-level warning"

GRANIAN = "granian {app} --port {port} --workers {workers} --loop uvloop --no-access-log --log-level warning"


def pounce(name: str, loop: str) -> Server:
    common = f"{POUNCE} --http-parser h1fast --loop {loop}"
    return Server(
        name,
        common,
        peer=False,
        h2=True,
        files=common + " --static-files /static=static",
        gzip=common,
        wsgi=common + " --interface wsgi --wsgi-threads 8",
    )


SERVERS = {
    server.name: server
    for server in (
        pounce("pounce", "asyncio"),
        pounce("pounce-uvloop", "uvloop"),
        Server(
            "pounce-processes",
            POUNCE + " --http-parser h1fast --loop asyncio --worker-mode process",
            peer=False,
            h2=True,
        ),
        Server("pounce-h11", POUNCE + " --http-parser h11 --loop asyncio", peer=False),
        Server(
            "uvicorn",
            UVICORN + " --http httptools --loop uvloop",
            files=UVICORN.replace("{app}", AROUND + "files --factory") + " --http httptools --loop uvloop",
            gzip=UVICORN.replace("{app}", AROUND + "gzipped --factory") + " --http httptools --loop uvloop",
        ),
        Server("uvicorn-zttp", UVICORN + " --http zttp --http2 --loop uvloop", h2=True, h2_requests=4000),
        Server("uvicorn-h11-asyncio", UVICORN + " --http h11 --loop asyncio"),
        Server("uvicorn-wsproto", UVICORN + " --http httptools --loop uvloop --ws wsproto"),
        Server(
            "granian",
            GRANIAN + " --interface asgi",
            files=GRANIAN + " --interface asgi --static-path-route /static --static-path-mount static",
            gzip=GRANIAN.replace("{app}", AROUND + "gzipped --factory") + " --interface asgi",
            wsgi=GRANIAN + " --interface wsgi --blocking-threads 8",
            tls="--ssl-certificate {certificate} --ssl-keyfile {key}",
            h2=True,
        ),
        Server("fastpysgi", "benchmarks.load.fastpysgi_server {app} {port} {workers}", tls="{certificate} {key}"),
        Server(
            "hypercorn",
            "hypercorn {app} --bind 127.0.0.1:{port} --workers {workers} --log-level warning "
            "--config {here}/hypercorn.toml",
            tls="--certfile {certificate} --keyfile {key}",
            h2=True,
        ),
        Server(
            "gunicorn",
            "",
            wsgi="gunicorn {app} --bind 127.0.0.1:{port} --workers {workers} --worker-class gthread --threads 8 "
            "--keep-alive 60 --log-level warning",
        ),
        Server("nginx", "", files="/nginx -p {folder} -c {folder}/nginx.conf"),
        Server(
            "bengal-pounce",
            "pounce serve --app {app} --host 127.0.0.1 --port {port} --workers {workers} --no-access-log "
            "--log-level warning --no-compression --signage off",
            h2=True,
        ),
    )
}


def environment() -> dict[str, str]:
    """What a server sees: nothing of ours but the applications, and no settings of the caller's shell."""
    kept = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
    }


@dataclass(slots=True)
class Running:
    """A server on a port of its own, in a session of its own: the session is its process tree."""

    server: Server
    python: Path
    app: str
    tls: bool = False
    workers: int = 1
    kind: str = ""
    port: int = field(init=False)
    process: subprocess.Popen[bytes] = field(init=False)
    folder: tempfile.TemporaryDirectory[str] = field(init=False)

    def __enter__(self) -> Self:
        self.port = free_port()
        # An empty working directory: servers look for settings in the current one.
        self.folder = tempfile.TemporaryDirectory(prefix="bench-")
        folder = Path(self.folder.name)
        if self.kind == "files":
            write_files(folder)
        if self.server.name == "nginx":
            text = (Path(__file__).parent / "nginx.conf").read_text()
            # By itself it changes to a user who may not look into the folder.
            user = "" if os.geteuid() else "user root;"
            (folder / "nginx.conf").write_text(
                text.format(port=self.port, folder=folder, workers=self.workers, user=user)
            )
        certificate, key = certificate_files(Path(self.folder.name)) if self.tls else ("", "")
        command = self.server.command(self.kind) + (" " + self.server.tls if self.tls else "")
        here = Path(__file__).parent
        arguments = command.format(
            app=self.app,
            port=self.port,
            workers=self.workers,
            certificate=certificate,
            key=key,
            here=here,
            folder=folder,
        ).split()
        # One worker has a core of its own; several need more than the one that the load leaves to them.
        cores = SERVER_CORE if self.workers == 1 else ALL_CORES
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                self._command(cores, arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder.name,
                env=environment(),
                start_new_session=True,
            )
        return self

    def _command(self, cores: str, arguments: list[str]) -> list[str]:
        if arguments[0].startswith("/"):
            return ["taskset", "-c", cores, arguments[0][1:], *arguments[1:]]
        return ["taskset", "-c", cores, str(self.python), "-m", *arguments]

    def __exit__(self, *_: object) -> None:
        try:
            self._signal(signal.SIGTERM)
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._signal(signal.SIGKILL)
            self.process.wait()
            self.folder.cleanup()

    @property
    def log_path(self) -> Path:
        return Path(self.folder.name, "log.txt")

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def pss_mib(self) -> float:
        """Proportional set size of all processes of the server, in MiB."""
        return sum(_pss_kib(pid) for pid in self._pids()) / 1024

    def processor_seconds(self) -> float:
        """What all its processes have run so far, in the kernel too; in steps of 10 ms as a rule."""
        return sum(_processor_ticks(pid) for pid in self._pids()) / os.sysconf("SC_CLK_TCK")

    def _pids(self) -> list[int]:
        pids = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                # The name, in parentheses, may contain anything; after it come state, parent, group, session.
                session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
            except FileNotFoundError, ProcessLookupError:
                continue
            if session == self.process.pid:
                pids.append(int(entry.name))
        return pids

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _processor_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError, ProcessLookupError:
        return 0
    # utime and stime: the 14th and 15th, of which the first two are cut off.
    return int(fields[11]) + int(fields[12])


def _pss_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except FileNotFoundError, ProcessLookupError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
