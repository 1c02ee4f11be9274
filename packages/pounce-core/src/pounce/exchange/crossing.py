"""Crossing: how a call reaches the loop that it is for.

Theory of operation. An exchange belongs to one loop, and so does all it uses: its stream, its deflater, its futures. An
application does not know that. On worker threads it keeps the `send` of one request and calls it in another, whose loop
is another worker's, or in a thread of its own. So whatever an application can await begins with one comparison:

    if running_loop() is not self.service.loop:
        return await self.service.crossing.call(self.send, message)

Then the call is handed to the owner's loop and made there, in a task; the caller awaits the outcome on its own loop:

    caller's loop   call ──────────────▶ result, or the exception that the method raised
                     │ begin              ▲ deliver
    owner's loop     └──▶ method(*args) ──┘

- Calls begin in the order in which they were made. Where a call waits, for a slow client, its caller waits.
- A caller that is cancelled is free at once, whatever the owner's loop does. What has not begun then never does; what
  waits is cancelled; and a result that nobody takes any more is put back (`undo`), so that no message is lost.
- When the owner's loop ends, its clients are gone: calls that are still under way raise `ClientGone`, as do later ones.
- Where no loop runs there is nothing to await on: `AppError`.
"""

import asyncio
import threading
from asyncio import _get_running_loop as running_loop
from collections.abc import Callable, Coroutine
from typing import Any, cast

from pounce.errors import AppError, ClientGone

__all__ = ["Crossing", "is_closed_with", "running_loop"]


def is_closed_with(loop: asyncio.AbstractEventLoop, exc: BaseException) -> bool:
    """Whether a coroutine of this loop ends because it is closed, as when the loop is, and not by what it raises."""
    return isinstance(exc, GeneratorExit) and running_loop() is not loop


class Crossing:
    """Calls from other loops to what belongs to one loop."""

    __slots__ = ("_calls", "_closed", "_lock", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._lock = threading.RLock()
        """Protects the other fields, and a loop that is told something from being closed at the same time, against
        which uvloop's has no defence. Reentrant, because the garbage collector may end a caller at any moment."""
        self._calls: set[Call[Any]] = set()
        self._closed = False

    async def call[T](
        self, method: Callable[..., Coroutine[Any, Any, T]], *args: object, undo: Callable[[T], None] | None = None
    ) -> T:
        """Await `method(*args)` on the owner's loop; call on another one.

        `undo` is called there with a result that the caller, cancelled in the meantime, does not take. Raises what the
        method raises, `ClientGone` when the owner's loop has ended, `AppError` where no loop runs.
        """
        caller = running_loop()
        if caller is None:
            raise AppError(
                "this was awaited where no event loop runs",
                code="POUNCE_APP_NO_LOOP",
                hint="From a thread hand it to a loop: asyncio.run_coroutine_threadsafe(send(message), loop).",
            )
        call = Call(self, caller, method, args, undo)
        with self._lock:
            if self._closed or not call_soon(self.loop, call.begin):
                raise gone()
            self._calls.add(call)
        return await call.outcome()

    def answer(self, call: Call[Any]) -> bool:
        """Tell the caller that there is an outcome; False when nobody waits for it."""
        with self._lock:
            self._calls.discard(call)
            return not call.given_up and call_soon(call.caller, call.deliver)

    def give_up(self, call: Call[Any]) -> None:
        """The caller does not wait any more: from here on its loop may end."""
        with self._lock:
            call.given_up = True
            if not self._closed:
                call_soon(self.loop, call.take_back)

    def close(self) -> None:
        """The loop ends: fail what is under way and all that is still to come. Call on the loop."""
        with self._lock:
            self._closed = True
        for call in self._calls.copy():
            call.settle(None, gone())


class Call[T]:
    """One call on its way, and its outcome on the way back."""

    __slots__ = (
        "_args", "_arrived", "_crossing", "_error", "_method", "_result", "_settled", "_task", "_undo", "caller",
        "given_up",
    )  # fmt: skip

    def __init__(
        self,
        crossing: Crossing,
        caller: asyncio.AbstractEventLoop,
        method: Callable[..., Coroutine[Any, Any, T]],
        args: tuple[object, ...],
        undo: Callable[[T], None] | None,
    ) -> None:
        self.caller = caller
        self.given_up = False
        self._crossing = crossing
        self._arrived: asyncio.Future[None] = caller.create_future()
        self._method = method
        self._args = args
        self._undo = undo
        self._task: asyncio.Task[None] | None = None
        self._settled = False
        self._result: T | None = None
        self._error: Exception | None = None

    # On the caller's loop

    async def outcome(self) -> T:
        try:
            await self._arrived
        except asyncio.CancelledError, GeneratorExit:
            self._crossing.give_up(self)
            raise
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                # Its traceback has this frame.
                del error
        return cast(T, self._result)

    def deliver(self) -> None:
        if not self._arrived.done():
            self._arrived.set_result(None)

    # On the owner's loop

    def begin(self) -> None:
        if self.given_up:
            self.settle(None, gone())
        elif not self._settled:
            # Eagerly: what need not wait keeps its place among the calls before and after it.
            self._task = asyncio.Task(self._run(), loop=self._crossing.loop, eager_start=True)

    async def _run(self) -> None:
        try:
            result = await self._method(*self._args)
        except Exception as exc:  # noqa: BLE001 - it is the caller's
            self.settle(None, exc)
        except BaseException:
            # The caller has given up, or whoever ends this loop has cancelled all that is on it.
            self.settle(None, gone())
            raise
        else:
            self.settle(result, None)

    def settle(self, result: T | None, error: Exception | None) -> None:
        if self._settled:
            return
        self._settled = True
        self._result, self._error = result, error
        if not self._crossing.answer(self):
            self.take_back()

    def take_back(self) -> None:
        """Nobody waits for this call any more."""
        if not self._settled and self._task is not None:
            self._task.cancel()
        elif self._settled and self._error is None and self._undo is not None:
            undo, self._undo = self._undo, None
            undo(cast(T, self._result))


def call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> bool:
    """Call it on that loop, from any thread; False when the loop is closed."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        return False
    return True


def gone() -> ClientGone:
    return ClientGone("the worker that this belongs to has ended")
