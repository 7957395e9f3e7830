"""RESP, the protocol of Redis clients: requests in, replies out, in version 2 or 3.

A parser takes bytes as they come and gives whole requests. A request longer than the bound is skipped as it arrives,
without being kept, and reported when it ends.
"""

from __future__ import annotations

BULK_BYTES_MAX = 512 << 20
ARGUMENTS_MAX = 1 << 20
LINE_BYTES_MAX = 64 << 10

_INTEGER_MIN = -(1 << 63)
_INTEGER_MAX = (1 << 63) - 1
_ESCAPES = {ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("b"): 8, ord("a"): 7}
_SPACES = b" \t\n\v\f\r"
_HEX = b"0123456789abcdefABCDEF"


class ProtocolError(Exception):
    """The bytes are not RESP; the connection cannot go on. The text is the error to answer with."""


class TooLarge:
    """Stands for a request that was longer than the bound, and skipped."""

    def __init__(self, request_bytes: int) -> None:
        self.request_bytes = request_bytes


def to_integer(text: bytes) -> int | None:
    """A decimal integer as the replicated format writes it (FORMAT.md, "add"); None if it is not one."""
    digits = text[1:] if text[:1] == b"-" else text
    if not digits or len(digits) > 19 or not digits.isdigit() or (digits[:1] == b"0" and len(text) > 1):
        return None
    value = int(text)
    return value if _INTEGER_MIN <= value <= _INTEGER_MAX else None


class Parser:
    """Turns a stream of bytes into requests: lists of arguments."""

    def __init__(self, request_bytes_max: int) -> None:
        self._request_bytes_max = request_bytes_max
        self._input = bytearray()
        self._position = 0
        self._expected = 0
        self._bulk_bytes = -1
        self._arguments: list[bytes] = []
        self._request_bytes = 0
        self._skipping = False

    def feed(self, data: bytes) -> None:
        """Takes the next bytes."""
        self._input += data

    def buffered(self) -> int:
        """How many bytes were taken and not yet given back as requests."""
        return len(self._input) - self._position

    def next(self) -> list[bytes] | TooLarge | None:
        """The next request, if there is a whole one. An empty one is to be ignored.

        Raises ProtocolError if the bytes are not RESP.
        """
        request = self._next()
        if request is None and self._position > 0:
            del self._input[: self._position]
            self._position = 0
        return request

    def _next(self) -> list[bytes] | TooLarge | None:
        if self._expected == 0:
            request = self._begin()
            if request is not None or self._expected == 0:
                return request
        while self._expected > 0:
            if self._bulk_bytes < 0 and not self._bulk_header():
                return None
            if not self._bulk():
                return None
        if self._skipping:
            return TooLarge(self._request_bytes)
        arguments, self._arguments = self._arguments, []
        return arguments

    def _line(self, too_long: str) -> bytes | None:
        end = self._input.find(b"\n", self._position, self._position + LINE_BYTES_MAX + 1)
        if end < 0:
            if len(self._input) - self._position > LINE_BYTES_MAX:
                raise ProtocolError(f"ERR Protocol error: {too_long}")
            return None
        line = bytes(self._input[self._position : end])
        self._position = end + 1
        return line[:-1] if line[-1:] == b"\r" else line

    def _begin(self) -> list[bytes] | None:
        self._arguments = []
        self._request_bytes = 0
        self._skipping = False
        self._bulk_bytes = -1
        if self._position == len(self._input):
            return None
        is_inline = self._input[self._position] != 0x2A
        line = self._line("too big inline request" if is_inline else "too big mbulk count string")
        if line is None:
            return None
        if is_inline:
            return split_inline(line)
        count = to_integer(line[1:])
        if count is None or count > ARGUMENTS_MAX:
            raise ProtocolError("ERR Protocol error: invalid multibulk length")
        if count <= 0:
            return []
        self._expected = count
        return None

    def _bulk_header(self) -> bool:
        if self._position == len(self._input):
            return False
        kind = self._input[self._position]
        if kind != 0x24:
            shown = chr(kind) if 0x20 <= kind < 0x7F else "?"
            raise ProtocolError(f"ERR Protocol error: expected '$', got '{shown}'")
        line = self._line("too big bulk count string")
        if line is None:
            return False
        length = to_integer(line[1:])
        if length is None or not 0 <= length <= BULK_BYTES_MAX:
            raise ProtocolError("ERR Protocol error: invalid bulk length")
        self._bulk_bytes = length
        self._request_bytes += length
        if self._request_bytes > self._request_bytes_max:
            self._skipping = True
            self._arguments = []
        return True

    def _bulk(self) -> bool:
        left = len(self._input) - self._position
        length = self._bulk_bytes
        if left < length + 2:
            if self._skipping:
                skipped = min(left, length)
                self._position += skipped
                self._bulk_bytes -= skipped
            return False
        end = self._position + length
        if self._input[end : end + 2] != b"\r\n":
            raise ProtocolError("ERR Protocol error: expected CRLF after a bulk string")
        if not self._skipping:
            self._arguments.append(bytes(memoryview(self._input)[self._position : end]))
        self._position = end + 2
        self._bulk_bytes = -1
        self._expected -= 1
        return True


def split_inline(line: bytes) -> list[bytes]:
    """Splits an inline request into words, quotes and escapes as redis-cli has them."""
    words = []
    at = 0
    while True:
        while at < len(line) and line[at] in _SPACES:
            at += 1
        if at == len(line):
            return words
        quote = line[at] if line[at] in b"\"'" else 0
        at += quote != 0
        word = bytearray()
        while at < len(line) and (line[at] != quote if quote else line[at] not in _SPACES):
            byte = line[at]
            if byte == 0x5C and at + 1 < len(line):
                escaped = line[at + 1]
                digits = line[at + 2 : at + 4]
                if quote == 0x22 and escaped == 0x78 and len(digits) == 2 and all(digit in _HEX for digit in digits):
                    byte = int(digits, 16)
                    at += 3
                elif quote == 0x22:
                    byte = _ESCAPES.get(escaped, escaped)
                    at += 1
                elif quote == 0x27 and escaped == 0x27:
                    byte = escaped
                    at += 1
            word.append(byte)
            at += 1
        if quote:
            if at == len(line) or (at + 1 < len(line) and line[at + 1] not in _SPACES):
                raise ProtocolError("ERR Protocol error: unbalanced quotes in request")
            at += 1
        words.append(bytes(word))


def simple(text: str) -> bytes:
    """A status."""
    return b"+%b\r\n" % text.encode()


def error(text: str | bytes) -> bytes:
    """An error; the text begins with its code. Line breaks within it become spaces."""
    if isinstance(text, str):
        text = text.encode("utf-8", "replace")
    return b"-%b\r\n" % text.replace(b"\r", b" ").replace(b"\n", b" ")


def integer(value: int) -> bytes:
    """An integer."""
    return b":%d\r\n" % value


def bulk(value: bytes | str) -> bytes:
    """A string of bytes."""
    if isinstance(value, str):
        value = value.encode()
    return b"$%d\r\n%b\r\n" % (len(value), value)


def nil(version: int) -> bytes:
    """Nothing."""
    return b"_\r\n" if version == 3 else b"$-1\r\n"


def array(items: list[bytes]) -> bytes:
    """An array of replies."""
    return b"*%d\r\n%b" % (len(items), b"".join(items))


def mapping(version: int, pairs: list[tuple[bytes, bytes]]) -> bytes:
    """A map of replies, or in RESP2 an array of twice as many."""
    head = b"%%%d\r\n" % len(pairs) if version == 3 else b"*%d\r\n" % (2 * len(pairs))
    return head + b"".join(key + value for key, value in pairs)


def text(version: int, value: str) -> bytes:
    """Text meant for people: verbatim in RESP3, bulk in RESP2."""
    data = value.encode()
    return b"=%d\r\ntxt:%b\r\n" % (len(data) + 4, data) if version == 3 else bulk(data)
