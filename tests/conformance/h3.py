"""HTTP/3 with qh3, over a UDP socket of the test: `H3Client` and its requests."""

import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from qh3.h3.connection import FrameType, H3Connection, HeadersState, QpackEncoderStreamError, encode_frame
from qh3.h3.events import (
    DataReceived,
    GoawayReceived,
    HeadersReceived,
    InformationalHeadersReceived,
    StreamReset,
)
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection, QuicConnectionError
from qh3.quic.events import ConnectionTerminated, HandshakeCompleted
from tests.conformance.client import PATIENCE, Broken, Fields, Head, Headers, Response

__all__ = ["H3Client", "H3Request", "literal_section"]

WINDOW = 65536
"""Bytes a stream may have unsent before the next piece is waited with."""

PACED_MAX = 5.0
"""Seconds for which the end of a connection waits for what has not left yet."""


class H3Client:
    """One QUIC connection. Nothing happens on it but inside its methods, which wait for the network as needed."""

    def __init__(
        self, host: str, port: int, certfile: str, *, alpn: tuple[str, ...] = ("h3",), **settings: Any
    ) -> None:
        configuration = QuicConfiguration(
            is_client=True,
            alpn_protocols=list(alpn),
            server_name="localhost",
            verify_mode=ssl.CERT_NONE,
            **({"idle_timeout": 20.0} | settings),
        )
        self.tickets: list[Any] = []
        """With which one can come back."""
        self.quic = QuicConnection(configuration=configuration, session_ticket_handler=self.tickets.append)
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.connect((host, port))
        self.address = self.sock.getsockname()
        self.server_address: Any = (host, port)
        self.terminated: ConnectionTerminated | None = None
        self.goaway: int | None = None
        self.connected = False
        self.requests: dict[int, H3Request] = {}
        self._since = 0
        self.quic.connect((host, port), time.monotonic())
        self.h3 = H3Connection(self.quic)
        try:
            self.wait_until(lambda: self.connected or self.terminated is not None)
            if not self.connected:
                raise ConnectionError(str(self.terminated))
        except BaseException:
            self.sock.close()
            raise
        # qh3 takes no certificate that signs itself; that it is the right one is as good.
        if self.quic.tls is None or not self.quic.tls.session_resumed:
            found = self.quic.get_peercert()
            assert found is not None and found.public_bytes() == ssl.PEM_cert_to_DER_cert(Path(certfile).read_text())

    def wait_until(self, true: Callable[[], object], patience: float = PATIENCE) -> None:
        """Send, receive and keep the time until something has come true. Raises `TimeoutError`."""
        end = time.monotonic() + patience
        self.flush()
        while not true():
            now = time.monotonic()
            if now >= end:
                raise TimeoutError("the server did not do what was waited for")
            timer = self.quic.get_timer()
            # What is waited for may come true without a packet.
            wait = max(min(end, now + 0.05, timer if timer is not None else end) - now, 0.0001)
            self.sock.settimeout(wait)
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                timer = self.quic.get_timer()
                if timer is not None and timer <= time.monotonic():
                    self.quic.handle_timer(time.monotonic())
            except ConnectionRefusedError:
                if not self.connected:
                    raise
            else:
                self.quic.receive_datagram(data, self.server_address, time.monotonic())
            self.look()
            self.flush()

    def look(self) -> None:
        """Take the events that there are."""
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, HandshakeCompleted):
                self.connected = True
            elif isinstance(event, ConnectionTerminated):
                self.terminated = event
            for found in self.h3.handle_event(event):
                if isinstance(found, GoawayReceived):
                    self.goaway = found.stream_id
                elif (stream_id := getattr(found, "stream_id", None)) in self.requests:
                    self.requests[stream_id].events.append(found)
        if self.quic._close_event is not None and self.terminated is None:
            self.terminated = self.quic._close_event

    def flush(self) -> None:
        """Send what there is to send."""
        try:
            datagrams = self.quic.datagrams_to_send(time.monotonic())
        except QuicConnectionError:
            # Between the parts of a handshake qh3 may want to send early data again with keys that it has only soon.
            return
        for data, _ in datagrams:
            try:
                self.sock.send(data)
            except ConnectionRefusedError:
                if not self.connected:
                    raise

    def open(
        self, method: str, path: str, headers: Headers = (), *, body: bool = False, pseudo: Headers = ()
    ) -> H3Request:
        fields = [(name.lower(), value) for name, value in headers]
        authority = next((value for name, value in fields if name == b"host"), b"example.org")
        fields = [
            (b":method", method.encode()),
            (b":scheme", b"https"),
            (b":authority", authority),
            (b":path", path.encode()),
            *pseudo,
            *(field for field in fields if field[0] != b"host"),
        ]
        return self.open_raw(fields, not body)

    def open_raw(self, fields: Headers, end: bool) -> H3Request:
        """A request whose fields are exactly these."""
        stream_id = self.quic.get_next_available_stream_id()
        request = self.requests[stream_id] = H3Request(self, stream_id)
        try:
            self.h3.send_headers(stream_id, list(fields), end)
        except QpackEncoderStreamError:
            # qh3 encodes text only, and HTTP has other bytes too.
            section = literal_section(list(fields))
            self.h3._get_or_create_stream(stream_id).headers_send_state = HeadersState.AFTER_HEADERS
            self.quic.send_stream_data(stream_id, encode_frame(FrameType.HEADERS, section), end)
        self.flush()
        return request

    def later(self, stream_id: int, path: str, *, send: bool = True) -> H3Request:
        """A request on a stream of the caller's choice, in a packet of its own."""
        request = self.requests[stream_id] = H3Request(self, stream_id)
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a"), (b":path", path.encode())]
        self.quic.send_stream_data(stream_id, encode_frame(FrameType.HEADERS, literal_section(fields)), True)
        if send:
            self.flush()
        return request

    def raw(self, data: bytes, end: bool = False) -> H3Request:
        """A request stream that carries these bytes."""
        stream_id = self.quic.get_next_available_stream_id()
        request = self.requests[stream_id] = H3Request(self, stream_id)
        request.send_raw(data, end)
        return request

    def raw_unidirectional(self, data: bytes, end: bool = False) -> int:
        """A unidirectional stream that carries these bytes."""
        stream_id = self.quic.get_next_available_stream_id(is_unidirectional=True)
        self.quic.send_stream_data(stream_id, data, end)
        self.flush()
        return stream_id

    def close_code(self) -> int:
        """Wait until the server closes the connection: with what error."""
        self.read_eof()
        assert self.terminated is not None
        return int(self.terminated.error_code)

    def move(self) -> None:
        """Go on from another port, as behind a NAT that has forgotten us."""
        self.sock.close()
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.connect(self.server_address)
        self.address = self.sock.getsockname()

    def request(self, method: str, path: str, headers: Headers = (), body: bytes = b"") -> Response:
        fields = list(headers)
        if body and not any(name.lower() == b"content-length" for name, _ in fields):
            fields.append((b"content-length", b"%d" % len(body)))
        request = self.open(method, path, fields, body=bool(body))
        if body:
            request.send_body(body)
            request.end()
        return request.response()

    def read_eof(self) -> bool:
        """Wait until the server closes the connection."""
        self.wait_until(lambda: self.terminated is not None)
        return True

    def close(self) -> None:
        if self.sock.fileno() != -1:
            self._send_what_is_paced()
            self.quic.close(0x100)
            self.flush()
            self.sock.close()

    def _send_what_is_paced(self) -> None:
        """What the pacer holds back for a moment leaves ahead of the end of the connection, which would overtake it."""

        def has_left() -> bool:
            due = self.quic.get_timer()
            held_by_the_peer = due is None or due > time.monotonic() + 0.05
            return held_by_the_peer or not self.quic.get_send_buffer_size() or self.terminated is not None

        with suppress(TimeoutError):
            self.wait_until(has_left, PACED_MAX)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class H3Request:
    """One request on an `H3Client`."""

    def __init__(self, client: H3Client, stream_id: int) -> None:
        self._client = client
        self.id = stream_id
        self.events: deque[Any] = deque()
        self.informational: list[Head] = []
        self.reset_code: int | None = None
        self._head: Head | None = None
        self._trailers = Fields()
        self._ended = False

    def send_body(self, piece: bytes) -> None:
        client = self._client
        for at in range(0, len(piece), WINDOW):
            if not client.quic._stream_can_send(self.id):
                return
            client.h3.send_data(self.id, piece[at : at + WINDOW], False)
            try:
                client.wait_until(
                    lambda: client.quic.get_send_buffer_size(self.id) < WINDOW or client.terminated is not None
                )
            except TimeoutError:
                return

    def send_raw(self, data: bytes, end: bool = False) -> None:
        """Bytes of the stream as they are."""
        self._client.quic.send_stream_data(self.id, data, end)
        self._client.flush()

    def end(self, trailers: Headers = ()) -> None:
        client = self._client
        if client.quic._stream_can_send(self.id):
            if trailers:
                client.h3.send_headers(self.id, list(trailers), True)
            else:
                client.h3.send_data(self.id, b"", True)
        client.flush()

    def abort(self) -> None:
        # RFC 9114 4.1.1: a client cancels by giving up both directions.
        client = self._client
        if client.quic._stream_can_send(self.id):
            client.quic.reset_stream(self.id, 0x10C)
        try:
            client.quic.stop_stream(self.id, 0x10C)
        except ValueError:
            # The server has ended its half. If that was an answer, only the end of the connection tells it now.
            if self._ended:
                client.close()
                return
        client.flush()

    def reset(self) -> int:
        """Wait until the server gives up the stream: with what error."""
        try:
            while self.read_piece():
                pass
        except Broken:
            pass
        assert self.reset_code is not None, "the stream was not reset"
        return self.reset_code

    def _next(self) -> Any:
        client = self._client
        client.wait_until(lambda: self.events or client.terminated is not None)
        if not self.events:
            raise Broken(f"the connection ended: {client.terminated}")
        event = self.events.popleft()
        if isinstance(event, StreamReset):
            self.reset_code = event.error_code
            raise Broken(f"the stream was reset: {event.error_code:#x}")
        if isinstance(event, InformationalHeadersReceived):
            self.informational.append(_head(event.headers))
        elif isinstance(event, HeadersReceived):
            if self._head is None:
                self._head = _head(event.headers)
            else:
                self._trailers = Fields(event.headers)
        if getattr(event, "stream_ended", False):
            self._ended = True
        return event

    def read_informational(self) -> Head:
        event = self._next()
        assert isinstance(event, InformationalHeadersReceived), f"{event} instead of an interim answer"
        return self.informational[-1]

    def read_head(self) -> Head:
        while self._head is None:
            self._next()
        return self._head

    def read_piece(self) -> bytes:
        self.read_head()
        while not self._ended:
            event = self._next()
            if isinstance(event, DataReceived) and event.data:
                return event.data
        return b""

    def response(self) -> Response:
        body = bytearray()
        try:
            while piece := self.read_piece():
                body += piece
        except Broken:
            pass
        head = self._head or Head(0, Fields())
        return Response(head.status, head.headers, bytes(body), self._trailers, self.informational, self._ended)


def _head(headers: Any) -> Head:
    fields = Fields(headers)
    return Head(int(fields[b":status"]), Fields(field for field in fields if field[0] != b":status"))


def literal_section(fields: Headers) -> bytes:
    """A field section of literals only, which needs no table (RFC 9204 4.5.6)."""
    parts = [b"\0\0"]
    for name, value in fields:
        parts += (_integer(0x20, 3, len(name)), name, _integer(0x00, 7, len(value)), value)
    return b"".join(parts)


def _integer(pattern: int, bits: int, value: int) -> bytes:
    """RFC 7541 5.1"""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes((pattern | value,))
    encoded = bytearray((pattern | limit,))
    value -= limit
    while value >= 128:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
