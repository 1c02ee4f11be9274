"""What `check_wire` is worth: wrong variants of a small correct wire, each of which it has to find."""

import importlib.util
from math import inf
from pathlib import Path
from typing import Any

import pytest

from pounce.h1.plugin import plugin as h1
from pounce.plugin import BadRequest, Body, ClientGone, Connection, Headers, RequestHead, Wire
from pounce.testing import CheckFailed, check_wire

_spec = importlib.util.spec_from_file_location("parcel", Path(__file__).with_name("parcel.py"))
assert _spec is not None and _spec.loader is not None
parcel = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(parcel)
Parcel: Any = parcel.Parcel

REQUESTS = [b"GET /a 0\n", b"POST /b 3\nabc", b"POST /long 200000\n" + b"z" * 200_000]


def test_the_correct_wire_keeps_the_contract() -> None:
    check_wire(Wire(name="parcel", connect=Parcel), REQUESTS)


@pytest.mark.parametrize(
    "request_line",
    [
        b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n" + bytes(200_000),
    ],
    ids=["head", "long"],
)
def test_the_wire_of_the_core_keeps_the_contract_with(request_line: bytes) -> None:
    assert check_wire(h1.wires[0], [request_line]) > 50


# Deadlines


class NoDeadlineForAHead(Parcel):
    def await_head(self) -> None:
        self.state = parcel.IDLE
        self.deadline = inf


class NoDeadlineOnceAHeadHasBegun(Parcel):
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.state == parcel.IDLE:
            self.deadline = inf


class NewDeadlineForEachByteOfAHead(Parcel):
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.state == parcel.IDLE:
            self.await_head()


class NoDeadlineForABody(Parcel):
    def await_body(self) -> None:
        self.deadline = inf


class NoRateForABody(Parcel):
    def await_body(self) -> None:
        self.deadline = self.loop.time() + self.service.config.request_timeout


class DeadlineForTheApplication(Parcel):
    def rest_deadline(self) -> None:
        pass


class DeadlineThatChangesNothing(Parcel):
    def deadline_passed(self) -> None:
        self.deadline = inf


class WaitsForAPeerThatTakesNothing(Parcel):
    def write_deadline_passed(self) -> None:
        self.wait_for_peer()


# Bounds


class UnboundedHead(Parcel):
    def go_on(self) -> None:
        if self.state != parcel.IDLE or b"\n" in self.buffer:
            super().go_on()


class ReadsOnWhateverTheApplicationDoes(Parcel):
    def hold(self, count: int) -> None:
        self.held += count


class NeverReadsOn(Parcel):
    def consumed(self, count: int) -> None:
        self.held -= count


class GathersTheBody(Parcel):
    def data_received(self, data: bytes) -> None:
        self.buffer += data
        line, end, body = self.buffer.partition(b"\n")
        if self.state != parcel.IDLE or not end or len(body) >= int(line.rpartition(b" ")[2]):
            super().data_received(b"")


class IgnoresPauseWriting(Parcel):
    def pause_writing(self) -> None:
        self.wait_for_peer()


class UnboundedCork(Parcel):
    def send(self, data: bytes) -> None:
        if self.corked:
            self._cork.append(data)
        else:
            super().send(data)


# Ends


class EndOfConnectionIsEndOfBody(Parcel):
    def eof_received(self) -> bool:
        if self.state == parcel.BODY:
            self.left = 0
            self.exchange.eof_received()
        return super().eof_received()

    def take_line(self, line: bytes) -> None:
        words = line.split(b" ")
        if len(words) == 3 and words[2].isdigit():
            self.open(words[0], words[1], int(words[2]))
        else:
            super().take_line(line)


class EndOfConnectionIsEndOfAnUnmeasuredBody(Parcel):
    """The same where no length is given, so that the core cannot tell either."""

    def open(self, method: bytes, target: bytes, length: int) -> None:
        self.answered = False
        self.left, self.held, self.read = length, 0, 0
        self.state = parcel.BODY if length else parcel.SERVING
        self.body_since = self.loop.time()
        self.await_body() if length else self.rest_deadline()
        self.service.open(RequestHead(method, target, [], "1.1", content_length=None if length else 0), self)

    def lose(self) -> None:
        if self.state == parcel.BODY and self.exchange is not None:
            self.exchange.eof_received()
        super().lose()


class ResetIsAnOrderlyEnd(Parcel):
    def reset(self) -> None:
        self.send(b"0\n")
        self.sent()


class ResetDoesNothing(Parcel):
    def reset(self) -> None:
        self.answered = True


class DoesNotTellOfTheLoss(Parcel):
    def lose(self) -> None:
        pass


class TellsOfTheLossTwice(Parcel):
    def lose(self) -> None:
        if self.exchange is not None:
            self.exchange.stream_lost(ClientGone("gone"))
        super().lose()


class GoesOnAfterTheLoss(Parcel):
    def lose(self) -> None:
        exchange = self.exchange
        super().lose()
        if exchange is not None:
            exchange.resume_writing()


class KeepsItsPlaceAmongConnections(Parcel, guarded=()):
    def connection_lost(self, exc: Exception | None) -> None:
        self.lose()


class NoEndOfTheBody(Parcel):
    def body_ended(self) -> None:
        pass


class EndOfTheBodyTwice(Parcel):
    def body_ended(self) -> None:
        super().body_ended()
        self.exchange.eof_received()


class EndOfABodyThatIsNot(Parcel):
    def open(self, method: bytes, target: bytes, length: int) -> None:
        super().open(method, target, length)
        if not length:
            self.exchange.eof_received()


# Drain


class IgnoresADrain(Parcel):
    def drain(self) -> None:
        pass


class ClosesAtOnceInADrain(Parcel):
    def drain(self) -> None:
        self.close()


class StaysAfterItsLastAnswerInADrain(Parcel):
    def next_request(self) -> None:
        draining, self.service.draining = self.service.draining, False
        super().next_request()
        self.service.draining = draining


# Answers


class HeadAndBodyInTwoWrites(Parcel):
    def start(self, status: int, headers: Headers, body: Body, more: bool) -> None:
        self.send(b"%d\n" % status)
        self.put(b"", body, more)


class ResumesNobody(Parcel):
    def resume_writing(self) -> None:
        Connection.resume_writing(self)
        self.loop.call_soon(self.next_request)


class IsOverBeforeTheLastByteHasLeft(Parcel):
    def watch(self) -> None:
        pass


# Calls that come from inside a method of the stream


class CallsBackFromStart(Parcel):
    def start(self, *args: Any) -> None:
        super().start(*args)
        self.exchange.resume_writing()


class CallsBackFromWrite(Parcel):
    def write(self, *args: Any) -> None:
        super().write(*args)
        self.exchange.resume_writing()


class CallsBackFromConsumed(Parcel):
    def consumed(self, count: int) -> None:
        super().consumed(count)
        self.exchange.resume_writing()


class CallsBackFromReset(Parcel):
    def reset(self) -> None:
        super().reset()
        self.lose()


# Requests


class LosesAByteAtASplit(Parcel):
    def data_received(self, data: bytes) -> None:
        super().data_received(data[1:] if self.buffer and len(data) > 1 else data)


class NeedsTheLineInOnePiece(Parcel):
    def data_received(self, data: bytes) -> None:
        if self.state == parcel.IDLE and not self.buffer and b"\n" not in data[:100] and data:
            self.refuse(BadRequest("Half a line", code="PARCEL"))
        else:
            super().data_received(data)


class EmptyPieces(Parcel):
    def body_ended(self) -> None:
        self.exchange.data_received(b"")
        super().body_ended()


class BodyIsPartOfTheNextRequest(Parcel):
    def body_ended(self) -> None:
        super().body_ended()
        self.buffer = b"X" + self.buffer


class OpensTwoRequests(Parcel):
    def open(self, method: bytes, target: bytes, length: int) -> None:
        super().open(method, target, length)
        if not length:
            self.service.open(RequestHead(b"GET", b"/again", [], "1.1"), self)


class NoLengthWhereThereIsABody(Parcel):
    def open(self, method: bytes, target: bytes, length: int) -> None:
        opened = self.service.open
        bare = RequestHead(method, target, [], "1.1", content_length=0)
        self.service.open = lambda head, stream: opened(bare, stream)
        super().open(method, target, length)


class NamesInUpperCase(Parcel):
    def open(self, method: bytes, target: bytes, length: int) -> None:
        opened = self.service.open
        fields = [(b"X-A", b"b")]
        self.service.open = lambda head, stream: opened(
            RequestHead(method, target, fields, "1.1", content_length=head.content_length), stream
        )
        super().open(method, target, length)


class TextInPlaceOfBytes(Parcel):
    def open(self, method: Any, target: Any, length: int) -> None:
        super().open(method, target.decode(), length)


class DoesNotKeepItsExchange(Parcel):
    @property
    def exchange(self) -> Any:
        return self._kept

    @exchange.setter
    def exchange(self, exchange: Any) -> None:
        self._kept = None


def _subclasses(kind: Any) -> list[Any]:
    return [each for each in kind.__subclasses__() if each.__module__ == __name__]


MUTANTS = _subclasses(Parcel)


def test_there_are_so_many_mutants() -> None:
    assert len(MUTANTS) == 44


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_check_wire_finds(mutant: Any) -> None:
    with pytest.raises(CheckFailed, match="mutant"):
        check_wire(Wire(name="mutant", connect=mutant), REQUESTS)
