"""The image of deploy/docker: what a linter says of the file, and what its last lines start."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.deploy.images import instructions, listed
from tests.workers.running import eventually

from pounce_cli.new_project import DOCKERFILE, DOCKERIGNORE

FOLDER = Path(__file__).parents[2] / "deploy" / "docker"
BIN = Path(sys.executable).parent
PATIENCE = 60.0
APP = """
async def app(scope, receive, send):
    raise NotImplementedError
"""


def last(name: str) -> str:
    """What the last instruction of this name says."""
    return [words for each, words in instructions((FOLDER / "Dockerfile").read_text()) if each == name][-1]


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: the address of a Unix socket has room for about a hundred bytes.
    path = Path(tempfile.mkdtemp(prefix="image-"))
    yield path
    shutil.rmtree(path)


def test_the_linter_finds_nothing() -> None:
    if not (BIN / "hadolint").exists():
        pytest.skip("needs hadolint: install the group dev, `make setup`")
    done = subprocess.run([BIN / "hadolint", FOLDER / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_is_what_init_writes() -> None:
    assert (FOLDER / "Dockerfile").read_text() == DOCKERFILE
    assert (FOLDER / ".dockerignore").read_text() == DOCKERIGNORE


def test_nothing_runs_as_root() -> None:
    user = last("USER")
    assert user.isdecimal()
    assert int(user) > 0


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root and unshare, to be process 1"
)
def test_process_1_is_healthy_and_ends_at_the_signal(folder: Path) -> None:
    (folder / "main.py").write_text(APP)
    (folder / "pounce.toml").write_text('app = "main:app"\nport = 0\n')
    # Other servers of this machine are in neither folder.
    own = {"XDG_RUNTIME_DIR": str(folder), "TMPDIR": str(folder)}
    environment = {**os.environ, **own, "PATH": f"{BIN}:{os.environ['PATH']}"}
    health = listed(last("HEALTHCHECK"))
    namespaces = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            [*namespaces, *listed(last("ENTRYPOINT")), *listed(last("CMD"))],
            cwd=folder, env=environment, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            # As an engine does, until it is healthy.
            def is_healthy() -> bool:
                assert process.poll() is None, (folder / "log").read_text()
                return not subprocess.run(health, env=environment, cwd=folder, capture_output=True).returncode

            eventually(is_healthy)
            [first] = subprocess.check_output(["pgrep", "-P", str(process.pid)], text=True).split()
            os.kill(int(first), getattr(signal, last("STOPSIGNAL")))
            assert process.wait(PATIENCE) == 0, (folder / "log").read_text()
        finally:
            process.kill()
            process.wait()
    assert subprocess.run(health, env=environment, cwd=folder, capture_output=True).returncode != 0
