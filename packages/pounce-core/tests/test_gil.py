"""Nothing that is installed by default switches the GIL on."""

import subprocess
import sys
import sysconfig

import pytest

from pounce.gil import gil_enabled

free_threaded = pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this interpreter always has the GIL"
)


def gil_after(*modules: str) -> str:
    code = "import importlib, sys\n"
    for module in modules:
        code += f"importlib.import_module({module!r})\n"
    code += "print(sys._is_gil_enabled())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@free_threaded
@pytest.mark.parametrize(
    "module",
    ["h11", "pounce.server", "pounce.worker.worker", "pounce.h1.connection", "pounce.net.tls", "pounce.testing"],
)
def test_gil_stays_off_after_importing(module: str) -> None:
    assert gil_after(module) == "False"


@free_threaded
@pytest.mark.parametrize("module", ["cyclopts", "rich", "pounce_cli"])
def test_gil_stays_off_with_the_command_line(module: str) -> None:
    pytest.importorskip(module)
    assert gil_after(module) == "False"


def test_build_that_cannot_go_without_counts_as_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys, "_is_gil_enabled", raising=False)
    assert gil_enabled()


@pytest.mark.parametrize("state", [True, False])
def test_interpreter_is_asked_each_time(monkeypatch: pytest.MonkeyPatch, state: bool) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: state, raising=False)
    assert gil_enabled() is state
