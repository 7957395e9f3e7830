"""What the native part calls: a state machine of Python behind the engine's, and the ends of requests.

The native part calls these methods one at a time, mostly on the thread that dispatches, at close on the one that closes.
It hands over and takes plain values, a batch a call.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from functools import wraps
from typing import Any, Optional, TypeVar

from . import errors
from ._native import Entry
from ._native import SnapshotReader as NativeReader
from ._requests import Batch, Loops, Requests, tell_loops
from ._unraisable import report_unraisable
from .machine import SnapshotReader, StateMachine
from .types import (
    Applied,
    DigestAnswer,
    DigestCheck,
    DigestVerdict,
    Member,
    MemberRole,
    Notice,
    NoticeKind,
    ReplicaDigest,
    Role,
)

_Function = TypeVar("_Function", bound=Callable[..., Any])


MemberRow = tuple[int, str, bytes, str, int]
"""A member in the native part's words."""


def members_of(rows: Iterable[MemberRow]) -> tuple[Member, ...]:
    """Members as the host sees them."""
    return tuple(Member(id, address, context, MemberRole(role), priority) for id, address, context, role, priority in rows)


CheckRow = tuple[int, str, list[tuple[int, str, Optional[bytes], int, bool]]]
"""A comparison of replicas in the native part's words."""

DIGEST_BYTES = 32


def check_of(row: CheckRow) -> DigestCheck:
    """A comparison of replicas as the host sees it."""
    index, verdict, replicas = row
    return DigestCheck(
        index,
        DigestVerdict(verdict),
        tuple(ReplicaDigest(id, DigestAnswer(answer), *rest) for id, answer, *rest in replicas),
    )


class _Depth(threading.local):
    value = 0


_depth = _Depth()


def refuse_in_callback(call: str) -> None:
    """Raises `InCallback` if this thread is in a callback: the call would wait for it."""
    if _depth.value:
        raise errors.InCallback(f"{call} waits, and was called from a callback: use `submit`, or another thread")


def is_in_callback() -> bool:
    """Whether this thread is in a callback of any server."""
    return _depth.value > 0


def _callback(function: _Function) -> _Function:
    @wraps(function)
    def marked(*arguments: Any) -> Any:
        _depth.value += 1
        try:
            return function(*arguments)
        finally:
            _depth.value -= 1

    return marked  # type: ignore[return-value]


def describe(error: BaseException) -> str:
    """An exception in one line, with where it was raised."""
    text = "".join(traceback.format_exception_only(type(error), error)).strip().replace("\n", "; ")
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return text
    return f"{text} ({frames[-1].filename}:{frames[-1].lineno})"


class Bridge:
    """One group's side of Python."""

    def __init__(self, machine: StateMachine) -> None:
        self._machine = machine
        self.requests = Requests()
        self.failure: Optional[BaseException] = None
        self.leader: Optional[int] = None
        self._end: Optional[str] = None
        self._leader_waits: list[Batch] = []

    # ---- Called by the native part ----

    @_callback
    def apply(self, entries: list[Entry]) -> tuple[list[Optional[bytes]], Optional[str]]:
        """The results of those entries that were applied, and why the next one was not."""
        results: list[Optional[bytes]] = []
        try:
            for result in self._machine.apply(entries):
                if result is not None and type(result) is not bytes:
                    if not isinstance(result, (bytes, bytearray, memoryview)):
                        kind = type(result).__qualname__
                        raise TypeError(f"`apply` gave a result of type {kind}: expected bytes or None")
                    result = bytes(result)
                if len(results) == len(entries):
                    raise ValueError(f"`apply` gave more than {len(entries)} results for as many entries")
                results.append(result)
            if len(results) < len(entries):
                raise ValueError(f"`apply` gave {len(results)} results for {len(entries)} entries")
        except BaseException as error:
            # It may have given all results and failed behind the last one: then the last entry is the one that failed.
            del results[len(entries) - 1 :]
            self.failure = error
            return results, describe(error)
        return results, None

    @_callback
    def query(self, request: bytes) -> bytes:
        reply = self._machine.query(request)
        return reply if type(reply) is bytes else _as_bytes(reply, "query")

    @_callback
    def digest(self) -> Optional[bytes]:
        """At most 32 bytes, or nothing."""
        digest = self._machine.digest()
        if digest is None:
            return None
        digest = digest if type(digest) is bytes else _as_bytes(digest, "digest")
        if len(digest) > DIGEST_BYTES:
            raise ValueError(f"`digest` gave {len(digest)} bytes: {DIGEST_BYTES} is the most")
        return digest

    @_callback
    def snapshot(self) -> Pieces:
        """Begins a snapshot."""
        taken = self._machine.snapshot()
        if isinstance(taken, (bytes, bytearray, memoryview)):
            return Pieces(iter((bytes(taken),)))
        return Pieces(iter(taken))

    @_callback
    def restore(self, native: NativeReader) -> Optional[str]:
        """Why it could not."""
        try:
            with SnapshotReader(native) as reader:
                self._machine.restore(reader)
        except BaseException as error:
            self.failure = error
            return describe(error)
        return None

    @_callback
    def completed(
        self, tags: list[int], codes: list[int], details: list[Any], indices: list[int], terms: list[int]
    ) -> None:
        self.requests.completed(tags, codes, details, indices, terms)

    @_callback
    def notice(
        self,
        kind: str,
        message: str,
        role: Optional[str],
        term: int,
        leader: Optional[int],
        peer: Optional[int],
        members: list[MemberRow],
        check: Optional[CheckRow],
    ) -> None:
        notice = Notice(
            NoticeKind(kind),
            message,
            None if role is None else Role(role),
            term,
            leader,
            peer,
            members_of(members),
            None if check is None else check_of(check),
        )
        if notice.kind is NoticeKind.ROLE:
            self.leader = leader
            self._tell_leader()
        elif notice.kind in (NoticeKind.GROUP_STOPPED, NoticeKind.SERVER_STOPPED):
            self.end(message)
        try:
            self._machine.notice(notice)
        except BaseException as error:
            report_unraisable(error, self._machine.notice)

    # ---- Called by the group ----

    def wait_for_leader(self, batch: Batch) -> None:
        """Settles the batch, of one, as soon as a leader is known, or never will be."""
        self._leader_waits.append(batch)
        # Behind the append: either the notice finds it, or it finds the notice.
        self._tell_leader()

    def end(self, reason: str) -> None:
        """The group is closed or stopped: no leader will be known."""
        self.leader = None
        self._end = self._end or reason
        self._tell_leader()

    def _tell_leader(self) -> None:
        leader, end = self.leader, self._end
        if leader is None and end is None:
            return
        loops: Loops = {}
        while self._leader_waits:
            try:
                batch = self._leader_waits.pop()
            except IndexError:
                break  # Another thread was faster.
            if end is not None:
                batch.settle(0, errors.Closed(end), loops)
            else:
                batch.settle(0, Applied(b"", leader or 0, 0), loops)
        tell_loops(loops)


class Pieces:
    """A snapshot being written: the native part asks for one step after another."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        # A generator has taken nothing yet: it runs to its first piece before anything else is applied.
        self._next: Optional[bytes] = self._pull()
        self._offset = 0

    def _pull(self) -> Optional[bytes]:
        piece = next(self._pieces, None)
        return piece if piece is None or type(piece) is bytes else _as_bytes(piece, "snapshot")

    @_callback
    def read(self, size: int) -> tuple[bytes, bool]:
        """The next bytes, at most `size`, and whether they are the last."""
        step = bytearray()
        while self._next is not None:
            end = self._offset + size - len(step)
            step += self._next[self._offset : end]
            if end < len(self._next):
                self._offset = end
                break
            self._next, self._offset = self._pull(), 0
        return bytes(step), self._next is None

    @_callback
    def release(self) -> None:
        """No more is asked for."""
        close = getattr(self._pieces, "close", None)
        if close is not None:
            try:
                close()
            except BaseException as error:
                report_unraisable(error, close)


def _as_bytes(value: object, name: str) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"`{name}` gave a {type(value).__qualname__}: expected bytes")
