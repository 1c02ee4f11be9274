"""What operators see: health, access log, drain and shutdown."""

import asyncio
import io
import json
import logging
import re
import threading
from typing import Any

import pytest
from tests.conformance.asgi_receive import Script
from tests.conformance.asgi_send import START, Send, body, start
from tests.conformance.client import PATIENCE
from tests.conformance.wires import Started, Wire, answer, read_body

from pounce import AppImportError, ServerConfig
from pounce.observe.access_entry import AccessEntry
from pounce.observe.formats import FIELD_MAX
from pounce.observe.logs import JSONFormatter, TextFormatter


async def hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await answer(send, b"from the application")


async def hello_after_the_body(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await read_body(receive)
    await hello(scope, receive, send)


class Held(Script):
    """Answers once the test says so."""

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        self.events.put("begun")
        await self.wait_for_the_test()
        await answer(send, b"finished")


# Health


def test_health_says_ok(wire: Wire) -> None:
    response = wire.share(hello, health_check_path="/healthz").request("GET", "/healthz")
    assert response.status == 200
    assert response.headers[b"content-type"] == b"application/json"
    assert b"no-store" in response.headers[b"cache-control"]
    health = json.loads(response.body)
    assert (health["status"], health["worker_id"]) == ("ok", 0)
    assert health["active_connections"] >= 1
    assert health["uptime_seconds"] >= 0


def test_health_answers_head_without_a_body(wire: Wire) -> None:
    response = wire.share(hello, health_check_path="/healthz").request("HEAD", "/healthz")
    assert (response.status, response.body, response.complete) == (200, b"", True)
    assert int(response.headers[b"content-length"]) > 0


def test_health_ignores_the_query(wire: Wire) -> None:
    response = wire.share(hello, health_check_path="/healthz").request("GET", "/healthz?probe=1")
    assert json.loads(response.body)["status"] == "ok"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_health_leaves_other_methods_to_the_application(wire: Wire, method: str) -> None:
    server = wire.share(hello, health_check_path="/healthz")
    assert server.request(method, "/healthz").body == b"from the application"


@pytest.mark.parametrize("path", ["/", "/healthz/", "/healthz/x", "/healthzz", "/HEALTHZ", "//healthz"])
def test_health_leaves_other_paths_to_the_application(wire: Wire, path: str) -> None:
    assert wire.share(hello, health_check_path="/healthz").request("GET", path).body == b"from the application"


def test_health_is_off_by_default(wire: Wire) -> None:
    assert wire.share(hello).request("GET", "/healthz").body == b"from the application"


class EndsTheServer(Held):
    """Begins the drain from within a request, and says so once it has begun."""

    server: Started

    async def serve(self, scope: Any, receive: Any, send: Any) -> None:
        self.server.server.shutdown()
        for _ in range(20):
            await asyncio.sleep(0)
        await super().serve(scope, receive, send)


def test_health_says_draining_while_the_server_ends(wire: Wire) -> None:
    app = EndsTheServer()
    app.server = server = wire.start(app, health_check_path="/healthz")
    with server.connect() as probe, server.connect() as client:
        request = client.open("GET", "/")
        app.next()
        # No request has begun on this one, so that it may still bring one.
        response = probe.request("GET", "/healthz")
        assert (response.status, json.loads(response.body)["status"]) == (503, "draining")
        app.go.set()
        assert request.response().body == b"finished"


def test_probes_say_ok(wire: Wire) -> None:
    server = wire.share(hello, probes=True)
    live, ready = server.request("GET", "/livez"), server.request("GET", "/readyz?verbose")
    assert (live.status, json.loads(live.body)) == (200, {"status": "ok"})
    assert b"no-store" in live.headers[b"cache-control"]
    workers = {"wanted": 1, "serving": 1, "starting": 0, "draining": 0}
    assert (ready.status, json.loads(ready.body)) == (200, {"status": "ok", "workers": workers})


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz?verbose"])
def test_health_is_answered_and_not_logged_in_absolute_form(wire: Wire, lines: Lines, path: str) -> None:
    """RFC 9112 3.2.2: a server must accept it."""
    if not wire.case.has_reasons:
        pytest.skip("other wires than HTTP/1.1 have no absolute form")
    server = wire.share(hello, probes=True, health_check_path="/healthz", access_log=True)
    response = server.request("GET", f"http://example.org{path}")
    assert response.headers[b"content-type"] == b"application/json"
    server.stop()
    assert lines.entries == []


def test_probes_are_off_by_default_and_answer_nothing_else(wire: Wire) -> None:
    for server, method, path in (
        (wire.share(hello), "GET", "/livez"),
        (wire.share(hello, probes=True), "POST", "/livez"),
        (wire.share(hello, probes=True), "GET", "/readyz/x"),
    ):
        assert server.request(method, path).body == b"from the application"


def test_server_that_ends_lives_and_is_not_ready(wire: Wire) -> None:
    app = EndsTheServer()
    app.server = server = wire.start(app, probes=True)
    with server.connect() as live, server.connect() as ready, server.connect() as client:
        request = client.open("GET", "/")
        app.next()
        assert live.request("GET", "/livez").status == 200
        response = ready.request("GET", "/readyz")
        workers = {"wanted": 1, "serving": 0, "starting": 0, "draining": 1}
        assert (response.status, json.loads(response.body)) == (503, {"status": "draining", "workers": workers})
        app.go.set()
        assert request.response().body == b"finished"


# Access log


class Lines:
    """The access entries that were logged, and how they are written."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO", "pounce.access")
        self._caplog = caplog

    @property
    def records(self) -> list[logging.LogRecord]:
        return [record for record in self._caplog.records if record.name == "pounce.access"]

    @property
    def entries(self) -> list[AccessEntry]:
        return [record.msg for record in self.records if isinstance(record.msg, AccessEntry)]

    @property
    def texts(self) -> list[str]:
        return [TextFormatter().format(record) for record in self.records]

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(JSONFormatter().format(record)) for record in self.records]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    return Lines(caplog)


def logged(
    wire: Wire, app: Any, path: str = "/", *, method: str = "GET", body: bytes = b"", **settings: Any
) -> Started:
    """Serve one request, and end the server so that it has logged it."""
    server = wire.share(app, access_log=True, **settings)
    server.request(method, path, body=body)
    server.stop()
    return server


def test_request_is_one_line_of_text(wire: Wire, lines: Lines) -> None:
    logged(wire, hello, "/path?query=1")
    assert len(lines.texts) == 1
    client = r"unix" if wire.case.unix else r"127\.0\.0\.1:\d+"
    line = lines.texts[0].partition(" - ")[2]
    assert re.fullmatch(rf'{client} - "GET /path\?query=1 HTTP/{wire.case.version}" 200 20 \d+\.\dms w0', line), line


def test_request_is_one_json_object(wire: Wire, lines: Lines) -> None:
    logged(wire, hello, "/path?query=1")
    (line,) = lines.objects
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("ts"))
    assert line.pop("duration_ms") >= 0
    client = line.pop("client")
    assert client == "unix" if wire.case.unix else client.startswith("127.0.0.1:")
    assert line.pop("tls_version", None) == ("TLSv1.3" if wire.case.tls else None)
    assert line.pop("tls_cipher", "TLS_").startswith("TLS_")
    assert line == {
        "level": "info", "method": "GET", "path": "/path?query=1", "status": 200, "bytes": 20,
        "protocol": f"HTTP/{wire.case.version}", "scheme": "https" if wire.case.tls else "http", "worker": 0,
    }  # fmt: skip


def test_every_request_of_a_connection_is_logged_in_order(wire: Wire, lines: Lines) -> None:
    server = wire.share(hello, access_log=True)
    with server.connect() as client:
        for number in range(5):
            client.request("GET", f"/{number}")
    server.stop()
    assert [entry.target for entry in lines.entries] == ["/0", "/1", "/2", "/3", "/4"]


def test_failed_request_is_logged_as_a_warning(wire: Wire, lines: Lines) -> None:
    logged(wire, Send())
    assert [record.levelname for record in lines.records] == ["WARNING"]
    assert [entry.status for entry in lines.entries] == [500]
    assert lines.objects[0]["level"] == "warn"


def test_bytes_are_those_of_the_body(wire: Wire, lines: Lines) -> None:
    logged(wire, Send(START, body(b"123", True), body(b"45")))
    assert [entry.sent for entry in lines.entries] == [5]


def test_answer_to_head_has_no_bytes(wire: Wire, lines: Lines) -> None:
    logged(wire, Send(START, body(b"12345")), method="HEAD")
    assert [(entry.sent, entry.complete) for entry in lines.entries] == [(0, True)]


def test_duration_lasts_to_the_last_byte(wire: Wire, lines: Lines) -> None:
    class Slow(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            await send(body(b"first", True))
            await asyncio.sleep(0.05)
            await send(body(b"last"))

    logged(wire, Slow())
    assert lines.entries[0].duration >= 0.05


def test_incomplete_answer_is_marked(wire: Wire, lines: Lines) -> None:
    logged(wire, Send(START, body(b"half", True)))
    assert [(entry.status, entry.complete) for entry in lines.entries] == [(200, False)]
    assert lines.texts[0].endswith("(incomplete)")
    assert lines.objects[0]["incomplete"] is True


def test_request_whose_client_left_before_the_answer_has_no_status(wire: Wire, lines: Lines) -> None:
    class Listen(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await receive()
            self.events.put("begun")
            await receive()

    app = Listen()
    server = wire.share(app, access_log=True)
    with server.connect() as client:
        request = client.open("GET", "/")
        app.next()
        request.abort()
    server.stop()
    assert [(entry.status, entry.complete) for entry in lines.entries] == [(0, False)]


def test_request_is_logged_once_also_when_its_client_leaves_later(wire: Wire, lines: Lines) -> None:
    logged(wire, hello)
    assert len(lines.entries) == 1


def test_log_cannot_be_forged_by_the_target(wire: Wire, lines: Lines) -> None:
    logged(wire, hello, '/"\\x1b%0a%1b[31m')
    (line,) = lines.texts
    assert "\n" not in line
    assert "\x1b" not in line
    assert '\\"' in line


class Asked:
    """A filter of the access log that leaves out `/a`, if that was no error."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []

    def __call__(self, method: str, path: str, status: int) -> bool:
        self.asked.append((method, path, status))
        return status != 200 or path != "/a"


FILTER = Asked()


@pytest.fixture
def asked() -> list[tuple[str, str, int]]:
    """What `FILTER` was asked in this test."""
    FILTER.asked = []
    return FILTER.asked


@pytest.mark.parametrize("excess", [0, 1, 30_000])
def test_long_target_is_cut_where_it_is_logged(
    wire: Wire, lines: Lines, excess: int, asked: list[tuple[str, str, int]]
) -> None:
    path = "/" + "x" * (FIELD_MAX - 1 + excess)
    logged(wire, hello, path, access_log_filter=FILTER)
    assert asked == [("GET", path, 200)]
    (entry,), (line,), (text,) = lines.entries, lines.objects, lines.texts
    assert entry.target == line["path"] == path[:FIELD_MAX] + ("…" if excess else "")
    assert entry.target in text
    assert entry.status == 200


@pytest.mark.parametrize("status", [200, 404])
def test_filter_leaves_requests_out(
    wire: Wire, lines: Lines, status: int, asked: list[tuple[str, str, int]]
) -> None:
    logged(wire, Send(start(status=status), body()), "/a?b", access_log_filter=FILTER)
    assert asked == [("GET", "/a", status)]
    assert [entry.status for entry in lines.entries] == ([404] if status == 404 else [])


def test_filter_that_fails_costs_the_line_and_not_the_request(wire: Wire, lines: Lines) -> None:
    def broken(method: str, path: str, status: int) -> bool:
        raise ValueError

    server = wire.start(hello, access_log=True, access_log_filter=broken)
    with server.connect() as client:
        assert client.request("GET", "/").complete
        assert client.request("GET", "/").complete


def test_access_log_can_be_switched_off(wire: Wire, lines: Lines) -> None:
    server = wire.share(hello, access_log=False)
    server.request("GET", "/")
    server.stop()
    assert lines.entries == []


@pytest.mark.parametrize("asked", [False, True])
def test_health_is_logged_where_that_is_asked_for(wire: Wire, lines: Lines, asked: bool) -> None:
    settings = {"health_check_path": "/healthz", "probes": True, "access_log_health": asked}
    server = wire.share(hello, access_log=True, **settings)
    paths = ["/healthz", "/livez?x", "/readyz"]
    for path in [*paths, "/"]:
        server.request("GET", path)
    server.request("POST", "/healthz")
    server.stop()
    assert [entry.target for entry in lines.entries] == [*(paths if asked else []), "/", "/healthz"]


def test_refusals_are_logged_as_well(wire: Wire, lines: Lines) -> None:
    server = wire.share(hello, access_log=True, max_request_size=5, max_headers=10)
    server.request("POST", "/large", body=b"123456")
    server.stop()
    assert [(entry.target, entry.status) for entry in lines.entries] == [("/large", 413)]


def test_head_that_cannot_be_read_is_logged_with_the_protocol_and_the_scheme_it_came_by(
    wire: Wire, lines: Lines
) -> None:
    server = wire.share(hello, access_log=True, max_request_size=5, max_headers=10)
    assert server.request("GET", "/", [(b"x-%d" % number, b"") for number in range(20)]).status == 431
    server.stop()
    (entry,) = lines.entries
    assert (entry.version, entry.scheme, entry.status) == (
        wire.case.version, "https" if wire.case.tls else "http", 431,
    )  # fmt: skip


def test_text_log_escapes_what_an_exception_says() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter())
    logger = logging.Logger("pounce.test")
    logger.addHandler(handler)
    try:
        raise ValueError("\x1b[31mred\x07\r")
    except ValueError:
        logger.exception("failed: %s", "\x1b[0m")
    assert "red" in stream.getvalue()
    assert not {"\x1b", "\x07", "\r"} & set(stream.getvalue())


# Drain and shutdown


def test_request_that_runs_is_finished(wire: Wire) -> None:
    app = Held()
    server = wire.start(app)
    with server.connect() as client:
        request = client.open("GET", "/")
        app.next()
        server.server.shutdown()
        app.go.set()
        response = request.response()
        assert (response.status, response.body, response.complete) == (200, b"finished", True)
    server.stop()


def test_body_that_is_on_its_way_is_read_to_its_end(wire: Wire) -> None:
    class Echo(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            self.events.put("begun")
            await answer(send, await read_body(receive))

    app = Echo()
    server = wire.start(app)
    with server.connect() as client:
        request = client.open("POST", "/", body=True)
        request.send_body(b"before ")
        app.next()
        server.server.shutdown()
        request.send_body(b"after")
        request.end()
        assert request.response().body == b"before after"


def test_idle_connection_is_closed_at_once(wire: Wire) -> None:
    server = wire.start(hello, keep_alive_timeout=60)
    with server.connect() as client:
        client.request("GET", "/")
        server.server.shutdown()
        assert client.read_eof()
    server.server.stop(timeout=60)
    assert not server.server.is_running


def test_nobody_can_connect_after_the_end(wire: Wire) -> None:
    server = wire.start(hello)
    assert server.request("GET", "/").complete
    server.stop()
    with pytest.raises(OSError):
        server.connect()


def test_application_that_takes_too_long_is_cancelled_and_its_client_is_told(wire: Wire) -> None:
    class Stubborn(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            self.events.put("begun")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.events.put("cancelled")
                raise

    app = Stubborn()
    server = wire.start(app, shutdown_timeout=0.05)
    with server.connect() as client:
        request = client.open("GET", "/")
        app.next()
        server.server.shutdown()
        response = request.response()
        assert (response.status, response.complete) == (503, True)
        assert b"retry-after" in response.headers
        assert app.next() == "cancelled"


def test_answer_that_takes_too_long_is_broken_off_visibly(wire: Wire) -> None:
    class Stubborn(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            await send(body(b"half", True))
            self.events.put("begun")
            await asyncio.Event().wait()

    app = Stubborn()
    server = wire.start(app, shutdown_timeout=0.05)
    with server.connect() as client:
        request = client.open("GET", "/")
        app.next()
        server.server.shutdown()
        response = request.response()
        assert (response.body, response.complete) == (b"half", False)


def test_force_waits_for_nobody(wire: Wire) -> None:
    app = Held()
    server = wire.start(app, shutdown_timeout=120)
    with server.connect() as client:
        request = client.open("GET", "/")
        app.next()
        server.server.shutdown(force=True)
        assert request.response().status == 503
        server.server.stop(timeout=60)


def test_background_work_is_finished_before_the_end(wire: Wire) -> None:
    finished = threading.Event()

    class Background(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await answer(send, b"ok")
            self.events.put("answered")
            await self.wait_for_the_test()
            finished.set()

    app = Background()
    server = wire.start(app)
    assert server.request("GET", "/").body == b"ok"
    app.next()
    server.server.shutdown()
    app.go.set()
    server.stop()
    assert finished.is_set()


def test_client_that_does_not_read_does_not_hold_up_the_end(wire: Wire) -> None:
    class Flood(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            self.events.put("begun")
            try:
                while True:
                    await send(body(bytes(100_000), True))
            finally:
                self.events.put("over")

    app = Flood()
    server = wire.start(app, shutdown_timeout=0.05)
    with server.connect() as client:
        client.open("GET", "/").read_head()
        app.next()
        server.server.stop(timeout=PATIENCE)
        assert app.next() == "over"


# What operators are told


@pytest.mark.parametrize("framing", ["length", "pieces"])
def test_body_above_the_limit_that_nobody_has_set_is_a_warning_once(
    wire: Wire, caplog: pytest.LogCaptureFixture, framing: str
) -> None:
    default = ServerConfig().max_request_size
    server = wire.start(hello_after_the_body, max_request_size=default)
    for _ in range(2):
        with server.connect() as client:
            if framing == "length":
                answer = client.open("POST", "/", [(b"content-length", b"%d" % (default + 1))], body=True).response()
            else:
                request = client.open("POST", "/", body=True)
                for _ in range(default // 65536 + 1):
                    request.send_body(bytes(65536))
                answer = request.response()
            assert answer.status == 413
    server.stop()
    (said,) = [record for record in caplog.records if "max_request_size" in record.getMessage()]
    assert said.levelname == "WARNING"
    assert str(default) in said.getMessage()


def test_body_above_a_limit_that_was_set_is_none(wire: Wire, caplog: pytest.LogCaptureFixture) -> None:
    server = wire.start(hello_after_the_body, max_request_size=1000)
    assert server.request("POST", "/", body=bytes(1001)).status == 413
    server.stop()
    assert [record for record in caplog.records if "max_request_size" in record.getMessage()] == []


# Error pages


class Oops:
    """An error application: what it is told is what it answers."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        told = scope["extensions"]["pounce.error"]
        message = await receive()
        shown = {"path": scope["path"], "body": message["body"].decode(), "more": message["more_body"], **told}
        body = json.dumps(shown).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-page", b"own")]})
        await send({"type": "http.response.body", "body": body})


oops = Oops()


async def oops_fails(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("the error application")


async def fails(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/begun":
        await send({"type": "http.response.start", "status": 200, "headers": []})
    raise LookupError("the application")


PAGES = {"5xx": f"{__name__}:oops", "413": f"{__name__}:oops"}


@pytest.mark.parametrize("path", ["/", "/begun"])
def test_application_answers_for_one_that_failed(wire: Wire, path: str, lines: Lines) -> None:
    server = wire.share(fails, error_pages=PAGES, access_log=True, request_id=True)
    response = server.request("GET", path)
    assert response.status == 500
    assert response.headers[b"x-pounce-error-code"] == b"POUNCE_APP_E"
    assert response.headers[b"x-page"] == b"own"
    assert len(response.headers[b"x-request-id"]) == 32
    told = {"status": 500, "code": "POUNCE_APP_E", "message": "The application failed"}
    assert json.loads(response.body) == {"path": path, "body": "", "more": False, **told}
    server.stop()
    assert [(entry.target, entry.status, entry.complete) for entry in lines.entries] == [(path, 500, True)]


def test_application_answers_for_a_refused_request_and_gets_no_body(wire: Wire) -> None:
    server = wire.share(hello, error_pages=PAGES, max_request_size=5)
    with server.connect() as client:
        response = client.request("POST", "/", body=b"x" * 6)
        assert (response.status, response.headers[b"x-page"]) == (413, b"own")
        shown = json.loads(response.body)
        assert (shown["code"], shown["body"]) == ("POUNCE_LIMIT_REQUEST_TOO_LARGE", "")
        # The connection can still be used.
        assert client.request("GET", "/").body == b"from the application"


async def oops_later(scope: Any, receive: Any, send: Any) -> None:
    fields = [(b"X-Pounce-Error-Code", b"ITS_OWN"), (b"Retry-After", b"60")]
    await send({"type": "http.response.start", "status": 503, "headers": fields})
    await send({"type": "http.response.body", "body": b"later"})


async def unavailable(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})


def test_fields_of_an_error_application_are_not_there_twice(wire: Wire) -> None:
    response = wire.share(unavailable, error_pages={"500": f"{__name__}:oops_later"}).request("GET", "/")
    assert [value for name, value in response.headers if name == b"retry-after"] == [b"60"]
    codes = [value for name, value in response.headers if name == b"x-pounce-error-code"]
    assert codes == [b"POUNCE_APP_NO_RESPONSE"]


def test_page_of_the_server_stands_in_for_an_error_application_that_fails(wire: Wire) -> None:
    response = wire.share(fails, error_pages={"500": f"{__name__}:oops_fails"}).request("GET", "/")
    assert (response.status, response.body) == (500, b"Internal Server Error")


def test_errors_that_have_no_application_have_a_page(wire: Wire) -> None:
    server = wire.share(fails, error_pages={"404": f"{__name__}:oops"})
    assert server.request("GET", "/").body == b"Internal Server Error"


def test_debug_page_is_shown_in_place_of_the_application_for_it(wire: Wire) -> None:
    response = wire.share(fails, error_pages=PAGES, debug=True, debug_hosts=("*",)).request("GET", "/")
    assert (response.status, b"LookupError" in response.body) == (500, True)


@pytest.mark.parametrize("page", ["no_such_module:oops", f"{__name__}:no_such_name"])
def test_error_application_that_is_not_there_ends_the_start(wire: Wire, page: str) -> None:
    with pytest.raises(AppImportError):
        wire.start(hello, error_pages={"500": page})
