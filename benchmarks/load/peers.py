"""The environment of the other servers, apart from ours since one of them is also imported as `pounce`."""

import os
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

PINNED = (
    "bengal-pounce==0.9.2",
    "fastpysgi==0.6",
    "granian==2.8.7",
    "gunicorn==27.0.1",
    "h11==0.16.0",
    "httptools==0.9.0",
    "hypercorn==0.18.0",
    "uvicorn[standard]==0.54.0",
    "uvloop==0.23.0",
    "websockets==17.4",
    "wsproto==1.3.2",
    "zttp==0.0.35",
)
SHARED = ("fastapi", "starlette", "pydantic", "anyio")  # the same versions as in our environment


def peers_python() -> Path:
    """The interpreter of the peers' environment, which is built when it is missing or out of date."""
    base = getattr(sys, "_base_executable", sys.executable)
    requirements = [*PINNED, *(f"{name}=={metadata.version(name)}" for name in SHARED)]
    tag = sysconfig.get_config_var("py_version") + sys.abiflags
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "pounce" / f"bench-peers-{tag}"
    python, stamp = folder / "bin" / "python", folder / "built-from.txt"
    built_from = "\n".join([base, *requirements])
    if stamp.exists() and stamp.read_text() == built_from:
        return python
    uv = shutil.which("uv")
    if uv is None:
        raise SystemExit("uv is needed to build the environment of the other servers")
    print(f"building {folder}", file=sys.stderr)
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", base, str(folder)], check=True)
    subprocess.run(
        [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *requirements],
        check=True,
    )
    stamp.write_text(built_from)
    return python
