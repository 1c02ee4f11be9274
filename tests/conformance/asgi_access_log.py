"""What the access log can tell of a request beyond its default line, over every wire."""

import asyncio
import json
from typing import Any

import pytest
from tests.conformance.asgi_operations import Lines, hello, logged
from tests.conformance.asgi_receive import Script
from tests.conformance.asgi_send import START, Send, body, start
from tests.conformance.wires import Wire

from pounce import AppImportError, ConfigError
from pounce.testing import TestServer

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BASIC = (b"authorization", b"Basic YWxhZGRpbjpvcGVuIHNlc2FtZQ==")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    return Lines(caplog)


def wanted(method: str, path: str, status: int) -> bool:
    return path == "/kept"


def line_of(wire: Wire, lines: Lines, form: str, *fields: tuple[bytes, bytes], app: Any = hello) -> str:
    """The line of one request for `/a?b=c`."""
    server = wire.share(app, access_log=True, access_log_format=form)
    server.request("GET", "/a?b=c", fields)
    server.stop()
    (line,) = lines.texts
    return line


def test_line_is_made_of_the_values_that_were_asked_for(wire: Wire, lines: Lines) -> None:
    form = "%(m)s %(U)s %(q)s %(H)s %(s)s %(B)s %(scheme)s %(worker)s %(end)s 100%%"
    line = line_of(wire, lines, form)
    scheme = "https" if wire.case.tls else "http"
    assert line == f"GET /a b=c HTTP/{wire.case.version} 200 20 {scheme} 0 complete 100%"


def test_fields_of_request_and_answer_can_be_logged(wire: Wire, lines: Lines) -> None:
    app = Send(start([(b"content-type", b"text/x"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]), body(b"x"))
    form = "%({X-Tag}i)s|%({none}i)s|%({Content-Type}o)s|%({set-cookie}o)s"
    line = line_of(wire, lines, form, (b"x-tag", b"1"), (b"x-tag", b"2"), app=app)
    assert line == "1, 2|-|text/x|a=1, b=2"


def test_combined_has_the_user_and_who_asks_but_not_the_password(wire: Wire, lines: Lines) -> None:
    fields = (BASIC, (b"referer", b"http://example.org/"), (b"user-agent", b'Agent "1"'))
    line = line_of(wire, lines, "combined", *fields)
    assert line.startswith("- - aladdin [" if wire.case.unix else "127.0.0.1 - aladdin [")
    request = f"GET /a?b=c HTTP/{wire.case.version}"
    assert line.endswith(f'] "{request}" 200 20 "http://example.org/" "Agent \\"1\\""')
    assert "sesame" not in line


@pytest.mark.parametrize("form", ["json", "logfmt", "combined", "%({x-tag}i)s %(U)s", "text"])
def test_no_format_can_be_forged_by_the_peer(wire: Wire, lines: Lines, form: str) -> None:
    server = wire.share(hello, access_log=True, access_log_format=form)
    fields = [(b"x-tag", b'"\t\xc2\x9b1m'), (b"user-agent", b'\\"\t\xc2\x9b1m'), (b"referer", b"\xe2\x80\xae")]
    server.request("GET", '/"\\', fields)
    server.stop()
    (line,) = lines.texts
    assert line.isprintable()
    if form == "json":
        assert json.loads(line)["path"] == '/"\\'
    elif form == "logfmt":
        assert ' path="/\\"\\\\" ' in line


def test_tls_is_told_by_version_and_cipher(wire: Wire, lines: Lines) -> None:
    line = line_of(wire, lines, "%(tls_version)s %(tls_cipher)s")
    if not wire.case.tls:
        assert line == "- -"
        return
    version, cipher = line.split()
    assert version == "TLSv1.3"
    assert cipher.startswith("TLS_")


def test_trace_of_a_trusted_proxy_is_logged_and_that_of_others_is_not(wire: Wire, lines: Lines) -> None:
    for trusted in (["unix" if wire.case.unix else "127.0.0.1"], ["203.0.113.7"], []):
        server = wire.share(hello, access_log=True, trusted_hosts=trusted)
        server.request("GET", "/", [(b"traceparent", PARENT)])
        server.stop()
    assert [line.get("trace_id") for line in lines.objects] == ["0af7651916cd43dd8448eb211c80319c", None, None]


def test_time_to_the_first_byte_is_told_where_others_follow_later(wire: Wire, lines: Lines) -> None:
    class Stream(Script):
        async def serve(self, scope: Any, receive: Any, send: Any) -> None:
            await send(START)
            await send(body(b"first", True))
            await asyncio.sleep(0)
            await send(body(b"last"))

    for app in (Stream(), hello):
        logged(wire, app)
    streamed, whole = lines.entries
    assert streamed.first_byte is not None
    assert 0 <= streamed.first_byte <= streamed.duration
    assert lines.objects[0]["ttfb_ms"] == round(streamed.first_byte * 1000, 3)
    assert whole.first_byte is None
    assert "ttfb_ms" not in lines.objects[1]


def test_sampling_leaves_out_what_went_well_alone(wire: Wire, lines: Lines) -> None:
    for app in (hello, Send(start(status=404), body()), Send(), Send(START, body(b"half", True))):
        logged(wire, app, access_log_sample=0)
    assert [(entry.status, entry.complete) for entry in lines.entries] == [(404, True), (500, True), (200, False)]


def test_filter_may_be_named(wire: Wire, lines: Lines) -> None:
    server = wire.share(hello, access_log=True, access_log_filter=f"{__name__}:wanted")
    for path in ("/kept", "/other"):
        server.request("GET", path)
    server.stop()
    assert [entry.target for entry in lines.entries] == ["/kept"]


@pytest.mark.parametrize(
    ("setting", "value", "error", "said"),
    [
        ("access_log_filter", "no_such_module:wanted", AppImportError, "there is no module 'no_such_module'"),
        ("access_log_filter", f"{__name__}:PARENT", ConfigError, "is no function"),
        ("access_log_format", "%(nothing)s", ConfigError, "has no value 'nothing'"),
    ],
)
def test_setting_that_cannot_be_used_ends_the_start(
    setting: str, value: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        TestServer(hello, access_log=True, **{setting: value}).start()
