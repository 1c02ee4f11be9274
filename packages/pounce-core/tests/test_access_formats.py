"""Formats of the access log, one entry at a time."""

import json
import os
import re
import time
from typing import Any

import pytest

from pounce import ConfigError
from pounce.observe.access_entry import AccessEntry
from pounce.observe.access_log import _traceparent
from pounce.observe.formats import access_fields, access_format, plain_line

AT = 1_700_000_000.25


def entry(**values: Any) -> AccessEntry:
    given: dict[str, Any] = {
        "at": AT, "client": "192.0.2.7:4711", "method": "GET", "target": "/a?b=c", "version": "1.1", "status": 200,
        "sent": 20, "duration": 1.5004567, "worker": 3, "scheme": "http", "complete": True,
    }  # fmt: skip
    return AccessEntry(**given | values)


def written(form: str, **values: Any) -> str:
    write = access_format(form).write
    assert write is not None
    return write(entry(**values))


ATOMS = {
    "h": "192.0.2.7", "l": "-", "r": "GET /a?b=c HTTP/1.1", "m": "GET", "U": "/a", "q": "b=c", "H": "HTTP/1.1",
    "s": "200", "B": "20", "b": "20", "T": "1", "M": "1500", "D": "1500456", "L": "1.500457", "p": f"<{os.getpid()}>",
    "ts": "2023-11-14T22:13:20.250+00:00", "level": "info", "client": "192.0.2.7:4711", "scheme": "http", "worker": "3",
    "request_id": "-", "trace_id": "-", "tls_version": "-", "tls_cipher": "-", "ttfb": "1.500457",
    "queued": "0.000000", "close_code": "-", "end": "complete",
}  # fmt: skip


@pytest.mark.parametrize("name", ATOMS)
def test_value_is_what_its_name_says(name: str) -> None:
    assert written(f"%({name})s") == ATOMS[name]


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("h", {"client": "::1:4711"}, "::1"),
        ("h", {"client": "unix"}, "-"),
        ("s", {"status": 0}, "-"),
        ("b", {"sent": 0}, "-"),
        ("B", {"sent": 0}, "0"),
        ("q", {"target": "/a"}, ""),
        ("level", {"status": 503}, "warn"),
        ("request_id", {"request_id": "abc"}, "abc"),
        ("trace_id", {"trace_id": "0af7"}, "0af7"),
        ("ttfb", {"first_byte": 0.25}, "0.250000"),
        ("ttfb", {"status": 0}, "-"),
        ("ttfb", {"status": 101, "close_code": 1000}, "-"),
        ("queued", {"queued": 0.125}, "0.125000"),
        ("tls_version", {"tls": (0x0303, 0xC02F)}, "TLSv1.2"),
        ("tls_cipher", {"tls": (0x0303, 0xC02F)}, "ECDHE-RSA-AES128-GCM-SHA256"),
        ("tls_cipher", {"tls": (0x0304, 0x1301)}, "TLS_AES_128_GCM_SHA256"),
        ("tls_cipher", {"tls": (0x0304, 0xFEFE)}, "0xfefe"),
        ("tls_cipher", {"tls": (None, None)}, "-"),
        ("close_code", {"close_code": 1001}, "1001"),
        ("end", {"complete": False}, "incomplete"),
        ("r", {"target": '/"\x1b\n'}, 'GET /\\"\\x1b\\n HTTP/1.1'),
        ("U", {"target": "/\x9b?a"}, "/\\x9b"),
        ("request_id", {"request_id": "\n"}, "\\n"),
    ],
)
def test_value_where_there_is_more_to_say(name: str, values: dict[str, Any], said: str) -> None:
    assert written(f"%({name})s", **values) == said


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"duration": 0.0},
        {"duration": 0.00123, "status": 503},
        {"duration": 12.0, "status": 0, "complete": False},
        {"at": 1_700_000_001.999, "client": "unix", "version": "3", "scheme": "https"},
        {"method": 'G"\\', "target": "/\xfc\x9b\n\u2026"},
        {"request_id": "a-b", "trace_id": "0af7", "first_byte": 0.25, "queued": 0.5},
        {"request_id": AT, "tls": (0x0303, 0xC02F)},
        {"tls": (None, None), "close_code": 1001, "status": 101},
    ],
)
def test_json_is_written_as_a_library_writes_it(values: dict[str, Any]) -> None:
    assert written("json", **values) == json.dumps(access_fields(entry(**values)), default=str)


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"status": 503, "duration": 0.0},
        {"status": 0, "sent": 0, "client": "unix", "version": "3", "scheme": "https"},
        {"target": '/"\x1b\n\\\xe9', "request_id": "a-b"},
        {"request_id": AT},
    ],
)
def test_line_of_a_usual_request_is_that_of_its_entry(form: str, values: dict[str, Any]) -> None:
    of = entry(**values)
    plain = plain_line(form)(
        of.at,
        of.client,
        of.method,
        of.target,
        of.version,
        of.scheme,
        of.status,
        of.sent,
        of.duration,
        of.worker,
        of.request_id,
    )
    assert plain == written(form, **values)


def test_time_of_a_line_goes_on_with_the_next_one() -> None:
    write = access_format("%(ts)s").write
    assert write is not None
    assert [write(entry(at=AT + more)) for more in (0.0, 0.5, 0.75, 60.0)] == [
        "2023-11-14T22:13:20.250+00:00",
        "2023-11-14T22:13:20.750+00:00",
        "2023-11-14T22:13:21.000+00:00",
        "2023-11-14T22:14:20.250+00:00",
    ]


def test_time_of_a_line_is_when_the_request_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-1")
    time.tzset()
    try:
        assert written("%(t)s") == "[14/Nov/2023:23:13:18 +0100]"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_width_is_kept_and_other_text_stays() -> None:
    assert written("%(m)-6s|%(m)6s|%(s)d|50%% {x} %%(h)s") == "GET   |   GET|200|50% {x} %(h)s"


def test_variable_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZONE", "a\nb")
    monkeypatch.delenv("NO_ZONE", raising=False)
    assert written("%({ZONE}e)s %({NO_ZONE}e)s") == "a\\nb -"


def test_what_is_picked_stands_where_it_was_asked_for_and_is_asked_for_once() -> None:
    made = access_format("%({a}i)s %(f)s %({Referer}i)s %({a}o)s %(u)s")
    assert made.write is not None
    line = made.write(entry(picked=("1", "2", "3", 'x"\x1b')))
    assert line == '1 2 2 3 x\\"\\x1b'


def test_logfmt_quotes_what_needs_it() -> None:
    line = written("logfmt", target='/a b="\x1b\\é', request_id="x", complete=False, tls=(0x0304, 0x1302))
    assert line == (
        "ts=2023-11-14T22:13:20.250+00:00 level=info method=GET"
        ' path="/a b=\\"\\u001b\\\\\\u00e9" status=200 bytes=20 duration_ms=1500.457 client=192.0.2.7:4711'
        " protocol=HTTP/1.1 scheme=http worker=3 incomplete=true req_id=x tls_version=TLSv1.3"
        " tls_cipher=TLS_AES_256_GCM_SHA384"
    )


def test_json_has_all_that_is_known() -> None:
    known = {"trace_id": "0af7", "queued": 0.5, "first_byte": 0.25, "request_id": "x", "close_code": 1000}
    line = json.loads(written("json", status=500, **known))
    assert {name: line[name] for name in ("trace_id", "queued_ms", "ttfb_ms", "req_id", "close_code", "level")} == {
        "trace_id": "0af7", "queued_ms": 500.0, "ttfb_ms": 250.0, "req_id": "x", "close_code": 1000, "level": "warn",
    }  # fmt: skip


def test_text_is_the_line_of_the_text_format_with_time_and_level() -> None:
    line = written("text", status=500)
    said = r'WARNING  pounce\.access - 192\.0\.2\.7:4711 - "GET /a\?b=c HTTP/1\.1" 500 20 1500\.5ms w3'
    assert re.fullmatch(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,250 {said}", line)


@pytest.mark.parametrize(
    ("form", "said", "hint"),
    [
        ("jsn", "must be one of auto, text, json", "Did you mean json?"),
        ("", "must be one of", None),
        ("%h %s", "must be one of", None),
        ("%(h)s %s", "is not understood at '%s'", "%%"),
        ("%(h)x", "is not understood at '%(h)x'", "%(h)s"),
        ("%({a}z)s", "is not understood", None),
        ("%(x)s", "has no value 'x'", None),
        ("%(reqest_id)s", "has no value 'reqest_id'", "Did you mean %(request_id)s?"),
    ],
)
def test_format_that_cannot_be_read_is_an_error(form: str, said: str, hint: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        access_format(form)
    assert said in caught.value.message
    assert (hint or "") in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-will-be", True),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", False),
        ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", False),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", False),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", False),
        ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", False),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n", False),
    ],
)
def test_trace_is_taken_where_it_is_well_formed(given: str, known: bool) -> None:
    assert (_traceparent(given.encode()) is not None) is known
