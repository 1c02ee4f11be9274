"""Formats of the access log: how a line is made of an `AccessEntry`, and what has to be picked for it.

A format string is taken apart once. What is left of it is a template for `%`, and a function for each value in it. Two
threads have to do with a line: the loop picks what only the request has, such as one of its fields, for the request is
gone when the line is written. It makes the line, too, where that goes to a stream or a file of the server's own: to
hand over all the values of a request costs several times as much. All else is done by the thread that writes.

What is kept of a time, so that its text is made once a second, belongs to one format: each worker makes its own.
"""

import json
import os
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from pounce.errors import ConfigError
from pounce.observe.access_entry import AccessEntry, escaped
from pounce.spelling import did_you_mean, meant

if TYPE_CHECKING:
    from pounce.plugin import Completed

__all__ = [
    "FIELD_MAX",
    "AccessFormat",
    "access_fields",
    "access_format",
    "cut",
    "plain_line",
    "timestamp",
    "usual_line",
]

FIELD_MAX = 2048
"""Characters of the method, the target and each field that are logged."""
CUT = "…"
"""Follows what was cut off; no client can send it."""
LOGGER = "pounce.access"
AT_INFO, AT_WARNING = f" INFO     {LOGGER} - ", f" WARNING  {LOGGER} - "
"""What stands between the time and the message in a log for people."""
COMMON = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s'
COMBINED = COMMON + ' "%(f)s" "%(a)s"'
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

type Write = Callable[[AccessEntry], str]
type Plain = Callable[[float, str, str, str, str, str, int, int, float, int, object], str]
"""Makes the line of a request of which there is nothing to say but what every entry has, and its id; given in the order
at, client, method, target, version, scheme, status, sent, duration, worker, request_id."""


class AccessFormat(NamedTuple):
    """How lines look."""

    write: Write | None
    """Makes a line; None where that is left to whoever writes the log, who does it as with all other records."""
    pick: Callable[[Completed], tuple[str | None, ...]] | None = None
    """Finds in a request what `write` wants to have in `entry.picked`; None where it wants nothing."""


def access_format(text: str) -> AccessFormat:
    """The format that the setting `access_log_format` names or is. Raises `ConfigError`."""
    if text in _NAMED:
        make = _NAMED[text]
        return AccessFormat(None if make is None else make())
    text = {"common": COMMON, "combined": COMBINED}.get(text, text)
    if "%(" not in text:
        names = (*_NAMED, "common", "combined")
        raise ConfigError(
            f"access_log_format must be one of {', '.join(names)}, or made of values such as %(h)s (got {text!r})",
            hint=did_you_mean(text, names),
        )
    return _compiled(text)


def usual_line(form: str) -> Write:
    """What makes a line where the format is `auto`: `form` is that of the log, `text` or `json`."""
    return _json() if form == "json" else _text()


def plain_line(form: str) -> Plain:
    """The same for the usual request, which then needs no entry."""
    return _json_plain() if form == "json" else _text_plain()


def cut(text: str) -> str:
    """`text`, no longer than is logged."""
    return text if len(text) <= FIELD_MAX else text[:FIELD_MAX] + CUT


# Names and values: JSON and logfmt


def access_fields(entry: AccessEntry) -> dict[str, Any]:
    """What is logged of a request, by the names that the JSON format has for it."""
    fields: dict[str, Any] = {
        "ts": timestamp(entry.at),
        "level": "warn" if entry.status >= 500 else "info",
        "method": entry.method,
        "path": entry.target,
        "status": entry.status,
        "bytes": entry.sent,
        "duration_ms": round(entry.duration * 1000, 3),
        "client": entry.client,
        "protocol": f"HTTP/{entry.version}",
        "scheme": entry.scheme,
        "worker": entry.worker,
    }
    if not entry.complete:
        fields["incomplete"] = True
    if entry.request_id is not None:
        fields["req_id"] = entry.request_id
    if entry.trace_id is not None:
        fields["trace_id"] = entry.trace_id
    if entry.first_byte is not None:
        fields["ttfb_ms"] = round(entry.first_byte * 1000, 3)
    if entry.queued:
        fields["queued_ms"] = round(entry.queued * 1000, 3)
    if entry.tls is not None:
        fields["tls_version"], fields["tls_cipher"] = _tls_version(entry), _tls_cipher(entry)
    if entry.close_code is not None:
        fields["close_code"] = entry.close_code
    return fields


def timestamp(seconds: float) -> str:
    """ISO 8601 in UTC, milliseconds."""
    return f"{_utc(seconds)}.{int(seconds % 1 * 1000):03d}+00:00"


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


_quoted: Callable[[str], str] = json.encoder.encode_basestring_ascii
"""A string of JSON."""


def _json_plain() -> Plain:
    """As `json.dumps()` writes `access_fields()`."""
    second = _Second(_utc)

    def plain(
        at: float,
        client: str,
        method: str,
        target: str,
        version: str,
        scheme: str,
        status: int,
        sent: int,
        duration: float,
        worker: int,
        request_id: object,
    ) -> str:
        level = "info" if status < 500 else "warn"
        end = "}"
        if request_id is not None:
            quoted = _quoted(request_id) if type(request_id) is str else json.dumps(request_id, default=str)
            end = f', "req_id": {quoted}}}'
        return (
            f'{{"ts": "{second.of(at)}.{int(at % 1 * 1000):03d}+00:00", "level": "{level}",'
            f' "method": {_quoted(method)}, "path": {_quoted(target)}, "status": {status}, "bytes": {sent},'
            f' "duration_ms": {_rounded(duration * 1000)}, "client": {_quoted(client)}, "protocol": "HTTP/{version}",'
            f' "scheme": {_quoted(scheme)}, "worker": {worker}{end}'
        )

    return plain


def _json() -> Write:
    plain = _json_plain()

    def write(entry: AccessEntry) -> str:
        line = plain(
            entry.at,
            entry.client,
            entry.method,
            entry.target,
            entry.version,
            entry.scheme,
            entry.status,
            entry.sent,
            entry.duration,
            entry.worker,
            # It stands behind what follows.
            None if not entry.complete else entry.request_id,
        )[:-1]
        if not entry.complete:
            line += ', "incomplete": true'
            if entry.request_id is not None:
                line += f', "req_id": {json.dumps(entry.request_id, default=str)}'
        if entry.trace_id is not None:
            line += f', "trace_id": "{entry.trace_id}"'
        if entry.first_byte is not None:
            line += f', "ttfb_ms": {_rounded(entry.first_byte * 1000)}'
        if entry.queued:
            line += f', "queued_ms": {_rounded(entry.queued * 1000)}'
        if entry.tls is not None:
            version, cipher = json.dumps(_tls_version(entry)), json.dumps(_tls_cipher(entry))
            line += f', "tls_version": {version}, "tls_cipher": {cipher}'
        if entry.close_code is not None:
            line += f', "close_code": {entry.close_code}'
        return line + "}"

    return write


def _rounded(value: float) -> str:
    """As `round(value, 3)` is written, in a third of the time."""
    text = f"{value:.3f}".rstrip("0")
    return text + "0" if text[-1] == "." else text


def _logfmt() -> Write:
    return _logfmt_line


def _logfmt_line(entry: AccessEntry) -> str:
    return " ".join(f"{name}={_logfmt_value(value)}" for name, value in access_fields(entry).items())


_bare = re.compile(r"[!#-<>-\[\]-~]+").fullmatch
"""Printable ASCII without spaces, quotes, equals signs and backslashes."""


def _logfmt_value(value: object) -> str:
    text = "true" if value is True else str(value)
    # Readers of logfmt take a quoted value for a string of JSON.
    return text if _bare(text) is not None else json.dumps(text)


def _text_plain() -> Plain:
    second = _Second(_local_time)

    def plain(
        at: float,
        client: str,
        method: str,
        target: str,
        version: str,
        scheme: str,
        status: int,
        sent: int,
        duration: float,
        worker: int,
        request_id: object,
    ) -> str:
        level = AT_INFO if status < 500 else AT_WARNING
        number = "" if request_id is None else f" [{request_id}]"
        return (
            f'{second.of(at)},{int(at % 1 * 1000):03d}{level}{client} - "{escaped(f"{method} {target}")}'
            f' HTTP/{version}" {status or "-"} {sent} {duration * 1000:.1f}ms w{worker}{number}'
        )

    return plain


def _text() -> Write:
    second = _Second(_local_time)

    def write(entry: AccessEntry) -> str:
        at = entry.at
        level = AT_INFO if entry.status < 500 else AT_WARNING
        return f"{second.of(at)},{int(at % 1 * 1000):03d}{level}{entry.text()}"

    return write


def _local_time(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


class _Second:
    """The text of a time, made anew when another second begins."""

    __slots__ = ("_kept", "_make")

    def __init__(self, make: Callable[[float], str]) -> None:
        self._make = make
        self._kept = -1, ""
        """Second and text in one, for more than one thread may ask."""

    def of(self, at: float) -> str:
        kept = self._kept
        if kept[0] != int(at):
            kept = self._kept = int(at), self._make(at)
        return kept[1]


class _Stamp(_Second):
    """The same as `timestamp()` has it."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(_utc)

    def of(self, at: float) -> str:
        return f"{_Second.of(self, at)}.{int(at % 1 * 1000):03d}+00:00"


_NAMED: dict[str, Callable[[], Write] | None] = {"auto": None, "text": _text, "json": _json, "logfmt": _logfmt}


# Format strings


_atom = re.compile(r"%(?:\((?P<name>\w+|\{[^{}()]+\}[ioe])\)(?P<width>-?\d*)[sd]|(?P<percent>%))")


def _compiled(text: str) -> AccessFormat:
    template: list[str] = []
    readers: list[Write] = []
    picks: list[str] = []
    at = 0
    while (sign := text.find("%", at)) >= 0:
        found = _atom.match(text, sign)
        if found is None:
            raise ConfigError(
                f"access_log_format is not understood at {text[sign : sign + 16]!r}",
                hint="Values are written as %(h)s or %({user-agent}i)s, the sign itself as %%.",
            )
        template.append(text[at:sign])
        at = found.end()
        name = found["name"]
        if name is None:
            template.append("%%")
            continue
        template.append(f"%{found['width']}s")
        readers.append(_reader(name, picks))
    template.append(text[at:])
    made, values = "".join(template), tuple(readers)

    def write(entry: AccessEntry) -> str:
        return made % tuple([value(entry) for value in values])

    return AccessFormat(write, _picker(tuple(picks)) if picks else None)


def _reader(name: str, picks: list[str]) -> Write:
    """What gives the value of an atom; what has to be picked for it is added to `picks`."""
    kind = name[-1]
    if name.startswith("{"):
        inner = name[1:-2]
        if kind == "e":
            value = escaped(os.environ.get(inner, "-"))
            return lambda entry: value
        name = f"{kind} {inner.lower()}"
    elif name in _PICKED:
        name = _PICKED[name]
    elif name in _ATOMS:
        return _ATOMS[name]
    elif name in _TIMES:
        return _TIMES[name]()
    else:
        names = (*_ATOMS, *_TIMES, *_PICKED)
        close = meant(name, names)
        there = f"There are {', '.join(names)}, and fields such as %({{user-agent}}i)s."
        raise ConfigError(
            f"access_log_format has no value {name!r}", hint=f"Did you mean %({close})s?" if close else there
        )
    if name not in picks:
        picks.append(name)
    at = picks.index(name)

    def picked(entry: AccessEntry) -> str:
        found = entry.picked[at]
        return "-" if found is None else escaped(found)

    return picked


def _picker(picks: tuple[str, ...]) -> Callable[[Completed], tuple[str | None, ...]]:
    """What finds fields of requests (`i name`), of answers (`o name`), and users (`u authorization`)."""
    of_requests = {pick.partition(" ")[2].encode("latin-1"): at for at, pick in enumerate(picks) if pick[0] == "i"}
    of_answers = {pick.partition(" ")[2].encode("latin-1"): at for at, pick in enumerate(picks) if pick[0] == "o"}
    user = picks.index(USER) if USER in picks else None

    def pick(exchange: Completed) -> tuple[str | None, ...]:
        found: list[str | None] = [None] * len(picks)
        for names, fields in (
            (of_requests, exchange.head.headers),
            (of_answers, getattr(exchange, "answer_fields", None) or ()),
        ):
            for name, value in fields:
                at = names.get(name)
                if at is not None:
                    text, before = value.decode("latin-1"), found[at]
                    found[at] = cut(text if before is None else f"{before}, {text}")
                elif user is not None and name == b"authorization":
                    found[user] = _user(value)
        return tuple(found)

    return pick


USER = "u authorization"
_PICKED = {"u": USER, "f": "i referer", "a": "i user-agent"}


def _user(authorization: bytes) -> str | None:
    """The name in the credentials of Basic authentication (RFC 7617), whose password must not be logged."""
    import binascii

    scheme, _, credentials = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        name, colon, _ = binascii.a2b_base64(credentials).partition(b":")
    except ValueError:
        return None
    # Without a colon it is none, and may be anything.
    return cut(name.decode("utf-8", "replace")) if colon and name else None


def _host(entry: AccessEntry) -> str:
    return entry.client.rpartition(":")[0] or "-"


def _received() -> Write:
    """As `strftime` has it in the C locale, whatever locale the application has chosen."""

    def made(seconds: float) -> str:
        at = time.localtime(seconds)
        return time.strftime(f"[%d/{MONTHS[at.tm_mon - 1]}/%Y:%H:%M:%S %z]", at)

    second = _Second(made)
    return lambda entry: second.of(entry.at - entry.duration)


def _stamped() -> Write:
    stamp = _Stamp()
    return lambda entry: stamp.of(entry.at)


def _first_byte(entry: AccessEntry) -> str:
    if not entry.status or entry.close_code is not None:
        return "-"
    return f"{entry.duration if entry.first_byte is None else entry.first_byte:.6f}"


TLS_VERSIONS = {0x0301: "TLSv1", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}
_ciphers: dict[object, str] = {}


def _tls_version(entry: AccessEntry) -> str | None:
    number = entry.tls[0] if entry.tls is not None else None
    return TLS_VERSIONS.get(number) if isinstance(number, int) else None


def _tls_cipher(entry: AccessEntry) -> str | None:
    """By the name that OpenSSL has for it."""
    number = entry.tls[1] if entry.tls is not None else None
    if number is None:
        return None
    if not _ciphers:
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("ALL:@SECLEVEL=0")
        _ciphers.update({cipher["id"] & 0xFFFF: str(cipher["name"]) for cipher in context.get_ciphers()})
    return _ciphers.get(number) or f"0x{number:04x}"


_ATOMS: dict[str, Write] = {
    "h": _host,
    "l": lambda entry: "-",
    "r": lambda entry: f"{escaped(entry.method)} {escaped(entry.target)} HTTP/{entry.version}",
    "m": lambda entry: escaped(entry.method),
    "U": lambda entry: escaped(entry.target.partition("?")[0]),
    "q": lambda entry: escaped(entry.target.partition("?")[2]),
    "H": lambda entry: f"HTTP/{entry.version}",
    "s": lambda entry: str(entry.status or "-"),
    "B": lambda entry: str(entry.sent),
    "b": lambda entry: str(entry.sent or "-"),
    "T": lambda entry: str(int(entry.duration)),
    "M": lambda entry: str(int(entry.duration * 1000)),
    "D": lambda entry: str(int(entry.duration * 1_000_000)),
    "L": lambda entry: f"{entry.duration:.6f}",
    "p": lambda entry: f"<{os.getpid()}>",
    "level": lambda entry: "warn" if entry.status >= 500 else "info",
    "client": lambda entry: entry.client,
    "scheme": lambda entry: entry.scheme,
    "worker": lambda entry: str(entry.worker),
    "request_id": lambda entry: "-" if entry.request_id is None else escaped(str(entry.request_id)),
    "trace_id": lambda entry: entry.trace_id or "-",
    "tls_version": lambda entry: _tls_version(entry) or "-",
    "tls_cipher": lambda entry: _tls_cipher(entry) or "-",
    "ttfb": _first_byte,
    "queued": lambda entry: f"{entry.queued:.6f}",
    "close_code": lambda entry: str(entry.close_code or "-"),
    "end": lambda entry: "complete" if entry.complete else "incomplete",
}
_TIMES: dict[str, Callable[[], Write]] = {"t": _received, "ts": _stamped}
