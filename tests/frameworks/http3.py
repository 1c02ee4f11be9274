"""httpx over HTTP/3, which it does not speak itself: QUIC and HTTP/3 are those of qh3."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
from qh3.asyncio.protocol import QuicConnectionProtocol
from qh3.h3.connection import ErrorCode, H3Connection
from qh3.h3.events import DataReceived, HeadersReceived, StreamReset
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection, QuicConnectionError
from qh3.quic.events import ConnectionTerminated, QuicEvent
from tests.conformance.client import Broken
from tests.conformance.h3 import H3Client, H3Request

__all__ = ["AsyncH3Transport", "H3Transport"]

Fields = list[tuple[bytes, bytes]]
NOT_SENT = frozenset((b"connection", b"transfer-encoding"))


def has_body(request: httpx.Request) -> bool:
    return "content-length" in request.headers or "transfer-encoding" in request.headers


def fields_of(request: httpx.Request) -> Fields:
    """The fields of a request that HTTP/3 has too."""
    return [(name.lower(), value) for name, value in request.headers.raw if name.lower() not in NOT_SENT]


class Body(httpx.SyncByteStream):
    """The body of an answer; closed before its end, it gives up the request."""

    def __init__(self, request: H3Request) -> None:
        self._request = request
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        try:
            while piece := self._request.read_piece():
                yield piece
        except Broken as exc:
            raise httpx.RemoteProtocolError(str(exc)) from exc
        self._ended = True

    def close(self) -> None:
        if not self._ended:
            self._request.abort()


class H3Transport(httpx.BaseTransport):
    """Requests one after the other, on one connection."""

    def __init__(self, certfile: str) -> None:
        self._certfile = certfile
        self._client: H3Client | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        client = self._client
        if client is None:
            client = self._client = H3Client(request.url.host, request.url.port or 443, self._certfile)
        body = has_body(request)
        sent = client.open(request.method, request.url.raw_path.decode(), fields_of(request), body=body)
        if body:
            assert isinstance(request.stream, httpx.SyncByteStream)
            for piece in request.stream:
                sent.send_body(piece)
            sent.end()
        head = sent.read_head()
        extensions = {"http_version": b"HTTP/3", "network_stream": client}
        return httpx.Response(head.status, headers=list(head.headers), stream=Body(sent), extensions=extensions)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


class Protocol(QuicConnectionProtocol):
    """A client's end of a connection that belongs to an event loop."""

    def __init__(self, quic: QuicConnection) -> None:
        super().__init__(quic)
        self.h3 = H3Connection(quic)
        self.waiting: dict[int, asyncio.Queue[Any]] = {}
        """What has arrived for each request."""

    def quic_event_received(self, event: QuicEvent) -> None:
        for found in self.h3.handle_event(event):
            queue = self.waiting.get(getattr(found, "stream_id", -1))
            if queue is not None:
                queue.put_nowait(found)
        if isinstance(event, ConnectionTerminated):
            for queue in self.waiting.values():
                queue.put_nowait(event)

    async def next(self, stream_id: int) -> Any:
        event = await self.waiting[stream_id].get()
        if isinstance(event, (StreamReset, ConnectionTerminated)):
            raise httpx.RemoteProtocolError(str(event))
        return event

    def give_up(self, stream_id: int) -> None:
        """RFC 9114 4.1.1: a client cancels by giving up both directions."""
        if self.waiting.pop(stream_id, None) is not None:
            if self._quic._stream_can_send(stream_id):
                self._quic.reset_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
            try:
                self._quic.stop_stream(stream_id, ErrorCode.H3_REQUEST_CANCELLED)
            except ValueError, QuicConnectionError:
                # The server has ended its half, or the client the connection.
                pass
            self.transmit()


class AsyncBody(httpx.AsyncByteStream):
    """The body of an answer; closed before its end, it gives up the request."""

    def __init__(self, protocol: Protocol, stream_id: int, ended: bool) -> None:
        self._protocol = protocol
        self._stream_id = stream_id
        self._ended = ended

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._ended:
            event = await self._protocol.next(self._stream_id)
            self._ended = event.stream_ended
            if isinstance(event, DataReceived):
                yield event.data

    async def aclose(self) -> None:
        if self._ended:
            self._protocol.waiting.pop(self._stream_id, None)
        else:
            self._protocol.give_up(self._stream_id)


class AsyncH3Transport(httpx.AsyncBaseTransport):
    """Requests at the same time, on one connection."""

    def __init__(self) -> None:
        self._connected: asyncio.Task[Protocol] | None = None

    async def _connect(self, url: httpx.URL) -> Protocol:
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=["h3"], server_name="localhost", verify_mode=ssl.CERT_NONE
        )
        quic = QuicConnection(configuration=configuration)
        _, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: Protocol(quic), local_addr=("127.0.0.1", 0)
        )
        protocol.connect((url.host, url.port or 443))
        await protocol.wait_connected()
        return protocol

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._connected is None:
            self._connected = asyncio.create_task(self._connect(request.url))
        protocol = await asyncio.shield(self._connected)
        stream_id = protocol._quic.get_next_available_stream_id()
        protocol.waiting[stream_id] = asyncio.Queue()
        pseudo = [
            (b":method", request.method.encode()),
            (b":scheme", b"https"),
            (b":authority", request.headers["host"].encode()),
            (b":path", request.url.raw_path),
        ]
        fields = [field for field in fields_of(request) if field[0] != b"host"]
        body = has_body(request)
        try:
            protocol.h3.send_headers(stream_id, pseudo + fields, end_stream=not body)
            if body:
                assert isinstance(request.stream, httpx.AsyncByteStream)
                async for piece in request.stream:
                    protocol.h3.send_data(stream_id, piece, end_stream=False)
                    protocol.transmit()
                protocol.h3.send_data(stream_id, b"", end_stream=True)
            protocol.transmit()
            head = await protocol.next(stream_id)
            while not isinstance(head, HeadersReceived):
                head = await protocol.next(stream_id)
        except BaseException:
            protocol.give_up(stream_id)
            raise
        (_, status), *fields = head.headers
        return httpx.Response(
            int(status),
            headers=fields,
            stream=AsyncBody(protocol, stream_id, head.stream_ended),
            extensions={"http_version": b"HTTP/3", "network_stream": protocol},
        )

    async def aclose(self) -> None:
        if self._connected is not None:
            protocol = await self._connected
            protocol.close()
            protocol._transport.close()
