"""How calls fail: one exception a reason, with the outcome in its type.

A request that ends with `NotApplied` is certainly not applied, one that ends with `Unknown` may or may not be, now or
later. Everything else concerns the call itself: nothing was submitted.

`retriable` says whether making the same request again is safe and may succeed without anyone repairing something: here
after a while, or at the leader.
"""

from __future__ import annotations

from typing import ClassVar, Optional

__all__ = [
    "Busy",
    "Cancelled",
    "Closed",
    "ConfigError",
    "DirectoryLocked",
    "DiskFull",
    "Failed",
    "Forked",
    "Forming",
    "GivenUp",
    "InCallback",
    "Invalid",
    "LeadershipLost",
    "NotApplied",
    "NotLeader",
    "OpenError",
    "Overloaded",
    "RaftError",
    "RecoveryError",
    "ReplyForgotten",
    "SessionExpired",
    "StartError",
    "Stopped",
    "TimedOut",
    "TooLarge",
    "Transferring",
    "Unknown",
    "UnknownClosed",
]


class RaftError(Exception):
    """Everything that this package raises for a reason of its own."""

    retriable: ClassVar[bool] = False
    """Whether the same request may safely be made again, and may succeed then."""


class ConfigError(RaftError, ValueError):
    """An argument or a setting is unknown, has no such value, or does not fit the others."""


class OpenError(RaftError):
    """The server was not opened: its directory, its log or its address cannot be used. The message says what to do."""


class DirectoryLocked(OpenError):
    """Another process, or another server of this one, has the data directory open."""

    retriable = True


class RecoveryError(RaftError):
    """A directory was not looked at, or a group not recovered in it: the message says why, and what to do instead."""


class StartError(RaftError):
    """The group was not started: it runs already, its directory does not fit, or its state machine is ahead."""


class InCallback(RaftError, RuntimeError):
    """A call that waits was made from a callback of a state machine, for which it would have to wait itself."""


class Forked(RaftError, RuntimeError):
    """The server was opened before a fork: it lives in the parent process only."""


class NotApplied(RaftError):
    """The request was certainly not applied."""


class NotLeader(NotApplied):
    """This server does not lead, and did not reach the one that does, or was not to ask it (setting `forwarding`)."""

    retriable = True

    leader: Optional[int]
    """The server that leads, as far as this one knows."""

    def __init__(self, leader: Optional[int] = None) -> None:
        if leader is None:
            super().__init__("this server does not lead, and knows of no leader")
        else:
            super().__init__(f"server {leader} leads, not this one")
        self.leader = leader

    def __reduce__(self) -> tuple[type[NotLeader], tuple[Optional[int]]]:
        return type(self), (self.leader,)


class Overloaded(NotApplied):
    """A budget is full: too much waits already. Wait for answers, and try again."""

    retriable = True


class TooLarge(NotApplied):
    """An entry is longer than `max_entry_bytes`, or a batch longer than `queue_bytes`."""


class DiskFull(NotApplied):
    """The leader's disk has no room."""

    retriable = True


class Closed(NotApplied):
    """The server or the group is closed, or has stopped: its status says why."""


class Busy(NotApplied):
    """Another request of the same kind is in progress, or there is nothing to do."""

    retriable = True


class Forming(NotApplied):
    """The group is not formed yet: its first members have not all met."""

    retriable = True


class Transferring(NotApplied):
    """Leadership is being handed over: the next leader takes proposals in a moment."""

    retriable = True


class Invalid(NotApplied):
    """The group cannot do what was asked; the message says what, and what to do instead."""


class GivenUp(NotApplied):
    """The request was given up at its deadline; the message says what it waited for."""

    retriable = True


class Cancelled(NotApplied):
    """The request was cancelled, and nothing is left of it."""


class Failed(NotApplied):
    """A callback of the state machine failed: `query` or `snapshot` raised what the message says."""


class Unknown(RaftError):
    """The request may or may not be applied, now or later. Do not simply make it again, unless it is a command of a
    session."""


class LeadershipLost(Unknown):
    """Leadership was lost before the entry was committed; or, where another server leads, contact with it."""


class UnknownClosed(Unknown):
    """The server was closed before the entry was applied here."""


class Stopped(Unknown):
    """The group or the server stopped before the entry was applied here: its status says why."""


class TimedOut(Unknown, TimeoutError):
    """The caller waited no longer. The request goes on."""


class SessionExpired(Unknown):
    """The session expired, was ended, or never was. The command was not applied now; while there was the session it may
    have been. Nothing more can be asked in that session."""


class ReplyForgotten(Unknown):
    """The command of the session was applied before, or its client said since that it needs no answer; what the answer was
    is not kept any more."""
