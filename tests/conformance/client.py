"""What a test sees of a server, whatever wire is between them.

A `Client` is one connection, a `Request` one request on it. `Client.request()` does everything at once; `open()` leaves
each step to the test. Every read has a deadline, so that a test fails instead of hanging.
"""

import socket
import struct
from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol, Self

import h11

__all__ = ["Broken", "Client", "H1Client", "H1Request", "Head", "Request", "Response"]

PATIENCE = 5.0
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
