"""Shout: a wire that takes over a connection of HTTP/1.1, and repeats everything in capital letters."""

import asyncio

from pounce.plugin import Connection, RequestHead, Service


class Shout(Connection):
    """A connection, from the 101 on. It answers the request that asked for it with its target."""

    def __init__(self, service: Service, head: RequestHead) -> None:
        super().__init__(service, "shout")
        self.head = head

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.send(self.head.target + b"\n")

    def data_received(self, data: bytes) -> None:
        self.send(data.upper())

    def pause_writing(self) -> None:
        super().pause_writing()
        self.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.resume_reading()

    def eof_received(self) -> bool:
        self.close()
        return True
