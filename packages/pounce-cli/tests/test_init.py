"""`pounce init`: what it makes works as it is."""

import os
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from pounce_cli.commands import _init_command
from pounce_cli.init import KINDS
from pounce_cli.main import main


def test_plugins_of_every_kind_and_an_application_pass_their_own_tests_and_a_linter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in KINDS:
        assert main(["init", "--plugin", f"my-{kind}", "--kind", kind]) == 0
    assert main(["init", "hello"]) == 0
    sources = [str(tmp_path / "hello"), *(str(tmp_path / f"pounce-my-{kind}" / "src") for kind in KINDS)]
    words = ["-m", "pytest", "-q", "--import-mode=importlib", "-p", "pounce.testing.pytest_plugin", str(tmp_path)]
    tested = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sources), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
    )
    assert f"{len(KINDS) + 2} passed" in tested.stdout, tested.stdout
    checks = ["--isolated", "--select", "E,F,W,I,B,UP,SIM,RUF", "--line-length", "120", "--target-version", "py314"]
    folders = [f"pounce-my-{kind}" for kind in KINDS]
    roots = f"src = {[f'{folder}/src' for folder in folders]}"
    ruff = [sys.executable, "-m", "ruff", "check", "--no-cache", *checks, "--config", roots, *folders]
    checked = subprocess.run(ruff, cwd=tmp_path, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_command_line_knows_all_kinds() -> None:
    assert get_args(get_type_hints(_init_command)["kind"]) == KINDS


def test_a_wire_is_what_is_made_without_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--plugin", "gopher"]) == 0
    assert "wires=(" in (tmp_path / "pounce-gopher/src/pounce_gopher/__init__.py").read_text()
    assert 'gopher = "pounce_gopher:plugin"' in (tmp_path / "pounce-gopher/pyproject.toml").read_text()


@pytest.mark.parametrize("name", ["Gopher", "../x", "a b", "", "1a", "a_b"])
def test_a_name_that_is_none_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "--plugin", name]) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pounce-gopher").mkdir()
    assert main(["init", "--plugin", "gopher"]) == 2
    assert list((tmp_path / "pounce-gopher").iterdir()) == []
