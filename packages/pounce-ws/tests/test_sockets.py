"""WebSockets over real sockets: what a kernel, TLS and a proxy in front do to them."""

import asyncio
import gc
import socket
import ssl
from typing import Any

import pytest
from benchmarks.load.certificate import certificate_files
from peer import TEXT, App, closing, in_loop, masked

from pounce.testing import serve
from pounce_ws.sockets import WebSockets

PATIENCE = 60.0
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00"
V2_ADDRESSES = bytes((192, 0, 2, 7, 192, 0, 2, 1)) + b"\xc3\x50\x01\xbb"
READERS, STALLED, ROUNDS = 4, 200, 200
MESSAGE = b"x" * 65536


def port_of(info: Any) -> int:
    return int(info.urls[0].rpartition(":")[2])


async def connected(port: int, *, receive_buffer: int = 0, preface: bytes = b"", **more: Any) -> Client:
    """A WebSocket that is open; nothing is read that is not asked for."""
    sock = socket.socket()
    sock.setblocking(False)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    client = Client(sock)
    await loop.sock_sendall(sock, preface + HANDSHAKE)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await client.exactly(1)
    assert head.startswith(b"HTTP/1.1 101 "), head
    return client


class Client:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._data = bytearray()

    async def exactly(self, size: int) -> bytes:
        while len(self._data) < size:
            more = await asyncio.get_running_loop().sock_recv(self.sock, max(65536, size) if size > 1 else 1)
            assert more, "the connection ended"
            self._data += more
        data = bytes(self._data[:size])
        del self._data[:size]
        return data

    def read_what_is_there(self) -> None:
        """Without giving the loop a turn."""
        while True:
            try:
                more = self.sock.recv(2**20)
            except BlockingIOError:
                return
            assert more, "the connection ended"
            self._data += more

    async def frame(self) -> tuple[int, bytes]:
        first, size = await self.exactly(2)
        assert size < 0x80, "not the head of a frame"
        if size >= 126:
            size = int.from_bytes(await self.exactly(2 if size == 126 else 8))
        return first, await self.exactly(size)


@in_loop
async def test_the_answer_to_a_close_does_not_overtake_messages_that_have_not_left() -> None:
    app = App(eager=False)
    async with asyncio.timeout(PATIENCE), serve(app, shutdown_timeout=0.1) as info:
        client = await connected(port_of(info), receive_buffer=4096)
        sent = 0

        async def send() -> None:
            nonlocal sent
            while True:
                await app.send(MESSAGE)
                sent += 1

        sending = asyncio.ensure_future(send())
        while True:
            # It waits as soon as the kernel takes no more.
            before = sent
            await asyncio.sleep(0.05)
            if sent == before:
                break
        sending.cancel()
        await asyncio.wait([sending])
        # The kernel has room again, and the server does not know yet.
        await asyncio.get_running_loop().sock_sendall(client.sock, closing(3000))
        client.read_what_is_there()
        opcodes = []
        while not opcodes or opcodes[-1] != 0x88:
            opcode, payload = await client.frame()
            opcodes.append(opcode)
            assert opcode == 0x88 or payload == MESSAGE
        assert opcodes == [0x82] * sent + [0x88]
        client.sock.close()


@in_loop
async def test_scheme_is_wss_over_tls(tmp_path: Any) -> None:
    certificate, key = certificate_files(tmp_path)
    app = App()
    async with asyncio.timeout(PATIENCE), serve(app, ssl_certfile=str(certificate), ssl_keyfile=str(key)) as info:
        context = ssl._create_unverified_context()
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(info), ssl=context)
        writer.write(HANDSHAKE + masked(TEXT, b"hello"))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(closing(1000))
        assert await reader.readexactly(4) == b"\x88\x02\x03\xe8"
        writer.close()
        await writer.wait_closed()
        assert app.scope["scheme"] == "wss"
        assert "tls" in app.scope["extensions"]
        assert app.messages == ["hello"]


@pytest.mark.parametrize(
    ("header", "scheme"),
    [
        (b"PROXY TCP4 192.0.2.7 192.0.2.1 50000 443\r\n", "ws"),
        (V2 + b"\x0c" + V2_ADDRESSES, "ws"),
        (V2 + b"\x14" + V2_ADDRESSES + b"\x20\x00\x05\x01\x00\x00\x00\x00", "wss"),
    ],
    ids=["v1", "v2", "v2, client speaks TLS"],
)
@in_loop
async def test_client_behind_a_proxy_that_says_who_it_is(header: bytes, scheme: str) -> None:
    app = App()
    async with asyncio.timeout(PATIENCE), serve(app, proxy_protocol=True) as info:
        client = await connected(port_of(info), preface=header)
        assert app.scope["client"] == ("192.0.2.7", 50000)
        assert app.scope["server"] == ("192.0.2.1", 443)
        assert app.scope["scheme"] == scheme
        client.sock.close()


class Room:
    """Sends every message to all its members; each has a task that waits for it alone."""

    def __init__(self) -> None:
        self.members: list[asyncio.Queue[bytes]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.members.append(queue)
        sending = asyncio.ensure_future(self._send(queue, send))
        try:
            while (await receive())["type"] != "websocket.disconnect":
                pass
        finally:
            sending.cancel()

    async def _send(self, queue: asyncio.Queue[bytes], send: Any) -> None:
        while True:
            await send({"type": "websocket.send", "bytes": await queue.get()})


@in_loop
async def test_clients_that_never_read_hold_a_bounded_amount_and_the_others_get_everything() -> None:
    room = Room()
    async with asyncio.timeout(60), serve(room, shutdown_timeout=0.1) as info:
        port = port_of(info)
        stalled = [await connected(port, receive_buffer=4096) for _ in range(STALLED)]
        readers = [await connected(port) for _ in range(READERS)]

        async def read(client: Client) -> int:
            for _ in range(ROUNDS):
                assert await client.frame() == (0x82, MESSAGE)
            return ROUNDS

        reading = [asyncio.ensure_future(read(client)) for client in readers]
        for _ in range(ROUNDS):
            for member in room.members:
                member.put_nowait(MESSAGE)
            await asyncio.sleep(0)
        assert await asyncio.gather(*reading) == [ROUNDS] * READERS
        all_sockets = [found for found in gc.get_objects() if type(found) is WebSockets]
        # Earlier tests may have left some.
        (sockets,) = (found for found in all_sockets if found._service.loop is asyncio.get_running_loop())
        held = sorted(each.stream.transport.get_write_buffer_size() + each._output.corked for each in sockets._open)
        assert len(held) == STALLED + READERS
        # The mark at which a transport pauses, and the message that exceeds it.
        assert held[-1] <= 65536 + len(MESSAGE) + 16
        assert held[READERS] > 0, "there was nothing to wait for"
        for client in stalled + readers:
            client.sock.close()
