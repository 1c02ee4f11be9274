"""Answers the server gives in its own name. They never repeat anything from the request, unless `debug` asks for it.

Browsers get a page, clients that prefer JSON a problem (RFC 9457), all others text. A file of the site's own may take
their place, by status; for an application see `error_apps`.
"""

import json
import re
from collections.abc import Mapping
from http import HTTPStatus

from pounce.contract.head import RequestHead
from pounce.contract.pieces import Response
from pounce.contract.stream import Stream
from pounce.errors import ConfigError, PounceError
from pounce.exchange.accept import preferred_type

__all__ = ["ErrorPages", "app_failed", "app_gave_no_answer", "error_response", "shutting_down"]

SHUTTING_DOWN = "POUNCE_SHUTTING_DOWN"
_import_string = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\(\))?").fullmatch
TEXT, HTML, JSON, PROBLEM = b"text/plain", b"text/html", b"application/json", b"application/problem+json"
OFFERED = (TEXT, HTML, PROBLEM, JSON)
TYPES = {".html": b"text/html; charset=utf-8", ".json": b"application/json", ".txt": b"text/plain; charset=utf-8"}
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{status} {phrase}</title>
<style>:root{{color-scheme:light dark}}body{{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:20vh auto 0;
padding:0 1rem}}h1{{font-size:1.5rem}}p,pre{{color:GrayText;white-space:pre-wrap}}</style></head>
<body><h1>{status} {phrase}</h1>{more}</body></html>
"""


def error_response(
    error: PounceError, *, debug: bool = False, head: RequestHead | None = None, trace_id: str | None = None
) -> Response:
    """The answer for an error: its status, its code in a header and, with `debug`, its message and hint.

    `head` is that of the request, as far as there is one. The messages of this server are constants, so that no input
    comes back. `trace_id` is 32 hexadecimal digits.
    """
    status = error.status
    phrase = HTTPStatus(status).phrase
    kind = preferred_type(head.headers, OFFERED) if head is not None else TEXT
    details = {"detail": error.message, **({"hint": error.hint} if error.hint else {})} if debug else {}
    request_id = _request_id(head)
    if request_id:
        details["request_id"] = request_id
    if trace_id:
        details["trace_id"] = trace_id
    if kind == HTML:
        body = _page(status, phrase, error, (request_id, trace_id or ""), debug=debug)
        content_type = TYPES[".html"]
    elif kind in (PROBLEM, JSON):
        # RFC 9457 4.2.1: without a type of its own the title is the phrase of the status.
        body = json.dumps({"title": phrase, "status": status, "code": error.code, **details}).encode()
        content_type = PROBLEM
    else:
        lines = [phrase]
        if debug:
            lines = [error.message, "", f"Pounce error code: {error.code}"]
            if error.hint:
                lines.append(f"Hint: {error.hint}")
        if request_id:
            lines.append(f"Request id: {request_id}")
        if trace_id:
            lines.append(f"Trace id: {trace_id}")
        body = "\n".join(lines).encode()
        content_type = TYPES[".txt"]
    return Response(status, _fields(error, content_type, body), body)


def _fields(error: PounceError, content_type: bytes, body: bytes) -> list[tuple[bytes, bytes]]:
    headers = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"x-pounce-error-code", error.code.encode()),
    ]
    headers += error.fields
    if error.status == 503 and all(name != b"retry-after" for name, _ in error.fields):
        headers.append((b"retry-after", b"5"))
    return headers


def _request_id(head: RequestHead | None) -> str:
    """Of a request that has one: made by the server, or a token of a trusted proxy."""
    return str(head.extensions.get("request_id", "")) if head is not None and head.extensions is not None else ""


def _page(status: int, phrase: str, error: PounceError, ids: tuple[str, ...], *, debug: bool) -> bytes:
    from html import escape

    more = f"<p>{escape(error.code)}</p>" + "".join(f"<p>{escape(each)}</p>" for each in ids if each)
    if debug:
        more = f"<p>{escape(error.message)}</p><p>{escape(error.hint or '')}</p>{more}"
    return PAGE.format(status=status, phrase=escape(phrase), more=more).encode()


class ErrorPages:
    """The answers of one worker for errors: those of the site's own, else the server's."""

    def __init__(self, files: Mapping[str, str], *, debug: bool, debug_hosts: tuple[str, ...] = ()) -> None:
        """`files` are paths by status, as `404`, or by class, as `5xx`. They are read now. Raises `ConfigError`."""
        self._debug = debug
        self._debug_hosts = debug_hosts
        self._own = {key: _own(key, path) for key, path in files.items()}

    def answer(
        self, error: PounceError, head: RequestHead | None, stream: Stream, failure: BaseException | None = None
    ) -> Response:
        """The answer for an error; `failure` is what the application raised, where that is the error."""
        if failure is not None and head is not None and self._shows_failures(head, stream):
            from pounce.exchange.debug_page import debug_response

            found = debug_response(error, failure, head, stream)
            if found is not None:
                return found
        own = self._own.get(str(error.status)) or self._own.get(f"{error.status // 100}xx")
        if own is not None:
            content_type, body = own
            return Response(error.status, _fields(error, content_type, body), body)
        exchange = getattr(stream, "exchange", None)
        # On a connection with one stream it may still be that of the request before.
        trace_id = getattr(exchange, "trace_id", None) if getattr(exchange, "head", None) is head else None
        return error_response(error, debug=self._debug, head=head, trace_id=trace_id)

    def _shows_failures(self, head: RequestHead, stream: Stream) -> bool:
        """Whether this client may see the application's source: one of this machine, unless told otherwise."""
        if not self._debug:
            return False
        if "*" in self._debug_hosts:
            return True
        peer = (head.origin or stream.connection).peer
        host = "unix" if peer is None else peer[0]
        # Beside the server is then the proxy, or its client by its own word.
        return host in self._debug_hosts and not (head.relayed and (host in ("unix", "::1") or host[:4] == "127."))


def is_application(key: str, page: str) -> bool:
    """Whether an error page is `module:attribute`, which names an application. Raises `ConfigError` where `key` is no
    status."""
    _check(key)
    return _import_string(page) is not None


def _check(key: str) -> None:
    if not (len(key) == 3 and key[0] in "45" and (key[1:] == "xx" or key.isdigit())):
        raise ConfigError(
            f"error_pages must be files or applications by status (got {key!r} for a status)",
            hint="For example 404=missing.html; 503, 4xx and 5xx are others.",
        )


def _own(key: str, path: str) -> tuple[bytes, bytes]:
    _check(key)
    try:
        with open(path, "rb") as file:
            body = file.read()
    except OSError as exc:
        raise ConfigError(f"error_pages: {path} for {key} cannot be read: {exc.strerror}") from exc
    ending = path[path.rfind(".") :].lower()
    return TYPES.get(ending, TYPES[".html"]), body


def app_failed() -> PounceError:
    """The application raised."""
    return PounceError("The application failed", code="POUNCE_APP_E", hint="The server's log has the traceback.")


def plugin_failed() -> PounceError:
    """A plugin that was asked for an answer raised."""
    return PounceError(
        "A plugin of the server failed", code="POUNCE_PLUGIN_FAILED", hint="The server's log names it."
    )


def app_gave_no_answer() -> PounceError:
    """The application returned without an answer."""
    return PounceError(
        "The application gave no answer",
        code="POUNCE_APP_NO_RESPONSE",
        hint="An ASGI application must send http.response.start and http.response.body before it returns.",
    )


def shutting_down() -> PounceError:
    """The application was cancelled because the time for shutting down was over."""
    return PounceError("The server is shutting down", status=503, code=SHUTTING_DOWN)
