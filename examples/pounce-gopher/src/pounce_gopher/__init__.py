"""Gopher (RFC 1436) as a wire: one line in, one document out, and the connection ends."""

from urllib.parse import quote_from_bytes

from pounce.plugin import API_VERSION, BadRequest, Headers, Plugin, RequestConnection, RequestHead, Service, Wire

LINE_MAX = 1024


class GopherConnection(RequestConnection):
    """A connection, which carries one request."""

    def read_head(self, data: bytes) -> tuple[RequestHead, bytes] | None:
        line, end, rest = data.partition(b"\r\n")
        if len(line) > LINE_MAX:
            raise BadRequest("The selector is too long", code="GOPHER_LINE")
        if not end:
            return None
        selector, _, search = line.partition(b"\t")
        target = "/" + quote_from_bytes(selector.lstrip(b"/"), "/?=&%") + ("?" if search else "")
        return RequestHead(b"GET", target.encode() + quote_from_bytes(search).encode(), [], "1.0", "gopher"), rest

    def encode_head(self, status: int, headers: Headers) -> bytes:
        return b"3Error %d\terror.host\t1\r\n" % status if status >= 400 else b""


def connect(service: Service) -> GopherConnection:
    return GopherConnection(service, "gopher")


plugin = Plugin(name="gopher", api=API_VERSION, wires=(Wire(name="gopher", connect=connect),))
