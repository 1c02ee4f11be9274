"""The checking client over HTTP/3: it honours GOAWAY, and sends again what a server says it has not looked at."""

import asyncio
import json
import ssl
import time
from collections.abc import Callable
from math import inf
from typing import Any, cast

from qh3.h3.connection import H3Connection
from qh3.h3.events import DataReceived, GoawayReceived, HeadersReceived, StreamReset
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection
from qh3.quic.events import ConnectionTerminated, HandshakeCompleted
from tests.workers.checking_client import CheckingClient, Fault

__all__ = ["Client", "H3CheckingClient"]

STREAMS = 4
"""Requests at a time on a connection that is used again."""
LATE = 0.4
"""Seconds by which every other client hears of GOAWAY too late: long enough for the final one to be there."""
H3_REQUEST_REJECTED = 0x10B


class NotProcessed(Exception):
    """RFC 9114 5.2: the request may be sent again, on another connection."""


class Request:
    """One request on its way."""

    def __init__(self) -> None:
        self.done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.status = 0
        self.body = bytearray()
        self.on_data: Callable[[], None] = lambda: None

    def fail(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Client(asyncio.DatagramProtocol):
    """One connection."""

    def __init__(self, address: tuple[str, int], *, late: float = 0.0) -> None:
        """Requests are still sent for `late` seconds after GOAWAY, as if it were on its way for so long."""
        self._late = late
        self._loop = asyncio.get_running_loop()
        self._address = address
        self._transport = cast(asyncio.DatagramTransport, None)
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=["h3"], server_name="localhost", verify_mode=ssl.CERT_NONE, idle_timeout=20.0
        )
        self.quic = QuicConnection(configuration=configuration)
        self._h3: H3Connection | None = None
        self._requests: dict[int, Request] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._connected = self._loop.create_future()
        self.goaway: int | None = None
        self._usable_until = inf
        self.end: str | None = None
        """How the connection ended."""

    @classmethod
    async def connect(cls, address: tuple[str, int], *, late: float = 0.0) -> Client:
        """Raises `OSError` when there is no answer within 10 s."""
        client = cls(address, late=late)
        await client.move()
        client.quic.connect(address, time.monotonic())
        client._h3 = H3Connection(client.quic)
        client.transmit()
        try:
            async with asyncio.timeout(10):
                await client._connected
        except TimeoutError, Fault:
            client.close()
            raise OSError(f"no connection: {client.end or 'no answer'}") from None
        return client

    async def move(self) -> None:
        """Go on from another port, as behind a NAT that has forgotten us."""
        before = self._transport
        self._transport, _ = await self._loop.create_datagram_endpoint(lambda: self, remote_addr=self._address)
        if before is not None:
            before.close()

    @property
    def is_usable(self) -> bool:
        """Requests may be sent."""
        return self._loop.time() < self._usable_until and self.end is None

    def send(self, path: str) -> Request:
        assert self._h3 is not None
        stream_id = self.quic.get_next_available_stream_id()
        request = self._requests[stream_id] = Request()
        fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"test"), (b":path", path.encode())]
        self._h3.send_headers(stream_id, fields, True)
        self.transmit()
        return request

    def transmit(self) -> None:
        for data, _ in self.quic.datagrams_to_send(time.monotonic()):
            self._transport.sendto(data)
        if self._timer is not None:
            self._timer.cancel()
        at = self.quic.get_timer()
        self._timer = None
        if at is not None and self.end is None:
            self._timer = self._loop.call_later(max(0.0, at - time.monotonic()), self._handle_timer)

    def _handle_timer(self) -> None:
        self.quic.handle_timer(time.monotonic())
        self._look()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.quic.receive_datagram(data, self._address, time.monotonic())
        self._look()

    def error_received(self, exc: Exception) -> None:
        """Refused: QUIC goes on trying."""

    def _look(self) -> None:
        while (event := self.quic.next_event()) is not None:
            if isinstance(event, HandshakeCompleted) and not self._connected.done():
                self._connected.set_result(None)
            assert self._h3 is not None
            for found in self._h3.handle_event(event):
                self._handle(found)
            if isinstance(event, ConnectionTerminated):
                self._ended(f"{event.error_code:#x} {event.reason_phrase}")
        if self.end is None and self.quic._close_event is not None:
            self._ended(f"{self.quic._close_event.error_code:#x} {self.quic._close_event.reason_phrase}")
        self.transmit()

    def _handle(self, event: Any) -> None:
        if isinstance(event, GoawayReceived):
            self.goaway = event.stream_id
            self._usable_until = min(self._usable_until, self._loop.time() + self._late)
            for stream_id in [each for each in self._requests if each >= event.stream_id]:
                self._requests.pop(stream_id).fail(NotProcessed())
            return
        request = self._requests.get(getattr(event, "stream_id", -1))
        if request is None:
            return
        if isinstance(event, StreamReset):
            del self._requests[event.stream_id]
            rejected = event.error_code == H3_REQUEST_REJECTED
            request.fail(NotProcessed() if rejected else Fault(f"reset {event.error_code:#x}"))
            return
        if isinstance(event, HeadersReceived):
            request.status = request.status or int(dict(event.headers)[b":status"])
        elif isinstance(event, DataReceived):
            request.body += event.data
            request.on_data()
        if event.stream_ended:
            del self._requests[event.stream_id]
            if not request.done.done():
                request.done.set_result(bytes(request.body))

    def _ended(self, how: str) -> None:
        if self.end is None:
            self.end = how
            if not self._connected.done():
                self._connected.set_exception(Fault(how))
            for stream_id, request in self._requests.items():
                fault = Fault(f"the connection ended: {how}, GOAWAY {self.goaway}")
                request.fail(NotProcessed() if self.goaway is not None and stream_id >= self.goaway else fault)
            self._requests.clear()

    def close(self) -> None:
        self.quic.close(0x100)
        self.transmit()
        self._ended("closed here")
        if self._timer is not None:
            self._timer.cancel()
        self._transport.close()


class H3CheckingClient(CheckingClient):
    """As its base: each kept connection has several requests at a time, and slow ones too."""

    retried = 0
    """Requests that were not processed, as the server said."""
    _late = 0.0

    async def _use_connections(self, path: str, *, again: bool) -> None:
        while not self._ending:
            try:
                self._late = LATE - self._late
                client = await Client.connect(self._address, late=self._late)
            except OSError as exc:
                self.faults[f"connect: {exc}"] += 1
                await asyncio.sleep(0.05)
                continue
            try:
                async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                    for _ in range(STREAMS if again else 1):
                        group.create_task(self._use_stream(client, path, again=again))
            except* TimeoutError:
                self.faults[f"{path} no answer"] += 1
            finally:
                self.reconnected += client.goaway is not None
                client.close()
            if not again:
                await asyncio.sleep(self._pause)

    async def _use_stream(self, client: Client, path: str, *, again: bool) -> None:
        while client.is_usable and not self._ending:
            token = str(next(self._tokens))
            query = f"{self._slow_time}&{token}" if path == "/slow" else token
            request = client.send(f"{path}?{query}")
            try:
                answer = json.loads(await request.done)
                if request.status != 200 or answer["query"] != query:
                    raise Fault(f"asked {query}, answered {request.status} {answer['query']}")
            except NotProcessed:
                self.retried += 1
                return
            except (Fault, ValueError) as exc:
                self.faults[f"{path}: {type(exc).__name__} {exc}"[:90]] += 1
                return
            self._count(answer)
            if not again:
                return
            await asyncio.sleep(self._pause)
        if not self._ending and client.goaway is None:
            self.faults[f"an idle connection ended: {client.end}"[:90]] += 1
