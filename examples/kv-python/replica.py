"""This server's replica of the group: the state machine in the engine's hands.

The engine calls it on a thread of its own, and the server looks into it from the event loop's, so a lock is held for
each batch of entries and for each look.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

import raft_engine

from machine import Machine, NotACommand


class Replica(raft_engine.StateMachine):
    """The replicated key-value state."""

    def __init__(self, on_notice: Callable[[raft_engine.Notice], None]) -> None:
        self._machine = Machine()
        self._lock = threading.Lock()
        self._on_notice = on_notice
        self._applied = 0

    def apply(self, entries: Sequence[raft_engine.Entry]) -> Iterator[bytes]:
        """Applies a batch; as a generator, so that an entry that fails leaves those before it applied."""
        apply = self._machine.apply
        with self._lock:
            for entry in entries:
                try:
                    result = apply(entry.data)
                except NotACommand as error:
                    raise NotACommand(f"entry {entry.index} is no command that this version knows: {error}") from None
                self._applied = entry.index
                yield result

    def snapshot(self) -> Iterator[bytes]:
        """Copies the mapping, not what is in it, and writes it while entries are applied."""
        with self._lock:
            return self._machine.snapshot()

    def restore(self, reader: raft_engine.SnapshotReader) -> None:
        """Replaces the state."""
        with self._lock:
            self._machine.restore(reader.read)
            self._applied = reader.index

    def digest(self) -> bytes:
        """As RAFT.STATUS shows it."""
        with self._lock:
            return bytes.fromhex(self._machine.digest())

    def notice(self, notice: raft_engine.Notice) -> None:
        """Passes on what the engine tells."""
        self._on_notice(notice)

    # ---- For the server ----

    def look_up(self, command: bytes) -> bytes:
        """Answers a read from the state as it is now."""
        with self._lock:
            return self._machine.query(command)

    def value_bytes(self, key: bytes) -> int:
        """The length of a value as it is now."""
        return self._machine.value_bytes(key)

    def describe(self) -> tuple[int, int, str]:
        """Of one moment: the last entry that is in the state, how many keys it has, and its digest."""
        with self._lock:
            return self._applied, len(self._machine), self._machine.digest()
