"""Reports to Sentry, as a receiver on loopback gets them from the SDK in another process."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from tests.collector import collecting
from tests.workers.running import eventually

from pounce import ClientGone, ConfigError, ServerConfig
from pounce.observe import sentry, sentry_plugin
from pounce.server import Server
from pounce.supervisor import modes
from pounce.testing import TestServer

APP = """
import sys

# The SDK imports all that it has an integration for: a second of this machine's for each framework.
for name in "aiohttp channels django fastapi flask httpx2 litestar mcp quart redis starlette".split():
    sys.modules.setdefault(name, None)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("-".join(("no", "lifespan")))
    # Reports have the lines around a fault.
    local = "-".join(("private", "local"))
    if scope["path"].startswith("/fails/"):
        scope["pounce.route"] = "/fails/{id}"
        try:
            {}["cause"]
        except KeyError as exc:
            raise ValueError("on purpose") from exc
    body = str(getattr(sys, "_is_gil_enabled", lambda: False)()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""
PRIVATE = {
    "Cookie": "a=private-cookie",
    "Authorization": "Bearer private-token",
    "Referer": "http://shop.example/reset?token=private-page",
    "X-Forwarded-For": "192.0.2.7",
}


class Reports:
    """What has come of one process, and what it answered."""

    def __init__(self, bodies: list[bytes], gil: bytes) -> None:
        self.everything = b"".join(bodies)
        self.gil = gil
        self.items: list[dict[str, Any]] = []
        for body in bodies:
            lines = body.split(b"\n")
            self.items += [json.loads(line) for line in lines[1:] if line.startswith(b"{") and b'"event_id"' in line]

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [item for item in self.items if "exception" in item]

    @property
    def transactions(self) -> list[dict[str, Any]]:
        return [item for item in self.items if item.get("type") == "transaction"]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reports]:
    """Of a process that has answered two requests, and ended."""
    folder = tmp_path_factory.mktemp("sentry")
    (folder / "reported_main.py").write_text(APP)
    with collecting() as receiver:
        with TestServer(
            "reported_main:app",
            worker_mode="process",
            app_dir=str(folder),
            log_level="critical",
            sentry_dsn=f"http://key@127.0.0.1:{receiver.port}/1",
            sentry_environment="shop-tests",
            sentry_release="shop-1.2",
            sentry_traces_sample_rate=1.0,
        ) as server:
            with urlopen(server.url + "/fine?q=private-query") as fine:
                gil = fine.read()
            asked = Request(server.url + "/fails/17?q=private-query", b"private-body", PRIVATE)
            with pytest.raises(HTTPError) as failed:
                urlopen(asked)
            failed.value.close()
            # Of the last two requests; a machine that is busy may need longer than a worker waits at its end.
            eventually(lambda: len(Reports(receiver.of("/api/1/envelope/"), gil).transactions) == 2)
        yield Reports(receiver.of("/api/1/envelope/"), gil)


def test_what_the_application_raises_is_reported_once_with_its_cause(reports: Reports) -> None:
    [error] = reports.errors
    assert [each["type"] for each in error["exception"]["values"]] == ["KeyError", "ValueError"]


def test_a_report_says_what_was_asked_where_and_of_which_version(reports: Reports) -> None:
    [error] = reports.errors
    assert error["request"]["url"].endswith("/fails/17")
    assert (error["environment"], error["release"]) == ("shop-tests", "shop-1.2")


def test_the_route_that_the_application_sets_names_a_transaction(reports: Reports) -> None:
    names = {transaction["transaction"] for transaction in reports.transactions}
    assert "/fails/{id}" in names
    assert len(names) == 2


def test_nothing_personal_is_sent_unless_it_was_asked_for(reports: Reports) -> None:
    assert b"on purpose" in reports.everything
    assert [word for word in (b"private-", b"192.0.2.7", b"REMOTE_ADDR") if word in reports.everything] == []


def test_an_application_without_a_lifespan_is_no_error(reports: Reports) -> None:
    assert b"no-lifespan" not in reports.everything


def test_the_sdk_does_not_switch_the_gil_on(reports: Reports) -> None:
    assert reports.gil == b"False"


def test_a_client_that_has_left_is_no_error() -> None:
    gone = RuntimeError("in the application")
    gone.__cause__ = ClientGone()
    assert sentry._cleaned(False, {}, {"exc_info": (RuntimeError, gone, None)}) is None


def test_what_is_personal_is_sent_where_it_was_asked_for() -> None:
    event = {"request": {"query_string": "q=1"}}
    assert sentry._cleaned(True, event, {}) == {"request": {"query_string": "q=1"}}


def a_service(**settings: Any) -> Any:
    return SimpleNamespace(config=ServerConfig(sentry_dsn="http://key@127.0.0.1:9/1", **settings), on_end=set())


async def app(scope: object, receive: object, send: object) -> None: ...


def test_a_client_of_the_application_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentry.sentry_sdk, "get_client", lambda: SimpleNamespace(is_active=lambda: True))
    monkeypatch.setattr(sentry.sentry_sdk, "init", lambda **options: pytest.fail("another one is made"))
    service = a_service()
    sentry.reported(service, app)
    assert len(service.on_end) == 1


def test_the_project_may_be_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("http://key@127.0.0.1:9/2\n")
    made: list[Any] = []
    monkeypatch.setattr(sentry.sentry_sdk, "get_client", lambda: SimpleNamespace(is_active=lambda: False))
    monkeypatch.setattr(sentry.sentry_sdk, "init", lambda **options: made.append(options["dsn"]))
    service = SimpleNamespace(config=ServerConfig(sentry_dsn_file=str(tmp_path / "dsn")), on_end=set())
    assert sentry_plugin.create(service, app) is not None  # type: ignore[arg-type]
    assert made == ["http://key@127.0.0.1:9/2"]


def test_a_profiler_that_is_not_safe_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentry, "gil_enabled", lambda: False)
    with pytest.raises(ConfigError, match="sentry_profiles_sample_rate needs the GIL"):
        sentry.reported(a_service(sentry_profiles_sample_rate=0.5), app)


def test_an_address_that_is_none_is_refused() -> None:
    service = SimpleNamespace(config=ServerConfig(sentry_dsn="nonsense"), on_end=set())
    with pytest.raises(ConfigError, match="sentry_dsn must be that of a project"):
        sentry.reported(service, app)


def test_without_the_sdk_the_command_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pounce.observe.sentry")
    monkeypatch.setitem(sys.modules, "sentry_sdk", None)
    with pytest.raises(ConfigError, match="sentry_dsn needs") as raised:
        sentry_plugin.create(a_service(), app)
    assert "pip install 'pounce-core[sentry]'" in str(raised.value.hint)


def test_without_an_address_nothing_of_it_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pounce.observe.sentry")
    monkeypatch.setitem(sys.modules, "sentry_sdk", None)
    assert sentry_plugin.create(SimpleNamespace(config=ServerConfig()), app) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", ["sentry_dsn", "sentry_dsn_file", "otel_endpoint"])
def test_interpreters_that_cannot_send_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting} and worker_mode subinterpreter"):
        modes.check_workers(ServerConfig(worker_mode="subinterpreter", **{setting: "http://key@127.0.0.1:9/1"}))
    with pytest.raises(ConfigError):
        Server(ServerConfig(worker_mode="subinterpreter", **{setting: "http://key@127.0.0.1:9/1"}), app)
