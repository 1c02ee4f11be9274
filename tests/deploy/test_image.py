"""The image of deploy/docker, built and run by its Dockerfile without an engine; `make faults`.

Its steps run in roots of Debian with what `pounce init --docker` writes, then its process 1 in namespaces of its own,
as the image's user. Two things are not the published ones: the wheels are built from this checkout, and what
`uv python install` finds is the interpreter that runs this test, with the libraries that it is linked with.
"""

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.deploy.images import Image, build, sent
from tests.deploy.proxies import DEPLOY, PATIENCE
from tests.workers.running import eventually

from pounce_cli.new_project import init_project

ROOT = DEPLOY.parent
DOCKERFILE = (DEPLOY / "docker" / "Dockerfile").read_text()
HOME = Path(sys.base_prefix)
OF_THE_C_LIBRARY = ("libc.", "libm.", "libdl.", "libpthread.", "librt.", "libutil.")
ADDRESS, BESIDE = "10.213.78.2", "10.213.78.1"
APP = '''
import ssl, subprocess

async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/orphan":
        # Its shell ends at once, and nobody is left to wait for it but process 1.
        said = subprocess.run(["sh", "-c", "sleep 3600 >/dev/null 2>&1 & echo $!"], stdout=subprocess.PIPE).stdout
    elif scope["path"] == "/authorities":
        said = b"%d" % ssl.create_default_context().cert_store_stats()["x509_ca"]
    else:
        said = scope["client"][0].encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": said})
'''
pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for chroot and namespaces"),
    pytest.mark.skipif(
        not all(map(shutil.which, ("mmdebstrap", "unshare", "ip", "curl"))),
        reason="needs mmdebstrap, util-linux, iproute2, curl (apt install)",
    ),
    pytest.mark.skipif(
        "t" not in sys.abiflags or Path("/usr") == HOME, reason="needs a free-threaded build in a folder of its own"
    ),
]


def run(*words: str | Path) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def bases(folder: Path) -> dict[str, Path]:
    """What the Dockerfile names after FROM, by name: the smallest Debian 13; the Python of the one is not there yet."""
    beside_python = ["ca-certificates", "netbase"]
    with_python, plain = folder / "with-python", folder / "plain"
    run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(beside_python)}", "trixie", with_python)
    run("cp", "-a", with_python, plain)
    own = ["unshare", "--mount", "--pid", "--fork", f"--mount-proc={plain}/proc", "chroot", str(plain)]
    run(*own, "apt-get", "purge", "--quiet=2", "--yes", "--auto-remove", *beside_python)
    put_libraries(with_python)
    put_libraries(plain)
    return {"python:3.14-slim": with_python, "debian:13-slim": plain}


def put_libraries(root: Path) -> None:
    """Those that the interpreter of this test has from its system; the one that uv fetches brings its own."""
    linked = [HOME / "bin" / "python3.14t", *(HOME / "lib").rglob("lib-dynload/*.so"), *(HOME / "lib").glob("*.so*")]
    # No window opens here.
    found = run("ldd", *(file for file in linked if "_tkinter" not in file.name))
    for library in {line.split()[2] for line in found.splitlines() if "=> /" in line}:
        if not Path(library).name.startswith(OF_THE_C_LIBRARY) and HOME not in Path(library).parents:
            shutil.copy(library, root / "usr" / "local" / "lib")
    run("chroot", root, "ldconfig")


def put_interpreter(place: Path) -> None:
    # As those that uv fetches, without what others have compiled.
    compiled = shutil.ignore_patterns("__pycache__")
    shutil.copytree(HOME, place, symlinks=True, dirs_exist_ok=True, ignore=compiled)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    scratch = tmp_path_factory.mktemp("image")
    wheels, roots = scratch / "wheels", bases(scratch)
    for package in sorted((ROOT / "packages").iterdir()):
        run(ROOT / ".venv" / "bin" / "uv", "build", "--quiet", "--no-sources", "--wheel", package, "--out-dir", wheels)
    pip = [HOME / "bin" / "python3.14t", "-m", "pip", "-qqq", "download", "--dest", wheels, "--find-links", wheels]
    run(*pip, "pounce-cli[all]", "uv>=0.9,<1")
    (context := scratch / "shop").mkdir()
    init_project(".", context, docker=True)
    (context / "main.py").write_text(APP)
    (context / "key.pem").write_text("a secret")
    # Of one who lets nobody read what is theirs, and of one who lets everybody write.
    (context / "main.py").chmod(0o600)
    (context / "pounce.toml").chmod(0o666)

    root = roots["python:3.14-slim"]
    put_interpreter(root / "usr" / "local")
    (pip := root / "usr" / "local" / "bin" / "pip").write_text('#!/bin/sh\nexec python3.14t -m pip "$@"\n')
    pip.chmod(0o755)
    of_uv = f"cpython-{platform.python_version()}+freethreaded-linux-{platform.machine()}-gnu"
    put_interpreter(root / "opt" / "python" / of_uv)
    shutil.copytree(wheels, root / "wheels")
    (root / "etc" / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    (root / "etc" / "uv").mkdir()
    (root / "etc" / "uv" / "uv.toml").write_text('no-index = true\nfind-links = ["/wheels"]\n')
    yield build(DOCKERFILE, sent(context, scratch / "context"), roots)
    shutil.rmtree(scratch)


class Running:
    """A container: process 1 in namespaces of its own, with an address that others beside it can reach."""

    def __init__(self, image: Image, log: Path, stack: ExitStack) -> None:
        self.image, self.log = image, log
        inner, self.outside = f"image-{os.getpid()}", f"beside-{os.getpid()}"
        for name in (inner, self.outside):
            run("ip", "netns", "add", name)
            stack.callback(run, "ip", "netns", "del", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        run("ip", "-n", inner, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", self.outside)
        for name, address in ((inner, ADDRESS), (self.outside, BESIDE)):
            run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", f"--mount-proc={image.root}/proc"]
        command = ["ip", "netns", "exec", inner, *namespaces, *image.inside(*image.entrypoint, *image.command)]
        with log.open("w") as said:
            self.process = subprocess.Popen(command, stdout=said, stderr=said)
        stack.callback(self.process.wait)
        stack.callback(self.process.kill)

        children = ["pgrep", "-P", str(self.process.pid)]
        while not (found := subprocess.run(children, stdout=subprocess.PIPE, text=True).stdout):
            assert self.process.poll() is None, log.read_text()
        self.first = int(found)
        """Process 1, as it is called outside."""

    def healthy(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        into = ["nsenter", f"--target={self.first}", "--mount", "--pid", "--net", "--root"]
        asked = subprocess.run([*into, *self.image.inside(*self.image.health, root="/")], capture_output=True)
        return asked.returncode == 0

    def get(self, path: str) -> str:
        port = self.image.ports[0].partition("/")[0]
        return run("ip", "netns", "exec", self.outside, "curl", "-sS", "--fail", f"http://{ADDRESS}:{port}{path}")


@pytest.fixture(scope="module")
def running(image: Image) -> Iterator[Running]:
    with ExitStack() as stack:
        container = Running(image, image.root.parent / "log", stack)
        # As an engine does, until it is healthy.
        eventually(container.healthy)
        yield container


def test_it_is_reached_from_outside(running: Running) -> None:
    assert running.get("/") == BESIDE


def test_its_process_1_is_the_server_of_its_user(running: Running) -> None:
    status = Path(f"/proc/{running.first}/status").read_text()
    assert "\nUid:\t10001\t10001\t10001\t10001\n" in status
    assert b"pounce" in Path(f"/proc/{running.first}/cmdline").read_bytes().split(b"\0")[1]


def test_orphans_are_waited_for(running: Running) -> None:
    orphan = running.get("/orphan").strip()
    [pid] = [pid for pid in run("pgrep", "-x", "sleep").split() if inner_pid(pid) == orphan]
    os.kill(int(pid), signal.SIGKILL)
    # A process that nobody waits for stays there.
    eventually(lambda: not Path(f"/proc/{pid}").exists())


def inner_pid(pid: str) -> str:
    """What a process is called in its own namespace, for one that is in the namespace of a container."""
    [ids] = [line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("NSpid:")]
    return ids[-1]


def test_it_knows_the_authorities_of_certificates(running: Running) -> None:
    assert int(running.get("/authorities")) > 0


def test_the_interpreter_is_the_one_that_came_by_uv(image: Image) -> None:
    python = run(*image.inside("python", "-c", "import sys; print(sys.base_prefix)"))
    assert python.startswith("/opt/python/")


def test_its_user_can_write_nothing_of_it(image: Image) -> None:
    others = ["(", "-path", "/proc", "-o", "-path", "/dev", "-o", "-path", "/tmp", ")", "-prune", "-o"]
    find = image.inside("find", "/", *others, "-writable", "!", "-type", "l", "-print")
    # It fails where it may not look at all.
    found = subprocess.run(find, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    assert set(found.split()) == {"/var/tmp", "/run/lock"}


def test_everything_that_it_imports_has_been_compiled(image: Image) -> None:
    python = image.inside("python", "-v", "-c", "import main, pounce_cli.main, pounce.server")
    said = subprocess.run(python, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert re.findall(r"^# code object from '(.*\.py)'$", said.stderr, re.MULTILINE) == []
    assert re.search(r"^# code object from '/opt/python/.*/asyncio/.*\.pyc'$", said.stderr, re.MULTILINE)


def test_keys_beside_the_application_are_left_out(image: Image) -> None:
    assert [path.name for path in image.at(".").glob("*.pem")] == []


def test_it_ends_in_good_order_at_its_signal(running: Running) -> None:
    os.kill(running.first, getattr(signal, running.image.signal))
    assert running.process.wait(PATIENCE) == 0, running.log.read_text()
