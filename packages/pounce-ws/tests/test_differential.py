"""Against wsproto, which nobody here wrote: as a client of the server, and as another reader of the same bytes."""

import itertools
import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peer import DEFLATE, Echo, Peer, in_loop
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import FrameProtocol, Opcode, ParseFailed
from wsproto.utilities import RemoteProtocolError

from pounce_ws.frames import CLOSE, Control, MessageReader, parse_close
from pounce_ws.violation import Violation

EXAMPLES = int(os.environ.get("POUNCE_FUZZ_EXAMPLES", "60"))
quick = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

texts = st.text(max_size=300).map(lambda text: text.encode("utf-8", "ignore").decode())
payloads = st.one_of(texts, st.binary(max_size=300), st.integers(0, 70_000).map(lambda size: b"ab" * (size // 2)))
cuts = st.lists(st.integers(1, 400), min_size=1, max_size=8)


class Conversation:
    """wsproto talks to the server."""

    async def open(self, compress: bool, offer: bytes) -> None:
        self.peer = Peer(Echo(), websocket_compression_min_size=0)
        answer = await self.peer.open(*([(DEFLATE[0], offer)] if compress else []))
        extension = PerMessageDeflate()
        if compress:
            extension.finalize(answer[b"sec-websocket-extensions"].decode())
        self.ws = Connection(ConnectionType.CLIENT, [extension] if compress else [])
        self.got: list[Any] = []
        self.parts: list[Any] = []

    def feed(self, data: bytes, cut: list[int]) -> None:
        sizes = itertools.cycle(cut)
        while data:
            size = next(sizes) * max(1, len(data) // 4000)
            self.peer.send(data[:size])
            data = data[size:]

    async def hear(self, until: int) -> None:
        taken = self.peer._taken

        def all_there() -> bool:
            nonlocal taken
            data = self.peer.connection.received
            self.ws.receive_data(data[taken:])
            taken = self.peer._taken = len(data)
            for event in self.ws.events():
                if isinstance(event, (TextMessage, BytesMessage)):
                    self.parts.append(event.data)
                    if event.message_finished:
                        self.got.append(type(event.data)().join(self.parts))
                        self.parts = []
                elif isinstance(event, (Pong, CloseConnection)):
                    self.got.append(event)
            return len(self.got) >= until

        await self.peer.connection.wait_until(all_there)


@quick
@given(
    messages=st.lists(st.tuples(payloads, st.lists(st.integers(0, 300), max_size=3), st.booleans()), max_size=6),
    cut=cuts,
    compress=st.booleans(),
    offer=st.sampled_from(
        [
            b"permessage-deflate",
            b"permessage-deflate; client_max_window_bits",
            b"permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
            b"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
        ]
    ),
    code=st.sampled_from([1000, 1001, 1008, 3000, 4999]),
    reason=st.text(max_size=20),
)
def test_every_conversation_comes_back_as_it_was(
    messages: list[tuple[Any, list[int], bool]], cut: list[int], compress: bool, offer: bytes, code: int, reason: str
) -> None:
    @in_loop
    async def talk() -> None:
        conversation = Conversation()
        await conversation.open(compress, offer)
        ws, kind = conversation.ws, {str: TextMessage, bytes: BytesMessage}
        for payload, at, ping in messages:
            data = b""
            pieces = [payload[a:b] for a, b in itertools.pairwise(sorted({0, *at, len(payload)}))] or [payload]
            pieces = [piece for piece in pieces if piece] or [payload]
            for number, piece in enumerate(pieces):
                last = number == len(pieces) - 1
                data += ws.send(kind[type(payload)](data=piece, message_finished=last))
                if ping and number == 0:
                    data += ws.send(Ping(payload=b"p"))
            conversation.feed(data, cut)
            await conversation.hear(len(conversation.got) + 1 + ping)
            got = conversation.got[-1 - ping :]
            assert payload in got
            assert len([event for event in got if isinstance(event, Pong)]) == ping
        conversation.feed(ws.send(CloseConnection(code, reason)), cut)
        await conversation.hear(len(conversation.got) + 1)
        assert conversation.got[-1].code == code
        assert conversation.peer.ended

    talk()


opcodes = st.sampled_from([0, 1, 1, 1, 2, 2, 8, 9, 10, 3, 11])
frames = st.tuples(
    opcodes,
    st.one_of(st.binary(max_size=140), texts.map(str.encode), st.just(b"\x03\xe8bye")),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([0, 0, 0, 0, 0, 0, 4, 2, 1]),
    st.booleans(),
)


def read_with_pounce(pieces: list[bytes]) -> list[Any]:
    reader = MessageReader(0)
    found: list[Any] = []
    try:
        for piece in pieces:
            reader.receive_data(piece)
            while (event := reader.next_event()) is not None:
                if isinstance(event, Control):
                    if event.opcode == CLOSE:
                        return [*found, (CLOSE, *parse_close(event.payload))]
                    found.append((event.opcode, event.payload))
                else:
                    found.append(event)
    except Violation as violation:
        found.append(f"error {violation.code}")
    return found


def read_with_wsproto(pieces: list[bytes]) -> list[Any]:
    protocol = FrameProtocol(client=False, extensions=[])
    found: list[Any] = []
    parts: list[Any] = []
    try:
        for piece in pieces:
            protocol.receive_bytes(piece)
            for frame in protocol.received_frames():
                if frame.opcode is Opcode.CLOSE:
                    found.append((CLOSE, int(frame.payload[0]), frame.payload[1] or ""))
                    return found
                if frame.opcode in (Opcode.PING, Opcode.PONG):
                    found.append((int(frame.opcode), bytes(frame.payload)))
                    continue
                parts.append(frame.payload if isinstance(frame.payload, str) else bytes(frame.payload))
                if frame.message_finished:
                    found.append(type(parts[0])().join(parts))
                    parts = []
    except ParseFailed as error:
        found.append(f"error {int(error.code)}")
    except RemoteProtocolError:
        found.append("error 1002")
    return found


@settings(quick, max_examples=EXAMPLES * 5)
@given(frames=st.lists(frames, min_size=1, max_size=8), cut=cuts)
def test_both_readers_find_the_same(frames: list[tuple[int, bytes, bool, int, bool]], cut: list[int]) -> None:
    from peer import masked

    data = b"".join(
        masked(opcode, payload, fin=fin, rsv=rsv) if not extra else masked(opcode, payload, fin=True)
        for opcode, payload, fin, rsv, extra in frames
    )
    pieces, sizes, at = [], itertools.cycle(cut), 0
    while at < len(data):
        size = next(sizes)
        pieces.append(data[at : at + size])
        at += size
    assert read_with_pounce(pieces) == read_with_wsproto(pieces)
