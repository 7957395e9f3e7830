"""What a host gives a group: a state machine."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Optional, Union

from ._native import Entry
from ._native import SnapshotReader as _NativeReader
from .types import Notice

__all__ = ["Entry", "SnapshotReader", "StateMachine"]


class SnapshotReader(io.BufferedReader):
    """A complete, verified snapshot on the local disk, as a binary file that is read once, from its beginning.

    Good until `restore` returns.
    """

    def __init__(self, reader: _NativeReader) -> None:
        super().__init__(_RawReader(reader), 256 << 10)
        self.index: int = reader.index
        """The last entry that the snapshot includes."""
        self.term: int = reader.term
        """That entry's term."""


class _RawReader(io.RawIOBase):
    def __init__(self, reader: _NativeReader) -> None:
        super().__init__()
        self._reader = reader

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:  # type: ignore[no-untyped-def]
        data = self._reader.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class StateMachine:
    """A replicated state machine. Override `apply_entry`, or `apply` for a batch at a time; the rest where it is needed.

    All methods are called one at a time, on the thread `raft-dispatch`. They may submit requests (`Group.submit`), but
    must not wait for them: a call that waits raises `InCallback`. A slow method costs throughput, not leadership:
    heartbeats and the disk have threads of their own, which need no GIL.
    """

    def apply_entry(self, entry: Entry) -> Optional[bytes]:
        """Applies one committed entry and returns its result, at most 1 MiB, for whoever proposed it.

        What it does to the state, and its result, must be the same on every replica: nothing but the state and the
        entry may matter, no clock (but `entry.log_time`), no random number, nothing from outside.

        An exception stops the group on this server at this entry, which stays unapplied: it is neither tried again
        (until the server is opened again) nor skipped. Its message is in the group's status, in the notice
        `GROUP_STOPPED`, and the exception itself in `Group.failure`.
        """
        raise NotImplementedError(f"{type(self).__qualname__} overrides neither `apply` nor `apply_entry`")

    def apply(self, entries: Sequence[Entry]) -> Iterable[Optional[bytes]]:
        """Applies a batch of committed entries, and gives their results in the same order, one an entry.

        A generator is best: where it raises, the entries whose results it gave count as applied, and the next one as
        the one that failed. Where a method that returns a list raises, none of the batch counts.

        By default, this calls `apply_entry` for each.
        """
        for entry in entries:
            yield self.apply_entry(entry)

    def query(self, request: bytes) -> bytes:
        """Answers a question about the state, between batches, without changing it.

        An exception ends the query with `Failed`, and nothing else.
        """
        raise NotImplementedError(f"{type(self).__qualname__} answers no queries")

    def snapshot(self) -> Union[bytes, Iterable[bytes]]:
        """Takes a snapshot of the state as it is now, between batches.

        Returns it whole, or as pieces that are asked for in steps *while entries are applied*: take what must not
        change first (`copy = dict(self.values)`), as cheaply as possible. A generator runs up to its first `yield`
        before anything else is applied. Equal states need not give equal bytes.

        An exception gives the snapshot up; the log stays as long as it is, and a snapshot is tried again later.
        """
        raise NotImplementedError(f"{type(self).__qualname__} has no snapshots")

    def restore(self, reader: SnapshotReader) -> None:
        """Replaces the whole state by the snapshot in `reader`: at start, or when this server was far behind.

        All or nothing: an exception stops the group.
        """
        raise NotImplementedError(f"{type(self).__qualname__} cannot restore snapshots")

    def digest(self) -> Optional[bytes]:
        """Tells what the state comes down to, for `Group.check_digests`: at most 32 bytes, which are equal where states are.

        And, as far as can be, only there: a checksum or a hash of the state, whatever the order in which it is kept. It is
        asked for between batches, at the same entry on every replica. None, which is the default: this replica takes no
        part. An exception is a warning, and nothing else.
        """
        return None

    def notice(self, notice: Notice) -> None:
        """Hears of something it did not ask for: roles, members, a stop. By default, ignores it.

        An exception goes to `sys.unraisablehook`, and has no other effect.
        """

    def applied_index(self) -> int:
        """The last index that the state holds by itself when the group is started.

        0, unless the host keeps the state on its own disk. Beyond the log, the start is refused.
        """
        return 0
