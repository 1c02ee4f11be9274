"""Fixtures of all tests of the workspace."""

import faulthandler
import fcntl
import gc
import itertools
import logging
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from _pytest.faulthandler import (
    fault_handler_stderr_fd_key,
    get_exit_on_timeout_config_value,
    get_timeout_config_value,
)
from benchmarks.load.certificate import certificate_files
from tests.sequences import COUNTS, FUZZ_SECONDS
from xdist.scheduler import LoadFileScheduling
from xdist.workermanage import WorkerController

# Container images set it to stay small. Here every process that a test starts would compile all of its modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

WORTH_TELLING = 0.05
"""Seconds that a set-up takes which `--durations` should know of."""
WAITING = ("workers", "deploy", "interop")
"""Folders whose tests wait for processes."""
LONG = (
    "test_differential.py", "test_docs.py", "test_ordinary_clients.py", "test_sequences.py", "test_site.py",
    "test_webtransport_clients.py",
)  # fmt: skip
"""Files that take long with few tests."""


# Not a fixture, of which each costs every test a little.
@pytest.hookimpl(wrapper=True)
def pytest_runtestloop() -> Generator[None, object, object]:
    """What whoever runs the tests has set is nothing that servers should take for theirs, nor are they to be found.
    And what there is when the tests begin is not looked through for garbage at the end of some of them."""
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory(prefix="pounce-run-") as folder:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        of_others = {"FORWARDED_ALLOW_IPS", "PORT", "WEB_CONCURRENCY"}
        for name in [name for name in os.environ if name.startswith("POUNCE_") or name in of_others]:
            patch.delenv(name)
        return (yield)


SAYS_NOTHING: dict[str, Any] = {}
"""What is made of a report that is not sent."""


def pytest_sessionstart(session: pytest.Session) -> None:
    """Have xdist send one report for a test that passes, and not three with a beginning and an end, each of which
    costs half a millisecond in two processes."""
    for plugin in session.config.pluginmanager.get_plugins():
        if type(plugin).__name__ == "WorkerInteractor":
            plugin.sendevent = partial(_send_what_tells, plugin.sendevent)


def _send_what_tells(send: Callable[..., None], name: str, **what: Any) -> None:
    if name not in ("logstart", "logfinish") and what.get("data") is not SAYS_NOTHING:
        send(name, **what)


@pytest.hookimpl(tryfirst=True)
def pytest_report_to_serializable(report: pytest.TestReport | pytest.CollectReport) -> dict[str, Any] | None:
    if isinstance(report, pytest.TestReport) and report.passed:
        if report.when != "call" and report.duration < WORTH_TELLING:
            return SAYS_NOTHING
        report.keywords = {}
    return None


LOGGERS = logging.getLogger("pounce"), logging.getLogger("pounce.access")


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """A server sets up the loggers of its process, which outlive it; libraries set up the root's when imported."""
    root = logging.getLogger()
    # Setting it makes every logger look again.
    if root.level != logging.WARNING:
        root.setLevel(logging.WARNING)
    before = [(each, each.level, each.propagate, each.disabled, each.handlers[:]) for each in LOGGERS]
    yield
    for each, level, propagate, disabled, handlers in before:
        if each.level != level:
            each.setLevel(level)
        each.propagate, each.disabled, each.handlers[:] = propagate, disabled, handlers


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Paths of a certificate for this machine and of its key."""
    certificate, key = certificate_files(tmp_path_factory.mktemp("tls"))
    return str(certificate), str(key)


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collect tests, of which there are twenty thousand in each process, without looking for garbage among them."""
    gc.disable()
    try:
        with _after_the_first(session.config):
            return (yield)
    finally:
        gc.enable()


@contextmanager
def _after_the_first(config: pytest.Config) -> Iterator[None]:
    """Have one process collect before the others, which would all compile the same files at the same time."""
    if not hasattr(config, "workerinput") or config.cache is None:
        yield
        return
    with open(config.cache.mkdir("collection") / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put long files first, then those with the most tests, so that no file is alone at the end; and between two of
    those that wait one that does not, which takes the CPU that they leave. Each process takes the next file of the list
    (`--no-loadscope-reorder`)."""
    counts = Counter(item.path for item in items)
    waiting: list[Path] = []
    others: list[Path] = []
    for path in sorted(counts, key=lambda path: (path.name not in LONG, -counts[path], path)):
        (waiting if path.parent.name in WAITING else others).append(path)
    places = {path: place for place, path in enumerate(itertools.chain(*itertools.zip_longest(waiting, others)))}
    items.sort(key=lambda item: places[item.path])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tells how much a long run has tried, and with `--durations` what each folder takes; see CONTRIBUTING.md."""
    if terminalreporter.config.getoption("durations") is not None:
        seconds: dict[str, float] = defaultdict(float)
        for report in itertools.chain.from_iterable(terminalreporter.stats.values()):
            if isinstance(report, pytest.TestReport):
                seconds["/".join(report.nodeid.split("/")[:2])] += report.duration
        for folder, taken in sorted(seconds.items(), key=lambda item: -item[1]):
            terminalreporter.write_line(f"{taken:7.0f} s  {folder}")
    if FUZZ_SECONDS:
        for name, count in COUNTS.items():
            terminalreporter.write_line(f"{count:,} {name}")


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    """A test that has failed is watched on, as its end may take for ever: pytest stops its watch at a failure, lest it
    ends who looks into it with a debugger."""
    seconds = get_timeout_config_value(node.config)
    if seconds > 0 and isinstance(node, pytest.Item) and not node.config.getoption("usepdb"):
        stderr = node.config.stash[fault_handler_stderr_fd_key]
        faulthandler.dump_traceback_later(seconds, exit=get_exit_on_timeout_config_value(node.config), file=stderr)


class Files(LoadFileScheduling):
    """Whole files to each process, as xdist does it, but for one that ended in the middle of a test."""

    def remove_node(self, node: WorkerController) -> str | None:
        """Returns the test in which a process ended. It is not tried again, in which the next process would end too."""
        workload = self.assigned_work.pop(node)
        left = [(unit, test) for unit in workload.values() for test, done in unit.items() if not done]
        if not left:
            return None
        unit, ended = left[0]
        unit[ended] = True
        self.workqueue.update((path, unit) for path, unit in workload.items() if not all(unit.values()))
        for other in self.assigned_work:
            self._reschedule(other)
        return ended

    def _reschedule(self, node: WorkerController) -> None:
        """One that still collects is given nothing; it has its turn afterwards."""
        if node in self.registered_collections:
            super()._reschedule(node)

    def schedule(self) -> None:
        """Tells a process that came later, too, when no file is left, without which it waits before its last test."""
        comes_later = self.collection is not None
        super().schedule()
        if comes_later and not self.workqueue:
            for node in self.nodes:
                if not node.shutting_down:
                    node.shutdown()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Files | None:
    return Files(config, log) if config.getoption("dist") == "loadfile" else None
