"""The debug page: what an application's exception was, where, and with which values, for whoever develops it.

The application's own frames come first and open, those of libraries and of the server are folded. Values whose name
says that they are secret are not shown. Everything is escaped; the page brings its style and script along, and nothing
else may run on it.
"""

import html
import linecache
import os
import re
import secrets
import sys
import sysconfig
import traceback
from http import HTTPStatus
from types import CodeType, FrameType
from typing import Any

from pounce.contract.head import RequestHead
from pounce.contract.pieces import Response
from pounce.contract.stream import Stream
from pounce.errors import PounceError
from pounce.exchange.accept import preferred_type

__all__ = ["debug_response"]

AROUND = 5
"""Lines of source before and behind the line of a frame."""
FRAMES_MAX = 60
VALUE_MAX = 300
"""Characters of a value that are shown."""
READ_MAX = 2000
"""Of which so many are looked through for secrets."""
TEXT_MAX = 100_000
"""Characters of a message or a traceback; of a longer one both ends are shown."""
LOCALS_MAX = 40
CHAIN_MAX = 8
HIDDEN = "•••"
_is_secret = re.compile(
    r"pass(?:word|wd|phrase)?|secret|token|api[-_]?key|private[-_]?key|credential|authorization|cookie|session|dsn"
    r"|signature",
    re.IGNORECASE,
).search
# In the text of a value: password='…', "token": "…", Bearer …, and what was cut off in the midst of such a value. What
# is repeated has a bound or begins where a word does: clients write the texts, and may make them long.
_secret_values = re.compile(
    r"""((?:pass(?:word|wd|phrase)?|secret|token|api[-_]?key|private[-_]?key|credential)[\w-]{0,64}["']?\s{0,8}[=:]\s{0,8})"""
    r"""(?:b?'(?:[^'\\]|\\.){0,4096}+(?:'|\Z)|b?"(?:[^"\\]|\\.){0,4096}+(?:"|\Z)|[^\s,)}\]]+)"""
    r"""|((?:Bearer|Basic)\s{1,8})[\w.~+/=-]+|(\b\w{1,20}://[^/\s:@]{0,256}:)[^@/\s]{1,256}(?=@)""",
    re.IGNORECASE,
)
_LIBRARIES = tuple(
    {os.path.realpath(path) for path in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")) if path}
)
_OURS = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


def debug_response(error: PounceError, failure: BaseException, head: RequestHead, stream: Stream) -> Response | None:
    """The answer for an exception: a page for browsers, text for all others; None where JSON is preferred."""
    kind = preferred_type(head.headers, (b"text/plain", b"text/html", b"application/problem+json", b"application/json"))
    if kind.endswith(b"json"):
        return None
    try:
        text = "".join(traceback.format_exception(failure))
        text = _without_secrets(text)
        if kind == b"text/plain":
            body, content_type, more = text.encode("utf-8", "replace"), b"text/plain; charset=utf-8", []
        else:
            nonce = secrets.token_urlsafe(16)
            body = _page(failure, text, head, stream, nonce).encode("utf-8", "replace")
            content_type = b"text/html; charset=utf-8"
            policy = f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; base-uri 'none'"
            more = [(b"content-security-policy", policy.encode())]
    except Exception:
        # A repr() of the application's may do anything.
        import logging

        logging.getLogger("pounce").exception("The debug page could not be made")
        return None
    headers = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-pounce-error-code", error.code.encode()),
        *more,
    ]
    return Response(error.status, headers, body)


def _page(failure: BaseException, text: str, head: RequestHead, stream: Stream, nonce: str) -> str:
    esc = html.escape
    name = type(failure).__name__
    message = _without_secrets(str(failure))
    parts = [_exception(each, how) for each, how in _chain(failure)]
    target = _without_secrets(head.target.decode("latin-1"))
    peer = (head.origin or stream.connection).peer
    request = [
        ("Request", f"{head.method.decode('latin-1')} {target}"),
        ("Protocol", f"HTTP/{head.version} over {head.scheme}"),
        ("Client", f"{peer[0]}:{peer[1]}" if peer else "a Unix socket"),
        ("Python", sys.version.split("\n")[0]),
    ]
    fields = [
        (key.decode("latin-1"), HIDDEN if _is_secret(key.decode("latin-1")) else value.decode("latin-1"))
        for key, value in head.headers
    ]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{esc(name)}: {esc(message[:80])}</title><style nonce="{nonce}">{_STYLE}</style></head><body>
<header><p>{HTTPStatus.INTERNAL_SERVER_ERROR.value} in <b>{esc(head.method.decode("latin-1"))}</b> {esc(target)}</p>
<h1>{esc(name)}</h1><p class="message">{esc(message)}</p>
<button id="copy" type="button">Copy as text</button></header>
<main>{"".join(parts)}
<section><h2>Request</h2>{_table(request)}{_table(fields)}</section>
<section><h2>As text</h2><pre id="text">{esc(text)}</pre></section></main>
<footer>Shown because <code>debug</code> is on. Never switch it on where strangers can see it.</footer>
<script nonce="{nonce}">{_SCRIPT}</script></body></html>
"""


def _chain(failure: BaseException) -> list[tuple[BaseException, str]]:
    """The exception, then what it came from, and the members of groups; each once."""
    found: list[tuple[BaseException, str]] = []
    seen: set[int] = set()

    def add(exc: BaseException | None, how: str) -> None:
        if exc is None or id(exc) in seen or len(found) >= CHAIN_MAX:
            return
        seen.add(id(exc))
        found.append((exc, how))
        if isinstance(exc, BaseExceptionGroup):
            for member in exc.exceptions:
                add(member, "One of the group")
        if exc.__cause__ is not None:
            add(exc.__cause__, "Caused by")
        elif not exc.__suppress_context__:
            add(exc.__context__, "Raised while this was handled")

    add(failure, "")
    return found


def _exception(exc: BaseException, how: str) -> str:
    esc = html.escape
    frames = [(frame, line) for frame, line in traceback.walk_tb(exc.__traceback__)][-FRAMES_MAX:]
    frames = [(frame, line) for frame, line in frames if not _is_ours(frame.f_code)] or frames
    shown = [_frame(frame, line, opened=_is_of_application(frame.f_code)) for frame, line in reversed(frames)]
    title = f"<h2>{esc(how)}: {esc(type(exc).__name__)}: {esc(_without_secrets(str(exc)))}</h2>" if how else ""
    notes = "".join(f"<p>{esc(_without_secrets(str(note)))}</p>" for note in getattr(exc, "__notes__", ()))
    return f"<section>{title}{notes}{''.join(shown)}</section>"


def _is_ours(code: CodeType) -> bool:
    return os.path.realpath(code.co_filename).startswith(_OURS)


def _is_of_application(code: CodeType) -> bool:
    path = os.path.realpath(code.co_filename)
    return not path.startswith(_LIBRARIES) and f"{os.sep}site-packages{os.sep}" not in path


def _frame(frame: FrameType, line: int, *, opened: bool) -> str:
    esc = html.escape
    code = frame.f_code
    linecache.checkcache(code.co_filename)
    rows = []
    for number in range(max(1, line - AROUND), line + AROUND + 1):
        source = linecache.getline(code.co_filename, number, frame.f_globals).rstrip("\n")
        if source or number == line:
            mark = ' class="here"' if number == line else ""
            rows.append(f"<li value={number}{mark}><code>{esc(source) or ' '}</code></li>")
    values = [(name, _shown(name, value)) for name, value in list(frame.f_locals.items())[:LOCALS_MAX]]
    table = f"<details><summary>Locals</summary>{_table(values)}</details>" if values else ""
    return (
        f"<details{' open' if opened else ''}><summary><code>{esc(code.co_filename)}</code>:{line}"
        f" in <code>{esc(code.co_qualname)}</code></summary><ol>{''.join(rows)}</ol>{table}</details>"
    )


def _shown(name: str, value: Any) -> str:
    if _is_secret(name):
        return HIDDEN
    try:
        text = repr(_with_hidden_values(value))
    except Exception as exc:  # noqa: BLE001 - a repr() may do anything
        return f"<{type(value).__name__}, whose repr() raised {type(exc).__name__}>"
    shown = _without_secrets(text[:READ_MAX])
    return shown if len(shown) <= VALUE_MAX and len(text) <= READ_MAX else shown[:VALUE_MAX] + "…"


def _with_hidden_values(value: Any) -> Any:
    """A dictionary without what its keys call secret."""
    if type(value) is dict:
        return {
            key: HIDDEN if isinstance(key, str) and _is_secret(key) else each for key, each in list(value.items())[:50]
        }
    return value


def _without_secrets(text: str) -> str:
    if len(text) > TEXT_MAX:
        half = TEXT_MAX // 2
        text = f"{text[:half]}\n…\n{text[-half:]}"
    return _secret_values.sub(lambda match: (match[1] or match[2] or match[3]) + HIDDEN, text)


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{cells}</table>"


_STYLE = """
:root { color-scheme: light dark; --soft: light-dark(#f4f4f6, #1f2023); --line: light-dark(#dcdce0, #3a3b40);
  --hot: light-dark(#b00020, #ff8a80); --here: light-dark(#fde8e8, #4a2226) }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 64rem; padding: 1.5rem }
header p { margin: .2rem 0; color: GrayText; overflow-wrap: anywhere }
h1 { margin: .2rem 0; color: var(--hot); font-size: 1.8rem }
header .message { font-size: 1.15rem; color: inherit; white-space: pre-wrap }
h2 { font-size: 1.1rem; margin: 1.8rem 0 .5rem; overflow-wrap: anywhere }
details { border: 1px solid var(--line); border-radius: 6px; margin: .5rem 0; overflow: hidden }
details details { border-width: 1px 0 0; border-radius: 0; margin: 0 }
summary { padding: .45rem .7rem; background: var(--soft); cursor: pointer; overflow-wrap: anywhere }
ol { margin: 0; padding: .4rem 0 .4rem 3.6rem; overflow-x: auto; font: 13px/1.55 ui-monospace, monospace }
li { white-space: pre; padding: 0 .7rem 0 .4rem }
li::marker { color: GrayText }
li.here { background: var(--here) }
table { border-collapse: collapse; width: 100%; font: 13px/1.5 ui-monospace, monospace; margin: .3rem 0 }
th { text-align: left; vertical-align: top; padding: .15rem .7rem; white-space: nowrap;
  color: GrayText; font-weight: 400 }
td { padding: .15rem .7rem; overflow-wrap: anywhere }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 6px; padding: .8rem; overflow: auto;
  font: 13px/1.5 ui-monospace, monospace }
button { font: inherit; padding: .3rem .9rem; border-radius: 6px; border: 1px solid var(--line);
  background: var(--soft); color: inherit; cursor: pointer }
footer { margin-top: 2rem; color: GrayText; font-size: .9rem }
code { font-family: ui-monospace, monospace }
"""
_SCRIPT = """
document.getElementById("copy").addEventListener("click", async event => {
  const text = document.getElementById("text");
  try {
    await navigator.clipboard.writeText(text.textContent);
  } catch {
    getSelection().selectAllChildren(text);
    document.execCommand("copy");
  }
  event.target.textContent = "Copied";
});
"""
