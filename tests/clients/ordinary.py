"""The environment of the clients that need an ordinary Python: found, or built, or the reason why there is none."""

import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

__all__ = ["conversation", "python_with", "run_client"]

PINNED = ("aioquic==1.7.2", "niquests==3.21.2")
NAMES = ("python3.13", "python3.12", "python3.11", "python3.10", "python3")
IS_ORDINARY = """
import sys, sysconfig
print(sys.version_info >= (3, 10) and not sysconfig.get_config_var("Py_GIL_DISABLED"))
"""


def interpreter() -> str | None:
    """A Python of at least 3.10 that has a GIL."""
    for name in NAMES:
        found = shutil.which(name)
        if found is not None:
            said = subprocess.run([found, "-c", IS_ORDINARY], capture_output=True, text=True, check=False)
            if said.stdout.strip() == "True":
                return found
    return None


@functools.cache
def python_with(*packages: str) -> tuple[Path | None, str]:
    """The interpreter of an environment with these, or None and why there is none. Built once for each user."""
    base = interpreter()
    if base is None:
        return None, f"none of {', '.join(NAMES)} is an ordinary Python of at least 3.10"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pounce"
    tag = hashlib.sha256("\n".join((base, *packages)).encode()).hexdigest()[:12]
    folder = cache / f"clients-{tag}"
    stamp = folder / "is-complete"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "clients.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.exists():
            for command in (
                ["venv", "--clear", "--python", base, str(folder)],
                ["pip", "install", "--python", str(folder / "bin" / "python"), *packages],
            ):
                done = subprocess.run([find_uv_bin(), "--quiet", *command], capture_output=True, text=True, check=False)
                if done.returncode:
                    return None, f"{', '.join(packages)} cannot be installed: {done.stderr.strip()}"
            stamp.touch()
    return folder / "bin" / "python", ""


def command(name: str) -> list[str | Path]:
    """What runs `NAME.py`. Skips the test where there is no ordinary Python for it."""
    python, reason = python_with(*PINNED)
    if python is None:
        pytest.skip(reason)
    return [python, Path(__file__).with_name(f"{name}.py")]


def run_client(name: str, **task: Any) -> Any:
    """Let `NAME.py` do a task; what it reports. Skips the test where there is no ordinary Python for it."""
    done = subprocess.run(
        command(name), input=json.dumps(task), capture_output=True, text=True, timeout=120, check=False
    )
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


@contextmanager
def conversation(name: str) -> Iterator[Callable[..., Any]]:
    """Run `NAME.py`, which is asked by calls and answers each. Skips the test where no ordinary Python is there."""
    with subprocess.Popen(command(name), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        to, back = process.stdin, process.stdout
        assert to is not None and back is not None

        def call(*what: Any) -> Any:
            print(json.dumps(what), file=to, flush=True)
            return json.loads(back.readline())

        yield call
        to.close()
