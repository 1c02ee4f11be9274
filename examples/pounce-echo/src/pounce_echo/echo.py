"""Echo: an upgrade that sends back what it gets, and says goodbye when the worker ends."""

import time

from pounce.plugin import Headers, RequestHead, Service, Stream


class Echo:
    """One of them: an `Exchange`, and with the attributes of `Completed` one that observers know."""

    queued = 0.0
    close_code = None

    def __init__(self, service: Service, head: RequestHead, stream: Stream) -> None:
        stream.exchange = self
        self.service = service
        self.head = head
        self.stream = stream
        self.started = time.monotonic()
        self.status = 101
        self.bytes_sent = 0
        self.broken = False
        self._waiting = 0
        self._over = False
        stream.tunnel([])
        service.upgraded(self)
        if service.draining:
            service.loop.call_soon(self._say_goodbye)
        else:
            service.on_drain.add(self._say_goodbye)

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        self._send(data)
        self._waiting += len(data)
        if self.stream.writable:
            self.resume_writing()

    def resume_writing(self) -> None:
        # What was taken may come again; until then the wire does not read the socket.
        count, self._waiting = self._waiting, 0
        if count and not self._over:
            self.stream.consumed(count)

    def eof_received(self, trailers: Headers | None = None) -> None:
        self._finish(b"")

    def half_closed(self) -> None: ...

    def stream_lost(self, exc: Exception | None) -> None:
        if not self._over:
            self.broken = True
            self._complete()

    def _say_goodbye(self) -> None:
        self._finish(b"goodbye")

    def _finish(self, last: bytes) -> None:
        if not self._over:
            self._send(last, more=False)
            self._complete()

    def _send(self, data: bytes, more: bool = True) -> None:
        self.bytes_sent += len(data)
        self.stream.write(data, more)

    def _complete(self) -> None:
        self._over = True
        self.service.on_drain.discard(self._say_goodbye)
        self.service.completed(self)
