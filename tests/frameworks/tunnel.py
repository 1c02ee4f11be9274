"""A WebSocket opened by extended CONNECT (RFC 8441, RFC 9220); its frames are those of `websockets`, which opens none
such itself."""

import socket
from typing import Any, Self

import websockets
from tests.conformance.client import Broken, H2Client, H2Request
from tests.conformance.h3 import H3Client, H3Request
from tests.frameworks.wires import PATIENCE, Site
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import parse_uri

__all__ = ["TunnelWebSocket"]


def connect(site: Site) -> H2Client | H3Client:
    """A client of the wire that a site is served on."""
    host, port = site.server.host, site.server.port
    if site.wire.name == "h3":
        return H3Client(host, port, str(site.certificate.certificate))
    sock = socket.create_connection((host, port), PATIENCE)
    if site.wire.tls:
        site.context.set_alpn_protocols(["h2"])
        sock = site.context.wrap_socket(sock, server_hostname="localhost")
    return H2Client(sock)


class TunnelWebSocket:
    """The same methods as a connection of `websockets`. Each waits without giving its loop a turn."""

    def __init__(self, site: Site, path: str, subprotocol: str) -> None:
        self._client = connect(site)
        self._tls = site.wire.tls
        self._path = path
        self._offered = subprotocol
        self._frames = ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN, max_size=2**24)
        self.subprotocol: str | None = None
        self.response: Any = None

    async def __aenter__(self) -> Self:
        fields = [
            (b":method", b"CONNECT"),
            (b":protocol", b"websocket"),
            (b":scheme", b"https" if self._tls else b"http"),
            (b":path", self._path.encode()),
            (b":authority", b"localhost"),
            (b"sec-websocket-version", b"13"),
            (b"sec-websocket-protocol", self._offered.encode()),
        ]
        client = self._client
        if isinstance(client, H2Client):
            self._request: H2Request | H3Request = client.start(fields, body=True)
        else:
            self._request = client.open_raw(fields, False)
        head = self._request.read_head()
        headers = Headers([(name.decode(), value.decode()) for name, value in head.headers])
        self.response = Response(head.status, "", headers)
        if head.status != 200:
            client.close()
            raise websockets.InvalidStatus(self.response)
        self.subprotocol = headers.get("sec-websocket-protocol")
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._frames.state is State.OPEN:
            await self.close()
        self._client.close()

    def _flush(self) -> None:
        for data in self._frames.data_to_send():
            if data:
                self._request.send_body(data)

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            self._frames.send_text(message.encode())
        else:
            self._frames.send_binary(message)
        self._flush()

    async def recv(self) -> str | bytes:
        message, kind = b"", None
        while True:
            for event in self._frames.events_received():
                assert isinstance(event, Frame)
                if event.opcode in (Opcode.TEXT, Opcode.BINARY):
                    kind = event.opcode
                if event.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                    message += event.data
                    if event.fin:
                        return message.decode() if kind is Opcode.TEXT else message
            if not self._read():
                raise self._frames.close_exc

    def _read(self) -> bool:
        """Wait for more; False at the end."""
        try:
            data = self._request.read_piece()
        except Broken:
            data = b""
        if data:
            self._frames.receive_data(data)
        else:
            self._frames.receive_eof()
        self._flush()
        return bool(data)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self._frames.send_close(code, reason)
        self._flush()
        while self._read():
            pass

    @property
    def close_code(self) -> int | None:
        return self._frames.close_code

    @property
    def close_reason(self) -> str | None:
        return self._frames.close_reason
