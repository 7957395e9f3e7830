"""Patterns, as FORMAT.md defines them ("Patterns of `keys`")."""

from __future__ import annotations


def _element(pattern: bytes, at: int, byte: int) -> tuple[bool, int]:
    """Whether the pattern's element at `at` matches the byte, and where the next one is. Not for `*`."""
    first = pattern[at]
    at += 1
    if first == 0x3F:
        return True, at
    if first == 0x5C and at < len(pattern):
        return pattern[at] == byte, at + 1
    if first != 0x5B:
        return first == byte, at
    negated = at < len(pattern) and pattern[at] == 0x5E
    at += negated
    found = False
    while at < len(pattern) and pattern[at] != 0x5D:
        if pattern[at] == 0x5C and at + 1 < len(pattern):
            found = found or pattern[at + 1] == byte
            at += 2
        elif at + 2 < len(pattern) and pattern[at + 1] == 0x2D:
            low, high = sorted((pattern[at], pattern[at + 2]))
            found = found or low <= byte <= high
            at += 3
        else:
            found = found or pattern[at] == byte
            at += 1
    at += at < len(pattern)
    return found != negated, at


def matches(pattern: bytes, text: bytes) -> bool:
    """Whether the whole text matches.

    Goes back to the latest `*` only: an earlier one could not match more. So the time is at most the product of the
    lengths, whatever the client sends.
    """
    in_pattern = in_text = star_text = 0
    star_pattern = 0  # behind the latest star; 0: none yet
    while True:
        if in_pattern < len(pattern) and pattern[in_pattern] == 0x2A:
            in_pattern += 1
            star_pattern, star_text = in_pattern, in_text
            continue
        if in_text == len(text) and in_pattern == len(pattern):
            return True
        if in_text < len(text) and in_pattern < len(pattern):
            is_match, after = _element(pattern, in_pattern, text[in_text])
            if is_match:
                in_pattern = after
                in_text += 1
                continue
        if star_pattern == 0 or star_text == len(text):
            return False
        in_pattern = star_pattern
        star_text += 1
        in_text = star_text
