"""What the server answers in its own name: its form, and what it never shows."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from pounce import ConfigError
from pounce.contract.head import Origin, RequestHead
from pounce.contract.stream import ConnectionInfo
from pounce.errors import BadRequest
from pounce.exchange.accept import preferred_type
from pounce.exchange.error_apps import ErrorApps
from pounce.exchange.error_pages import ErrorPages, app_failed, error_response
from pounce.testing import MemoryConnection
from pounce.testing.memory import memory_service

ERROR = BadRequest("The message", status=413, code="POUNCE_TEST_CODE", hint="The hint")
BROWSER = b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


class Asked:
    """Stands for a stream."""

    def __init__(self, peer: Any = ("127.0.0.1", 1)) -> None:
        self.connection = ConnectionInfo(peer=peer)


def head(*accept: bytes, fields: Any = (), target: bytes = b"/path?q=1") -> RequestHead:
    return RequestHead(b"GET", target, [*((b"accept", value) for value in accept), *fields], "1.1")


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ((), b"text/plain; charset=utf-8"),
        ((b"*/*",), b"text/plain; charset=utf-8"),
        ((BROWSER,), b"text/html; charset=utf-8"),
        ((b"application/json",), b"application/problem+json"),
        ((b"application/json, */*",), b"application/problem+json"),
        ((b"application/problem+json",), b"application/problem+json"),
        ((b"text/html;q=0.5", b"application/json"), b"application/problem+json"),
        ((b"text/*;q=0.1, application/*",), b"application/problem+json"),
        ((b"image/png",), b"text/plain; charset=utf-8"),
        ((b"text/html;q=0",), b"text/plain; charset=utf-8"),
        ((b"nonsense",), b"text/plain; charset=utf-8"),
    ],
)
def test_form_is_the_one_that_the_client_likes_best(accept: tuple[bytes, ...], kind: bytes) -> None:
    response = error_response(ERROR, head=head(*accept))
    fields = dict(response.headers)
    assert fields[b"content-type"] == kind
    assert int(fields[b"content-length"]) == len(response.body)
    assert fields[b"x-pounce-error-code"] == b"POUNCE_TEST_CODE"


def test_request_that_could_not_be_read_is_answered_with_text() -> None:
    assert error_response(ERROR).body == b"Content Too Large"


def test_problem_has_the_members_of_the_rfc() -> None:
    response = error_response(ERROR, head=head(b"application/json"))
    assert json.loads(response.body) == {"title": "Content Too Large", "status": 413, "code": "POUNCE_TEST_CODE"}
    debug = json.loads(error_response(ERROR, head=head(b"application/json"), debug=True).body)
    assert (debug["detail"], debug["hint"]) == ("The message", "The hint")


@pytest.mark.parametrize("accept", [(), (BROWSER,), (b"application/json",)])
def test_nothing_of_the_request_comes_back(accept: tuple[bytes, ...]) -> None:
    asked = head(*accept, target=b"/<script>secret", fields=[(b"x-a", b"<script>secret")])
    response = error_response(ERROR, head=asked, debug=True)
    assert b"secret" not in response.body
    assert b"secret" not in repr(response.headers).encode()


def test_type_that_is_named_wins_over_one_that_is_not() -> None:
    assert preferred_type([(b"accept", b"*/*, text/html")], (b"text/plain", b"text/html")) == b"text/html"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [(b"a/b", b"a/b;v=1"), (b"a/b;v=2", b"a/b;v=2"), (b"A/B; V=2", b"a/b;v=2"), (b'a/b;v="2"', b"a/b;v=2"),
     (b"a/b;v=3, c/d", b"c/d"), (b"a/b;q=0.5, a/b;v=2;q=0.4", b"a/b;v=1"), (b"a/b;q=0.5, a/b;v=2", b"a/b;v=2"),
     (b"a/b;v=2;q=0, a/*;q=0.1", b"a/b;v=1"), (b"a/b;q=0.5;v=2, c/d;q=0.1", b"a/b;v=2"),
     (b"c/d;, a/b;q=0.1", b"c/d"), (b"c/d;q=2, c/d;v, a/b;v=2;q=0.1", b"a/b;v=2")],
)  # fmt: skip
def test_range_with_parameters_means_what_has_them(accept: bytes, chosen: bytes) -> None:
    assert preferred_type([(b"accept", accept)], (b"a/b;v=1", b"a/b;v=2", b"c/d")) == chosen


# Pages of the site's own


def test_own_page_takes_the_place_of_the_servers(tmp_path: Path) -> None:
    (tmp_path / "413.html").write_text("<h1>Too much")
    (tmp_path / "oops.json").write_text("{}")
    pages = ErrorPages({"413": str(tmp_path / "413.html"), "5xx": str(tmp_path / "oops.json")}, debug=False)
    response = pages.answer(ERROR, head(), Asked())  # type: ignore[arg-type]
    assert (response.status, response.body) == (413, b"<h1>Too much")
    assert dict(response.headers)[b"content-type"] == b"text/html; charset=utf-8"
    assert dict(response.headers)[b"x-pounce-error-code"] == b"POUNCE_TEST_CODE"
    failed = pages.answer(app_failed(), head(), Asked())  # type: ignore[arg-type]
    assert (failed.status, dict(failed.headers)[b"content-type"]) == (500, b"application/json")


@pytest.mark.parametrize("files", [{"200": "x"}, {"4x": "x"}, {"404": "no/such/file"}])
def test_own_page_that_cannot_be_is_refused(files: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        ErrorPages(files, debug=False)


# The debug page


def failure() -> Exception:
    password = "hunter2"
    settings = {"api_key": "k-123", "shown": "visible value", "url": "postgres://user:pw-9@host/db"}

    def inner(token: str) -> None:
        raise ValueError(f"<b>broken</b> {settings['shown']}")

    try:
        try:
            inner("t-456")
        except ValueError as exc:
            raise RuntimeError("outer failed") from exc
    except RuntimeError as exc:
        assert password
        return exc
    raise AssertionError


def page(accept: bytes = BROWSER, peer: Any = ("127.0.0.1", 1), hosts: Any = ("127.0.0.1",), debug: bool = True) -> Any:
    asked = head(accept, fields=[(b"cookie", b"c-789"), (b"authorization", b"Bearer b-321"), (b"x-seen", b"<i>")])
    pages = ErrorPages({}, debug=debug, debug_hosts=hosts)
    return pages.answer(app_failed(), asked, Asked(peer), failure())  # type: ignore[arg-type]


def test_page_shows_source_values_chain_and_request() -> None:
    body = page().body.decode()
    assert "outer failed" in body
    assert "Caused by: ValueError" in body
    assert "&lt;b&gt;broken&lt;/b&gt;" in body
    assert "raise ValueError" in body
    assert "visible value" in body
    assert "GET /path?q=1" in body
    assert "&lt;i&gt;" in body
    assert "test_error_pages.py" in body


def test_page_hides_what_is_secret() -> None:
    body = page().body.decode()
    for secret in ("hunter2&#x27;\n", "k-123", "t-456", "pw-9", "c-789", "b-321"):
        assert f"{secret}</td>" not in body
    values = body.partition("<h2>As text</h2>")[0]
    for secret in ("t-456", "c-789", "b-321"):
        assert secret not in values.replace("inner(&quot;t-456&quot;)", "")


def test_page_runs_nothing_but_its_own_script() -> None:
    response = page()
    policy = dict(response.headers)[b"content-security-policy"].decode()
    nonce = policy.partition("'nonce-")[2].partition("'")[0]
    assert "default-src 'none'" in policy
    assert response.body.decode().count(f'nonce="{nonce}"') == 2
    assert int(dict(response.headers)[b"content-length"]) == len(response.body)


def test_client_that_is_no_browser_gets_the_traceback_as_text() -> None:
    response = page(b"*/*")
    assert dict(response.headers)[b"content-type"] == b"text/plain; charset=utf-8"
    assert response.body.startswith(b"Traceback (most recent call last)")
    assert b"RuntimeError: outer failed" in response.body


@pytest.mark.parametrize(
    ("peer", "hosts", "shown"),
    [
        (("127.0.0.1", 1), ("127.0.0.1", "::1"), True),
        (("192.0.2.1", 1), ("127.0.0.1", "::1"), False),
        (("192.0.2.1", 1), ("*",), True),
        (None, ("unix",), True),
        (None, ("127.0.0.1",), False),
    ],
)
def test_page_is_for_those_who_may_see_it(peer: Any, hosts: Any, shown: bool) -> None:
    assert (b"visible value" in page(peer=peer, hosts=hosts).body) is shown


@pytest.mark.parametrize("origin", [None, Origin(("127.0.0.1", 0), ("localhost", 80), "")], ids=["unsaid", "said"])
@pytest.mark.parametrize("peer", [("127.0.0.1", 1), None], ids=["TCP", "Unix"])
def test_who_comes_through_a_proxy_of_this_machine_is_not_on_it(origin: Any, peer: Any) -> None:
    asked = head(BROWSER)
    asked.relayed, asked.origin = True, origin
    pages = ErrorPages({}, debug=True, debug_hosts=("127.0.0.1", "unix", "::1"))
    body = pages.answer(app_failed(), asked, Asked(peer), failure()).body  # type: ignore[arg-type]
    assert b"visible value" not in body


def test_client_that_a_proxy_names_may_be_one_of_the_hosts() -> None:
    asked = head(BROWSER)
    asked.relayed, asked.origin = True, Origin(("192.0.2.1", 0), ("localhost", 80), "")
    pages = ErrorPages({}, debug=True, debug_hosts=("192.0.2.1",))
    assert b"visible value" in pages.answer(app_failed(), asked, Asked(), failure()).body  # type: ignore[arg-type]


def test_page_is_never_shown_without_debug() -> None:
    assert b"outer failed" not in page(debug=False, hosts=("*",)).body


def test_value_whose_repr_fails_does_not_spoil_the_page() -> None:
    class Bad:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    def fails(bad: object) -> None:
        raise ValueError("with a bad local")

    try:
        fails(Bad())
    except ValueError as exc:
        caught = exc
    pages = ErrorPages({}, debug=True, debug_hosts=("*",))
    body = pages.answer(app_failed(), head(BROWSER), Asked(), caught).body  # type: ignore[arg-type]
    assert b"whose repr() raised RuntimeError" in body


def shown(value: object, accept: bytes = BROWSER) -> bytes:
    """What is told of an exception that has this for its text, in a frame that has it for a value."""

    def fails(given: object) -> None:
        raise ValueError(str(given))

    try:
        fails(value)
    except ValueError as exc:
        caught = exc
    pages = ErrorPages({}, debug=True, debug_hosts=("*",))
    response = pages.answer(app_failed(), head(accept), Asked(), caught)  # type: ignore[arg-type]
    return response.body


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "token" * 200_000,
        "a://" * 200_000,
        "token='" * 100_000,
        "token" + " " * 1_000_000,
        "a-:=" * 200_000,
    ],
    ids=["word", "names", "addresses", "quotes", "blanks", "marks"],
)
@pytest.mark.parametrize("accept", [BROWSER, b"*/*"], ids=["page", "text"])
def test_long_text_of_a_client_does_not_hold_up_the_page(accept: bytes, text: str) -> None:
    # With work that grows with the square of its length this would not end.
    body = shown(text, accept)
    assert b"ValueError" in body
    assert len(body) < 1_000_000


@pytest.mark.parametrize(
    "value",
    [
        {"password": "x" * 290 + " hunter2"},
        "x" * 1980 + " password='my hunter2",
        "X-Api-Key: hunter2",
        'private-key="hunter2 and more"',
        "postgres+driver://user:hunter2@host",
        "my_long_access_token_for_tests = b'hunter2'",
    ],
)
def test_secret_is_hidden_however_it_stands_in_a_text(value: object) -> None:
    body = shown(value)
    assert b"hunter2" not in body.partition(b"<ol>")[0] + body.rpartition(b"</ol>")[2]


def test_secret_fields_and_parameters_of_the_request_are_hidden() -> None:
    asked = head(BROWSER, fields=[(b"x-api-key", b"hunter2")])
    asked.target = b"/x?token=hunter2&b=1"
    pages = ErrorPages({}, debug=True, debug_hosts=("*",))
    body = pages.answer(app_failed(), asked, Asked(), failure()).body  # type: ignore[arg-type]
    assert body.count(b"hunter2") == body.count(b"password = &quot;hunter2&quot;")


def test_group_shows_its_members() -> None:
    group = ExceptionGroup("several", [ValueError("first one"), KeyError("second one")])
    pages = ErrorPages({}, debug=True, debug_hosts=("*",))
    body = pages.answer(app_failed(), head(BROWSER), Asked(), group).body.decode()  # type: ignore[arg-type]
    assert body.count("One of the group") == 2


@pytest.mark.parametrize(("said", "shown"), [(b"", True), (b"X-Forwarded-For: 127.0.0.1\r\n", False)])
def test_failure_of_an_error_application_is_not_shown_through_a_proxy_either(said: bytes, shown: bool) -> None:
    async def answers_nothing(scope: Any, receive: Any, send: Any) -> None:
        pass

    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("visible value")

    async def test() -> bytes:
        service = memory_service(answers_nothing, debug=True, trusted_hosts=())
        service.error_apps = ErrorApps({"500": fails}, service.exchange_class, debug=True)
        client = MemoryConnection(service=service, extra={"peername": ("127.0.0.1", 50000)})
        client.feed(b"GET / HTTP/1.1\r\nHost: h\r\n%bAccept: text/html\r\nConnection: close\r\n\r\n" % said)
        await client.settle()
        return bytes(client.received)

    answer = asyncio.run(test())
    assert answer.startswith(b"HTTP/1.1 500")
    assert (b"visible value" in answer) is shown
