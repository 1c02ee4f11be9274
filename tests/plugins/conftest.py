"""Fixtures of the tests of plugins."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which all example plugins were installed, without their dependencies."""
    target, sources = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("sources")
    names = sorted(folder.name for folder in EXAMPLES.glob("pounce-*"))
    for name in names:
        shutil.copytree(EXAMPLES / name, sources / name)
    subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable, "--no-deps",
         "--no-index", "--no-build-isolation", "--target", str(target), *(str(sources / name) for name in names)],
        check=True,
    )  # fmt: skip
    return target
