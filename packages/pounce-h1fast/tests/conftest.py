"""Lets the tests import the modules beside them, and prints the tally of a long run."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    judges = sys.modules.get("judges")
    if judges is not None and judges.FUZZ_SECONDS:
        terminalreporter.section("differential suite")
        for line in judges.report():
            terminalreporter.write_line(line)
