"""The replicated state machine: commands, results, snapshots and digest, as FORMAT.md defines them.

Everything here is the same on every replica, whatever language it is written in. Knows nothing of clients or Raft.
A dict remembers the order in which its keys were first set, which is the order that the format asks for.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from zlib import crc32

import pattern
import resp

VALUE_BYTES_MAX = 64 << 20
RESULT_BYTES_MAX = 1 << 20
ANSWER_BYTES_MAX = 128 << 20

SET, DELETE, ADD, APPEND, SET_MANY, CLEAR = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
GET, GET_MANY, EXISTS, LENGTH, KEYS, COUNT = 0x41, 0x42, 0x43, 0x44, 0x45, 0x46
IF_MISSING, IF_PRESENT, AND_GET = 1, 2, 4

OK, NIL, INTEGER, BYTES, ARRAY, ERROR = b"\x01", b"\x02", b"\x03", b"\x04", b"\x05", b"\x06"

TOO_LONG = ERROR + b"ERR value would exceed 67108864 bytes"
RESULT_TOO_LONG = ERROR + b"ERR result would exceed 1048576 bytes"
ANSWER_TOO_LONG = ERROR + b"ERR answer would exceed 134217728 bytes"
NOT_AN_INTEGER = ERROR + b"ERR value is not an integer or out of range"
OVERFLOWS = ERROR + b"ERR increment or decrement would overflow"

MAGIC = b"KVSNAP01"
_INTEGER_MIN = -(1 << 63)
_INTEGER_MAX = (1 << 63) - 1
_WORD = (1 << 64) - 1

_u32 = struct.Struct("<I")
_i64 = struct.Struct("<q")
_lengths = struct.Struct("<II")
_result_integer = struct.Struct("<Bq")


class NotACommand(Exception):
    """An entry that is no command: the state machine must stop at it."""


class SnapshotError(Exception):
    """Bytes that are no snapshot, with what is wrong."""


def field(data: bytes) -> bytes:
    """`bytes` of the format."""
    return _u32.pack(len(data)) + data


def fields(items: list[bytes]) -> bytes:
    """A `list` of `bytes`."""
    return _u32.pack(len(items)) + b"".join(map(field, items))


def _take(command: bytes, at: int) -> tuple[bytes, int]:
    start = at + 4
    if start > len(command):
        raise NotACommand("it ends early")
    end = start + _u32.unpack_from(command, at)[0]
    if end > len(command):
        raise NotACommand("it ends early")
    return command[start:end], end


def _all_of(command: bytes, at: int, count: int) -> list[bytes]:
    """So many `bytes`, and nothing after them."""
    taken = []
    for _ in range(count):
        data, at = _take(command, at)
        taken.append(data)
    if at != len(command):
        raise NotACommand("it goes on after its last field")
    return taken


def _list_of(command: bytes, each: int) -> list[bytes]:
    """A `list` of items of `each` fields, and nothing after it."""
    if len(command) < 5:
        raise NotACommand("it ends early")
    count = _u32.unpack_from(command, 1)[0] * each
    if count > len(command) // 4:
        raise NotACommand("it ends early")
    return _all_of(command, 5, count)


def _digest_of(key: bytes, value: bytes) -> int:
    z = ((crc32(key) << 32 | crc32(value)) + 0x9E3779B97F4A7C15) & _WORD
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & _WORD
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & _WORD
    return z ^ z >> 31


class Machine:
    """The state, and what commands do to it."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._digest = 0

    def __len__(self) -> int:
        return len(self._values)

    def digest(self) -> str:
        """Equal for equal states."""
        return f"{self._digest & _WORD:016x}"

    def value_bytes(self, key: bytes) -> int:
        """The length of a value; 0 if there is none."""
        return len(self._values.get(key, b""))

    def _put(self, key: bytes, value: bytes) -> None:
        old = self._values.get(key)
        if old is not None:
            self._digest -= _digest_of(key, old)
        self._digest += _digest_of(key, value)
        self._values[key] = value

    def apply(self, command: bytes) -> bytes:
        """Applies one command and returns its result. Raises NotACommand, and then nothing changed."""
        handler = _WRITES.get(command[0]) if command else None
        if handler is not None:
            return handler(self, command)
        return self._query(command, RESULT_BYTES_MAX, RESULT_TOO_LONG)

    def query(self, command: bytes) -> bytes:
        """Answers a read. Raises NotACommand for anything else."""
        return self._query(command, ANSWER_BYTES_MAX, ANSWER_TOO_LONG)

    def _set(self, command: bytes) -> bytes:
        if len(command) < 2:
            raise NotACommand("it ends early")
        flags = command[1]
        key, value = _all_of(command, 2, 2)
        if flags > 7 or flags & 3 == 3:
            raise NotACommand(f"a set has the flags {flags}")
        if len(value) > VALUE_BYTES_MAX:
            return TOO_LONG
        if flags == 0:
            self._put(key, value)
            return OK
        old = self._values.get(key)
        if flags & AND_GET and old is not None and len(old) + 1 > RESULT_BYTES_MAX:
            return RESULT_TOO_LONG
        sets = not (flags & IF_MISSING and old is not None) and not (flags & IF_PRESENT and old is None)
        if sets:
            self._put(key, value)
        if flags & AND_GET and old is not None:
            return BYTES + old
        return NIL if flags & AND_GET or not sets else OK

    def _delete(self, command: bytes) -> bytes:
        deleted = 0
        for key in _list_of(command, 1):
            value = self._values.pop(key, None)
            if value is not None:
                self._digest -= _digest_of(key, value)
                deleted += 1
        return _result_integer.pack(3, deleted)

    def _add(self, command: bytes) -> bytes:
        if len(command) < 9:
            raise NotACommand("it ends early")
        delta = _i64.unpack_from(command, 1)[0]
        (key,) = _all_of(command, 9, 1)
        old = self._values.get(key)
        value = 0 if old is None else resp.to_integer(old)
        if value is None:
            return NOT_AN_INTEGER
        value += delta
        if not _INTEGER_MIN <= value <= _INTEGER_MAX:
            return OVERFLOWS
        self._put(key, b"%d" % value)
        return _result_integer.pack(3, value)

    def _append(self, command: bytes) -> bytes:
        key, value = _all_of(command, 1, 2)
        old = self._values.get(key, b"")
        if len(old) + len(value) > VALUE_BYTES_MAX:
            return TOO_LONG
        self._put(key, old + value)
        return _result_integer.pack(3, len(old) + len(value))

    def _set_many(self, command: bytes) -> bytes:
        words = _list_of(command, 2)
        if any(len(value) > VALUE_BYTES_MAX for value in words[1::2]):
            return TOO_LONG
        for key, value in zip(words[::2], words[1::2]):
            self._put(key, value)
        return OK

    def _clear(self, command: bytes) -> bytes:
        _all_of(command, 1, 0)
        self._values = {}
        self._digest = 0
        return OK

    def _query(self, command: bytes, bytes_max: int, too_long: bytes) -> bytes:
        kind = command[0] if command else 0
        if kind == GET:
            (key,) = _all_of(command, 1, 1)
            value = self._values.get(key)
            if value is None:
                return NIL
            return BYTES + value if len(value) < bytes_max else too_long
        if kind == LENGTH:
            (key,) = _all_of(command, 1, 1)
            return _result_integer.pack(3, self.value_bytes(key))
        if kind == EXISTS:
            return _result_integer.pack(3, sum(key in self._values for key in _list_of(command, 1)))
        if kind == GET_MANY:
            return _array(map(self._values.get, _list_of(command, 1)), bytes_max, too_long)
        if kind == KEYS:
            (wanted,) = _all_of(command, 1, 1)
            return _array((key for key in self._values if pattern.matches(wanted, key)), bytes_max, too_long)
        if kind == COUNT:
            _all_of(command, 1, 0)
            return _result_integer.pack(3, len(self._values))
        raise NotACommand(f"the first byte is {command[0]}" if command else "it is empty")

    def snapshot(self) -> Iterator[bytes]:
        """The snapshot of the state as it is now, in pieces, which may be taken while the state changes."""
        return _pieces(dict(self._values))

    def restore(self, read: Callable[[int], bytes]) -> None:
        """Replaces the state by a snapshot, all or nothing. `read` gives up to so many bytes, none at the end.

        Raises SnapshotError.
        """
        source = _Exactly(read)
        if source.take(len(MAGIC)) != MAGIC:
            raise SnapshotError("it is not a snapshot of this program")
        count = int.from_bytes(source.take(8), "little")
        fresh = Machine()
        for _ in range(count):
            key_bytes, value_bytes = _lengths.unpack(source.take(8))
            if value_bytes > VALUE_BYTES_MAX:
                raise SnapshotError("a value is longer than values may be")
            key = source.take(key_bytes)
            if key in fresh._values:
                raise SnapshotError("a key occurs twice")
            fresh._put(key, source.take(value_bytes))
        if not source.is_at_end():
            raise SnapshotError("there are bytes after its last pair")
        self._values, self._digest = fresh._values, fresh._digest


_WRITES: dict[int, Callable[[Machine, bytes], bytes]] = {
    SET: Machine._set,
    DELETE: Machine._delete,
    ADD: Machine._add,
    APPEND: Machine._append,
    SET_MANY: Machine._set_many,
    CLEAR: Machine._clear,
}


def _array(items: Iterator[bytes | None], bytes_max: int, too_long: bytes) -> bytes:
    parts = []
    total = 5
    for item in items:
        part = b"\x00" if item is None else b"\x01" + field(item)
        total += len(part)
        if total > bytes_max:
            return too_long
        parts.append(part)
    return ARRAY + _u32.pack(len(parts)) + b"".join(parts)


def _pieces(values: dict[bytes, bytes]) -> Iterator[bytes]:
    piece = [MAGIC, len(values).to_bytes(8, "little")]
    gathered = 0
    for key, value in values.items():
        piece += (_lengths.pack(len(key), len(value)), key, value)
        gathered += 8 + len(key) + len(value)
        if gathered >= 64 << 10:
            yield b"".join(piece)
            piece, gathered = [], 0
    yield b"".join(piece)


class _Exactly:
    """Gives exactly as many bytes as asked for, from a source that gives as many as it likes."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._buffer = b""
        self._at = 0

    def take(self, count: int) -> bytes:
        if len(self._buffer) - self._at < count:
            parts = [self._buffer[self._at :]]
            missing = count - len(parts[0])
            while missing > 0:
                part = self._read(256 << 10)
                if not part:
                    raise SnapshotError("it ends early")
                parts.append(part)
                missing -= len(part)
            self._buffer = b"".join(parts)
            self._at = 0
        data = self._buffer[self._at : self._at + count]
        self._at += count
        return data

    def is_at_end(self) -> bool:
        return self._at == len(self._buffer) and not self._read(1)


def reply(result: bytes, version: int) -> bytes:
    """A result as a RESP reply. Raises ValueError if it is none."""
    kind = result[:1]
    if kind == OK:
        return b"+OK\r\n"
    if kind == BYTES:
        return b"$%d\r\n%b\r\n" % (len(result) - 1, result[1:])
    if kind == NIL:
        return resp.nil(version)
    if kind == INTEGER:
        return b":%d\r\n" % _i64.unpack_from(result, 1)[0]
    if kind == ERROR:
        return resp.error(result[1:])
    if kind != ARRAY:
        raise ValueError(f"no result begins with {kind!r}")
    items = []
    at = 5
    for _ in range(_u32.unpack_from(result, 1)[0]):
        at += 1
        if result[at - 1] == 0:
            items.append(resp.nil(version))
        else:
            data, at = _take(result, at)
            items.append(resp.bulk(data))
    return resp.array(items)
