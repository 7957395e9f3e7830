"""Open requests, and whoever waits for them.

A request's tag is the number of its batch and its position there. Completions come in columns, a batch of them at a
time, and are told a batch at a time too: by an event, by futures, or by one call into each event loop. Nothing here is
locked: each step is one operation of a dict, a list or a counter, which the interpreter does as a whole, so that a fork
never finds a lock held.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Optional, Union

from . import errors
from ._unraisable import report_unraisable
from .types import Applied

Outcome = Union[Applied, errors.RaftError]
"""How one request of a batch ended."""

_POSITION_BITS = 20
MAX_ITEMS = 1 << _POSITION_BITS

# What the native part says of a request that did not succeed; 0 is success. The numbers are those of src/outcome.rs.
_FAILURES: dict[int, Callable[[Any], errors.RaftError]] = {
    1: errors.NotLeader,
    2: lambda _: errors.Overloaded("too much is uncommitted already"),
    3: lambda _: errors.TooLarge("longer than an entry may be"),
    4: lambda _: errors.DiskFull("the disk is full"),
    5: lambda _: errors.Closed("the server or the group is closed or stopped"),
    6: lambda _: errors.Busy("another such request is in progress, or there is nothing to do"),
    7: lambda _: errors.Forming("the group is not formed yet"),
    8: errors.Failed,
    9: lambda _: errors.LeadershipLost("leadership was lost before the entry was committed"),
    10: lambda _: errors.UnknownClosed("the server was closed before the entry was applied"),
    11: lambda _: errors.Stopped("the group or the server stopped before the entry was applied"),
    12: lambda _: timed_out(),
    13: lambda _: errors.Transferring("leadership is being handed over"),
    14: errors.Invalid,
    15: errors.GivenUp,
    16: lambda _: errors.Cancelled("the request was cancelled"),
    17: lambda _: errors.SessionExpired("the session is over, or never was: nothing was applied now"),
    18: lambda _: errors.ReplyForgotten("the command was applied before, and its result is not kept any more"),
}


def timed_out() -> errors.TimedOut:
    """What a caller gets that waits no longer."""
    return errors.TimedOut("the wait timed out; the request goes on")


class Batch:
    """Requests that were made together, and how they ended."""

    def __init__(self, count: int) -> None:
        self.outcomes: list[Optional[Outcome]] = [None] * count
        self.remaining = count

    def settle(self, position: int, outcome: Outcome, loops: Loops) -> None:
        """Takes the end of one of them."""
        if self.outcomes[position] is None:
            self.outcomes[position] = outcome
            self.remaining -= 1
            if self.remaining == 0:
                self.tell(loops)

    def tell(self, loops: Loops) -> None:
        """All have ended."""
        raise NotImplementedError

    def so_far(self) -> list[Outcome]:
        """How they ended, with a timeout for those that have not."""
        return [timed_out() if outcome is None else outcome for outcome in self.outcomes]


class Waited(Batch):
    """A thread waits for them."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self._told = threading.Event()

    def tell(self, loops: Loops) -> None:
        self._told.set()

    def wait(self, timeout: Optional[float]) -> list[Outcome]:
        """Waits for all of them, or until the time is over."""
        self._told.wait(timeout)
        return self.so_far()


class Futures(Batch):
    """Each has a future of its own."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.futures: list[Future[Applied]] = [Future() for _ in range(count)]
        for future in self.futures:
            future.set_running_or_notify_cancel()  # There is no taking it back.

    def settle(self, position: int, outcome: Outcome, loops: Loops) -> None:
        future = self.futures[position]
        try:
            if isinstance(outcome, Applied):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)
        except BaseException as error:
            # A callback of the host's, which raised what is no `Exception`. Others wait for their ends too.
            report_unraisable(error, future)


class Awaited(Batch):
    """An event loop waits for them: for what `convert` makes of the outcomes, or raises."""

    def __init__(self, count: int, convert: Callable[[list[Outcome]], Any], timeout: Optional[float]) -> None:
        super().__init__(count)
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self._convert = convert
        if timeout is not None:
            timer = self.loop.call_later(timeout, self.resolve)
            self.future.add_done_callback(lambda _: timer.cancel())

    def tell(self, loops: Loops) -> None:
        loops.setdefault(self.loop, []).append(self)

    def resolve(self) -> None:
        """Ends the wait. On the loop's thread."""
        if not self.future.done():
            try:
                self.future.set_result(self._convert(self.so_far()))
            except errors.RaftError as error:
                self.future.set_exception(error)


Loops = dict[asyncio.AbstractEventLoop, list[Awaited]]
"""What is to be told to event loops, by loop."""


def tell_loops(loops: Loops) -> None:
    """Wakes each loop once."""
    for loop, batches in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve_all, batches)
        except RuntimeError:
            pass  # The loop is closed: nobody waits any more.


def _resolve_all(batches: Sequence[Awaited]) -> None:
    for batch in batches:
        batch.resolve()


class Requests:
    """The open requests of one group."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._batches: dict[int, tuple[Batch, int]] = {}

    def __len__(self) -> int:
        return len(self._batches)

    def submit(self, batch: Batch, send: Callable[[int], None]) -> None:
        """Enters a batch, and sends it by its first tag. A batch that is refused leaves no trace."""
        count = len(batch.outcomes)
        if count > MAX_ITEMS:
            raise errors.TooLarge(f"a batch of {count} items: {MAX_ITEMS} is the most")
        number = next(self._numbers)
        self._batches[number] = (batch, count)
        try:
            send(number << _POSITION_BITS)
        except BaseException:
            self._batches.pop(number, None)
            raise

    def completed(
        self, tags: list[int], codes: list[int], details: list[Any], indices: list[int], terms: list[int]
    ) -> None:
        """Takes completions, in columns, and tells whoever waits. Never called by two threads at a time."""
        batches = self._batches
        loops: Loops = {}
        for tag, code, detail, index, term in zip(tags, codes, details, indices, terms):
            number = tag >> _POSITION_BITS
            entered = batches.get(number)
            if entered is None:
                continue  # Its submission was interrupted: nobody knows of it.
            batch, open_count = entered
            if open_count == 1:
                del batches[number]
            else:
                batches[number] = (batch, open_count - 1)
            outcome = _FAILURES[code](detail) if code else Applied(detail, index, term)
            batch.settle(tag & (MAX_ITEMS - 1), outcome, loops)
        tell_loops(loops)
