"""`Upgrade: h2c`: a client of HTTP/1.1 in clear text goes on in HTTP/2 (RFC 7540 3.2, which RFC 9113 has given up).

The request that asked for it becomes stream 1, whose other half is closed; its answer is the first one in HTTP/2.
"""

import base64
import binascii
from typing import TYPE_CHECKING

from pounce.contract.head import Headers, RequestHead
from pounce.exchange.fields import CONNECTION_FIELDS
from pounce_h2.abuse import ConnectionFailed
from pounce_h2.connection import H2Connection

if TYPE_CHECKING:
    from pounce.contract.wire import Service

__all__ = ["upgraded"]


def upgraded(service: Service, head: RequestHead) -> H2Connection | None:
    """The connection for a request that asks for h2c; None where the request is not as RFC 7540 3.2.1 demands it."""
    settings = settings_payload(head.headers)
    if settings is None:
        return None
    connection = H2Connection(service)
    headers = [field for field in head.headers if field[0] not in CONNECTION_FIELDS and field[0] != b"http2-settings"]
    try:
        connection.begin_with(
            RequestHead(head.method, head.target, headers, "2", head.scheme, relayed=bool(head.relayed)), settings
        )
    except ConnectionFailed:
        return None
    return connection


def settings_payload(headers: Headers) -> bytes | None:
    """What HTTP2-Settings says, as the payload of a SETTINGS frame.

    None unless it is given once, is a connection option, and is base64url as RFC 7515 2 has it, without padding.
    """
    values = [value for name, value in headers if name == b"http2-settings"]
    options = b",".join([value for name, value in headers if name == b"connection"]).lower().split(b",")
    if len(values) != 1 or b"http2-settings" not in [option.strip() for option in options]:
        return None
    encoded = values[0]
    try:
        payload = base64.urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4))
    except binascii.Error:
        return None
    # Other characters are passed over by the decoder, and so are bits beyond the last octet.
    is_canonical = base64.urlsafe_b64encode(payload).rstrip(b"=") == encoded
    return payload if is_canonical and len(payload) % 6 == 0 else None
