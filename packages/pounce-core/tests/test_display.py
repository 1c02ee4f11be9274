"""How an application shows itself: settings, then DisplayConfig, then what the application says."""

import asyncio
import logging
from typing import Any

import pytest

from pounce import ConfigError, DisplayConfig, Server, ServerConfig
from pounce.display import display_of
from pounce.testing import TestServer


class App:
    def __init__(self) -> None:
        self.__pounce_display__: Any = {"name": "Shop", "version": "1", "lines": ["a"], "signage": "minimal"}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("never asked")


def test_each_part_is_the_one_that_comes_first() -> None:
    config = ServerConfig(app_name="Ours", display=DisplayConfig(name="x", tagline="t"))
    assert display_of(config, App()) == DisplayConfig("Ours", "t", "1", ("a",), "minimal")


def test_nobody_has_to_say_anything() -> None:
    assert display_of(ServerConfig()) == DisplayConfig()


def test_an_application_may_say_it_by_a_function() -> None:
    app = App()
    app.__pounce_display__ = lambda: {"name": "Called"}
    assert display_of(ServerConfig(), app).name == "Called"


def fails() -> None:
    raise RuntimeError("no")


@pytest.mark.parametrize("said", [{"nam": "x"}, {"name": 3}, {"lines": "abc"}, {"signage": "loud"}, 3, fails])
def test_what_an_application_says_wrong_is_a_warning(said: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    app.__pounce_display__ = said
    with caplog.at_level(logging.WARNING, "pounce"):
        assert display_of(ServerConfig(app_name="x"), app) == DisplayConfig("x")
    assert "__pounce_display__ of the application is not used" in caplog.text


def test_settings_are_checked() -> None:
    assert ServerConfig(display={"name": "x"}).display == DisplayConfig("x")
    with pytest.raises(ConfigError, match="signage"):
        ServerConfig(display={"signage": "loud"})
    with pytest.raises(ConfigError, match="display must be"):
        ServerConfig(display=3)


@pytest.mark.parametrize("settings", [{}, {"workers": 2, "worker_mode": "thread"}, {"factory": True, "workers": 2}])
def test_the_start_tells_it(settings: dict[str, Any]) -> None:
    with TestServer(App if settings.get("factory") else App(), lifespan="off", **settings) as server:
        assert server.info.display.name == "Shop"


def test_another_process_tells_it_too(tmp_path: Any) -> None:
    (tmp_path / "shown.py").write_text(
        "async def app(scope, receive, send): pass\napp.__pounce_display__ = {'name': 'Far'}\n"
    )
    settings = {"lifespan": "off", "app_dir": str(tmp_path), "worker_mode": "process"}
    with TestServer("shown:app", **settings) as server:
        assert server.info.display.name == "Far"


def test_the_line_of_the_start_has_it(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        config = ServerConfig(port=0, lifespan="off", app_tagline="Sells")
        server = Server(config, App(), on_ready=lambda info: server.shutdown())
        await server.serve()

    with caplog.at_level(logging.INFO, "pounce"):
        asyncio.run(test())
    events = [getattr(record, "event", None) for record in caplog.records]
    [event] = [event for event in events if isinstance(event, dict) and event.get("event") == "startup"]
    assert {"app_name": "Shop", "app_tagline": "Sells", "app_version": "1"}.items() <= event.items()
