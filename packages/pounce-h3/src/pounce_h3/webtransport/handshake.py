"""The request that opens a session: who may, and what was agreed on (draft-ietf-webtrans-http3 3)."""

import re
from typing import NamedTuple

from pounce.errors import BadRequest
from pounce.plugin import Headers, RequestHead, Service

__all__ = ["Handshake", "read_handshake"]

VALUE_MAX = 4096
"""Bytes of a list of protocols that is looked at."""

# RFC 9651 3.3.3: the items that a list of protocols has, and what may stand between them.
_item = re.compile(rb'[ \t]*"((?:[ !#-\[\]-~]|\\["\\])*)"(?:;[^,"]*)?[ \t]*(?:,|$)')
_escaped = re.compile(rb"\\(.)")


class Handshake(NamedTuple):
    """What a client asked for, checked."""

    subprotocols: list[str]
    is_draft_02: bool
    """The client wants to hear which of the old drafts is spoken."""

    def answer(self, subprotocol: str | None) -> Headers:
        """The fields that accept it."""
        fields: Headers = []
        if self.is_draft_02:
            fields.append((b"sec-webtransport-http3-draft", b"draft02"))
        if subprotocol is not None:
            text = subprotocol.replace("\\", "\\\\").replace('"', '\\"')
            fields.append((b"wt-protocol", f'"{text}"'.encode()))
        return fields


def read_handshake(service: Service, head: RequestHead) -> Handshake:
    """Judge a request. Raises `BadRequest`."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in head.headers:
        values.setdefault(name, []).append(value)
    _check_origin(service.config.http3_webtransport_origins, values.get(b"origin", []))
    offered = b",".join(values.get(b"wt-available-protocols", []))
    return Handshake(_protocols(offered), b"1" in values.get(b"sec-webtransport-http3-draft02", []))


def _check_origin(allowed: tuple[str, ...], given: list[bytes]) -> None:
    """Browsers say which page opens the session; other clients need not say anything."""
    if not allowed or not given:
        return
    if len(given) > 1 or given[0].decode("latin-1").lower() not in {item.lower() for item in allowed}:
        raise BadRequest(
            "this origin may not connect",
            status=403,
            code="POUNCE_WT_ORIGIN_REFUSED",
            hint="http3_webtransport_origins lists those that may.",
        )


def _protocols(value: bytes) -> list[str]:
    """The protocols that a client offers; none where the field is no list of strings (RFC 9651 4.2: such a field is
    ignored)."""
    found: list[str] = []
    at = 0
    if len(value) > VALUE_MAX:
        return []
    while at < len(value):
        item = _item.match(value, at)
        if item is None:
            return []
        at = item.end()
        name = _escaped.sub(rb"\1", item[1]).decode("ascii")
        if name not in found:
            found.append(name)
    return found
