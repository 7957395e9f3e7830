"""Exceptions that have nobody to go to, as the interpreter reports them: by `sys.unraisablehook`."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Optional


class _Unraisable:
    """What `sys.unraisablehook` is told."""

    def __init__(self, error: BaseException, origin: object) -> None:
        self.exc_type: type[BaseException] = type(error)
        self.exc_value: Optional[BaseException] = error
        self.exc_traceback: Optional[TracebackType] = error.__traceback__
        self.err_msg: Optional[str] = "Exception ignored in"
        self.object: object = origin


def report_unraisable(error: BaseException, origin: object) -> None:
    """Reports an exception that has nobody to go to."""
    sys.unraisablehook(_Unraisable(error, origin))
