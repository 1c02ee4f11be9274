"""Workers start, and serve, while other threads import: what those change is not iterated over."""

import itertools
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest

from pounce import AppImportError, ServerConfig
from pounce.immortal import Immortals
from pounce.importer import import_app
from pounce.observe.logs import reopen_log_files
from pounce.testing import TestServer

pytestmark = pytest.mark.skipif("t" not in sys.abiflags, reason="the GIL makes iterations of this kind safe")


@contextmanager
def changing() -> Iterator[None]:
    """Within it there is a module `changing`: that, its class, all modules and all loggers change without end."""
    module = ModuleType("changing")
    module.Class = type("Class", (), {"__module__": "changing"})  # type: ignore[attr-defined]
    over = threading.Event()

    def change() -> None:
        for number in itertools.count():
            if over.is_set():
                return
            name = f"late{number}"
            sys.modules[name] = sys.modules[f"changing.{name}"] = ModuleType(name)
            setattr(module, name, number + 0.5)
            setattr(module.Class, name, number)
            logging.root.manager.loggerDict[name] = logging.Logger(name)
            if number >= 20:
                name = f"late{number - 20}"
                del sys.modules[name], sys.modules[f"changing.{name}"], logging.root.manager.loggerDict[name]
                delattr(module, name)
                delattr(module.Class, name)

    thread = threading.Thread(target=change)
    sys.modules["changing"] = module
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    for names in (sys.modules, logging.root.manager.loggerDict):
        for name in [name for name in names if name.startswith(("late", "changing"))]:
            del names[name]


def test_constants_are_made_immortal_while_modules_come_and_change() -> None:
    with changing():
        for _ in range(60):
            Immortals({"changing"}).look()


def test_name_that_an_application_lacks_is_reported_while_it_changes() -> None:
    with changing():
        for _ in range(60):
            with pytest.raises(AppImportError, match="no attribute 'missing'"):
                import_app("changing:missing", ServerConfig())


def test_log_files_are_opened_again_while_loggers_come_and_go() -> None:
    with changing():
        for _ in range(60):
            reopen_log_files()


def test_workers_start_and_look_after_themselves_while_another_thread_imports(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, enough = itertools.count(), threading.Event()
    look = Immortals.look

    def counted(self: Immortals) -> None:
        look(self)
        # Two at the start, and then two at each tick.
        if next(looks) == 4:
            enough.set()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError

    with changing():
        for _ in range(3):
            with TestServer(app, workers=2, worker_mode="thread"):
                pass
        monkeypatch.setattr(Immortals, "look", counted)
        with TestServer(app, workers=2, worker_mode="thread"):
            assert enough.wait(60)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
