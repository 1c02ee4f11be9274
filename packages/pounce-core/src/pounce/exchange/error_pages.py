"""Answers the server gives in its own name. They never repeat anything from the request."""

from http import HTTPStatus

from pounce.contract.pieces import Response
from pounce.errors import PounceError

__all__ = ["app_failed", "app_gave_no_answer", "error_response", "shutting_down"]


def error_response(error: PounceError, *, debug: bool = False) -> Response:
    """The answer for an error: its status, its code in a header and, with `debug`, its message and hint.

    The messages of this server are constants, so that no input comes back.
    """
    status = error.status
    lines = [HTTPStatus(status).phrase]
    if debug:
        lines = [error.message, "", f"Pounce error code: {error.code}"]
        if error.hint:
            lines.append(f"Hint: {error.hint}")
    body = "\n".join(lines).encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"x-pounce-error-code", error.code.encode()),
    ]
    if status == 503:
        headers.append((b"retry-after", b"5"))
    return Response(status, headers, body)


def app_failed() -> PounceError:
    """The application raised."""
    return PounceError("The application failed", code="POUNCE_APP_E", hint="The server's log has the traceback.")


def app_gave_no_answer() -> PounceError:
    """The application returned without an answer."""
    return PounceError(
        "The application gave no answer",
        code="POUNCE_APP_NO_RESPONSE",
        hint="An ASGI application must send http.response.start and http.response.body before it returns.",
    )


def shutting_down() -> PounceError:
    """The application was cancelled because the time for shutting down was over."""
    return PounceError("The server is shutting down", status=503, code="POUNCE_SHUTTING_DOWN")
