"""What a test sees of a server, whatever wire is between them.

A `Client` is one connection, a `Request` one request on it. `Client.request()` does everything at once; `open()` leaves
each step to the test. Every read has a deadline, so that a test fails instead of hanging.
"""

import socket
import ssl
import struct
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, Self

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h11

__all__ = ["Broken", "Client", "H1Client", "H1Request", "H2Client", "H2Request", "Head", "Request", "Response"]

PATIENCE = 60.0
"""Seconds after which a read that should have succeeded fails the test."""

type Headers = Iterable[tuple[bytes, bytes]]


class Broken(Exception):
    """The connection or stream ended before the answer did."""


class Fields(list[tuple[bytes, bytes]]):
    """Header fields in the order received, names in lower case."""

    def all(self, name: bytes) -> list[bytes]:
        """Every value of `name`."""
        return [value for found, value in self if found == name]

    def __getitem__(self, name: Any) -> Any:
        """The only value of `name`; raises `KeyError` when it is missing or repeated."""
        if not isinstance(name, bytes):
            return super().__getitem__(name)
        values = self.all(name)
        if len(values) != 1:
            raise KeyError(f"{name!r} is there {len(values)} times: {values}")
        return values[0]

    def __contains__(self, name: object) -> bool:
        return any(found == name for found, _ in self)


class Head(NamedTuple):
    """Status and header fields of an answer, interim or final; `reason` is empty where the wire has none."""

    status: int
    headers: Fields
    reason: bytes = b""


class Response(NamedTuple):
    """An answer as far as it arrived. `status` is 0 when no final head came; `complete` says that its end was marked
    as the protocol demands."""

    status: int
    headers: Fields
    body: bytes
    trailers: Fields
    informational: list[Head]
    complete: bool
    reason: bytes = b""


class Request(Protocol):
    """One request, step by step."""

    informational: list[Head]
    """1xx answers that were seen so far."""

    def send_body(self, piece: bytes) -> None:
        """Send a piece of the body; only for a request that was opened with one."""

    def end(self, trailers: Headers = ()) -> None:
        """End the body."""

    def abort(self) -> None:
        """Give the request up so that the server notices at once."""

    def read_informational(self) -> Head:
        """Wait for the next 1xx answer."""

    def read_head(self) -> Head:
        """Wait for the final head. Raises `Broken`."""

    def read_piece(self) -> bytes:
        """The next piece of the body, empty at its end. Raises `Broken`."""

    def response(self) -> Response:
        """Everything that is still to come, as one answer; never raises `Broken`."""


class Client(Protocol):
    """One connection to the server under test."""

    address: Any
    """The client's own address, None where it has none."""
    server_address: Any

    def open(self, method: str, path: str, headers: Headers = (), *, body: bool = False) -> Request:
        """Send a head; with `body` the caller sends a body and its end."""

    def request(self, method: str, path: str, headers: Headers = (), body: bytes = b"") -> Response:
        """A whole request and its whole answer."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None: ...


class H1Client:
    """HTTP/1.1 with h11, over any connected socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock
        self.address = sock.getsockname() or None
        self.server_address = sock.getpeername()
        self.h11 = h11.Connection(h11.CLIENT)

    def open(self, method: str, path: str, headers: Headers = (), *, body: bool = False) -> H1Request:
        if self.h11.our_state is not h11.IDLE:
            self.h11.start_next_cycle()
        fields = [(name.lower(), value) for name, value in headers]
        names = {name for name, _ in fields}
        if b"host" not in names:
            fields.insert(0, (b"host", b"example.org"))
        if body and b"content-length" not in names:
            fields.append((b"transfer-encoding", b"chunked"))
        self.send(h11.Request(method=method, target=path, headers=fields))
        request = H1Request(self)
        if not body:
            request.end()
        return request

    def request(self, method: str, path: str, headers: Headers = (), body: bytes = b"") -> Response:
        fields = list(headers)
        if body and not any(name.lower() == b"content-length" for name, _ in fields):
            fields.append((b"content-length", b"%d" % len(body)))
        request = self.open(method, path, fields, body=bool(body))
        if body:
            request.send_body(body)
            request.end()
        return request.response()

    def send(self, event: Any) -> None:
        data = self.h11.send(event)
        if data:
            try:
                self.sock.sendall(data)
            except ConnectionError:
                # The server has answered and closed already: the answer can still be read.
                pass

    def next_event(self) -> Any:
        """The next event of the peer. Raises `Broken`."""
        while True:
            try:
                event = self.h11.next_event()
            except h11.RemoteProtocolError as exc:
                raise Broken(str(exc)) from exc
            if event is h11.NEED_DATA:
                try:
                    self.h11.receive_data(self.sock.recv(65536))
                except ConnectionError as exc:
                    raise Broken(str(exc)) from exc
            elif isinstance(event, h11.ConnectionClosed):
                raise Broken("the connection ended")
            else:
                return event

    def read_eof(self) -> bool:
        """Wait until the server closes the connection; False when it sends something first."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class H1Request:
    """One exchange of messages on an `H1Client`."""

    def __init__(self, client: H1Client) -> None:
        self._client = client
        self._head: Head | None = None
        self._trailers = Fields()
        self._ended = False
        self.informational: list[Head] = []

    def send_body(self, piece: bytes) -> None:
        self._client.send(h11.Data(data=piece))

    def end(self, trailers: Headers = ()) -> None:
        self._client.send(h11.EndOfMessage(headers=list(trailers)))

    def abort(self) -> None:
        if self._client.sock.family != socket.AF_UNIX:
            self._client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._client.close()

    def read_informational(self) -> Head:
        event = self._client.next_event()
        assert isinstance(event, h11.InformationalResponse), f"{event} instead of an interim answer"
        head = _head(event)
        self.informational.append(head)
        return head

    def read_head(self) -> Head:
        while self._head is None:
            event = self._client.next_event()
            if isinstance(event, h11.InformationalResponse):
                self.informational.append(_head(event))
            else:
                self._head = _head(event)
        return self._head

    def read_piece(self) -> bytes:
        self.read_head()
        if self._ended:
            return b""
        event = self._client.next_event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        self._trailers = Fields((bytes(name), bytes(value)) for name, value in event.headers)
        self._ended = True
        return b""

    def response(self) -> Response:
        body = b""
        try:
            while piece := self.read_piece():
                body += piece
        except Broken:
            pass
        head = self._head or Head(0, Fields())
        return Response(head.status, head.headers, body, self._trailers, self.informational, self._ended, head.reason)


def _head(event: Any) -> Head:
    fields = Fields((bytes(name), bytes(value)) for name, value in event.headers)
    return Head(event.status_code, fields, bytes(event.reason))


class H2Client:
    """HTTP/2 with the h2 library, over any connected socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock
        self.address = sock.getsockname() or None
        self.server_address = sock.getpeername()
        # What a test sends may break rules; what the server sends may not.
        config = h2.config.H2Configuration(
            client_side=True,
            header_encoding=None,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
            split_outbound_cookies=True,
        )
        self.h2 = h2.connection.H2Connection(config)
        self.scheme = b"https" if isinstance(sock, ssl.SSLSocket) else b"http"
        self.requests: dict[int, H2Request] = {}
        self.goaways: list[tuple[int, int]] = []
        """Last stream and error code of each GOAWAY of the server."""
        self._partial = b""
        self.h2.initiate_connection()
        self.flush()

    def open(self, method: str, path: str, headers: Headers = (), *, body: bool = False) -> H2Request:
        fields = [(name.lower(), value) for name, value in headers]
        authority = next((value for name, value in fields if name == b"host"), b"example.org")
        pseudo = [
            (b":method", method.encode()),
            (b":scheme", self.scheme),
            (b":authority", authority),
            (b":path", path.encode()),
        ]
        if method == "CONNECT":
            del pseudo[3], pseudo[1]
        # A test may say with these how the connection goes on; HTTP/2 has no such fields.
        dropped = (b"host", b"connection", b"transfer-encoding")
        return self.start(pseudo + [field for field in fields if field[0] not in dropped], body=body)

    def start(self, fields: Headers, *, body: bool = False) -> H2Request:
        """Open a stream with these fields, as they are."""
        id = self.h2.get_next_available_stream_id()
        request = self.requests[id] = H2Request(self, id)
        self.h2.send_headers(id, list(fields), end_stream=not body)
        self.flush()
        return request

    def request(self, method: str, path: str, headers: Headers = (), body: bytes = b"") -> Response:
        fields = list(headers)
        if body and not any(name.lower() == b"content-length" for name, _ in fields):
            fields.append((b"content-length", b"%d" % len(body)))
        request = self.open(method, path, fields, body=bool(body))
        if body:
            request.send_body(body)
            request.end()
        return request.response()

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data:
            try:
                self.sock.sendall(data)
            except ConnectionError:
                # The server has answered and closed already: the answer can still be read.
                pass

    def read(self) -> None:
        """Wait for bytes, and give every event to its request. Raises `Broken`."""
        try:
            data = self.sock.recv(65536)
        except ConnectionError as exc:
            raise Broken(str(exc)) from exc
        if not data:
            raise Broken("the connection ended")
        try:
            events = self.h2.receive_data(self._without_goaway(data))
        except h2.exceptions.ProtocolError as exc:
            raise AssertionError(f"the server broke the protocol: {exc!r}") from exc
        for event in events:
            request = self.requests.get(getattr(event, "stream_id", None) or 0)
            if request is not None:
                request.received(event)
        self.flush()

    def _without_goaway(self, data: bytes) -> bytes:
        """Take GOAWAY out of the bytes: the h2 library takes nothing after it, but streams go on (RFC 9113 6.8)."""
        self._partial += data
        kept = b""
        while len(self._partial) >= 9:
            size = 9 + int.from_bytes(self._partial[:3])
            if len(self._partial) < size:
                break
            frame, self._partial = self._partial[:size], self._partial[size:]
            if frame[3] == 0x7:
                self.goaways.append((int.from_bytes(frame[9:13]), int.from_bytes(frame[13:17])))
                assert self.goaways[-1][1] == 0, f"GOAWAY {frame!r}"
            else:
                kept += frame
        return kept

    def read_eof(self) -> bool:
        """Wait until the server closes the connection."""
        try:
            while True:
                self.read()
        except Broken:
            return True

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class H2Request:
    """One stream of an `H2Client`."""

    def __init__(self, client: H2Client, id: int) -> None:
        self._client = client
        self.id = id
        self._head: Head | None = None
        self._pieces: list[bytes] = []
        self._trailers = Fields()
        self._ended = False
        self._interim: list[Head] = []
        self.reset_with: int | None = None
        """The error code of the server's RST_STREAM."""
        self.informational: list[Head] = []

    def received(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.InformationalResponseReceived():
                head = _h2_head(event.headers)
                self._interim.append(head)
                self.informational.append(head)
            case h2.events.ResponseReceived():
                self._head = _h2_head(event.headers)
            case h2.events.DataReceived():
                self._client.h2.acknowledge_received_data(event.flow_controlled_length or 0, self.id)
                if event.data:
                    self._pieces.append(bytes(event.data))
            case h2.events.TrailersReceived():
                self._trailers = Fields((bytes(name), bytes(value)) for name, value in event.headers or ())
            case h2.events.StreamEnded():
                self._ended = True
            case h2.events.StreamReset():
                self.reset_with = int(event.error_code or 0)

    def send_body(self, piece: bytes) -> None:
        h2 = self._client.h2
        while piece and self.reset_with is None and not self._ended:
            count = min(len(piece), h2.local_flow_control_window(self.id), h2.max_outbound_frame_size)
            if not count:
                try:
                    self._client.read()
                except Broken:
                    return
                continue
            h2.send_data(self.id, piece[:count])
            piece = piece[count:]
            self._client.flush()

    def end(self, trailers: Headers = ()) -> None:
        if self.reset_with is not None:
            return
        fields = list(trailers)
        if fields:
            self._client.h2.send_headers(self.id, fields, end_stream=True)
        else:
            self._client.h2.end_stream(self.id)
        self._client.flush()

    def abort(self) -> None:
        try:
            self._client.h2.reset_stream(self.id, h2.errors.ErrorCodes.CANCEL)
        except h2.exceptions.StreamClosedError:
            # Both sides have ended it: only the end of the connection tells the server now.
            self._client.close()
        else:
            self._client.flush()

    def _read(self) -> None:
        if self.reset_with is not None:
            raise Broken(f"the stream was reset with {self.reset_with}")
        self._client.read()

    def read_informational(self) -> Head:
        while not self._interim:
            assert self._head is None, f"{self._head} instead of an interim answer"
            self._read()
        return self._interim.pop(0)

    def read_head(self) -> Head:
        while self._head is None:
            self._read()
        return self._head

    def read_piece(self) -> bytes:
        self.read_head()
        while not self._pieces and not self._ended:
            self._read()
        return self._pieces.pop(0) if self._pieces else b""

    def response(self) -> Response:
        body = b""
        try:
            while piece := self.read_piece():
                body += piece
        except Broken:
            pass
        head = self._head or Head(0, Fields())
        return Response(head.status, head.headers, body, self._trailers, self.informational, self._ended)


def _h2_head(headers: Any) -> Head:
    fields = Fields((bytes(name), bytes(value)) for name, value in headers)
    status = int(fields[b":status"])
    return Head(status, Fields(field for field in fields if field[0] != b":status"))
