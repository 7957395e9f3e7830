"""What goes in and comes out: members, consistencies, results, statuses and notices. Plain values, no behaviour."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple, Optional, Union

__all__ = [
    "LINEARIZABLE",
    "STALE",
    "Applied",
    "AtLeast",
    "Consistency",
    "Freshness",
    "GroupStatus",
    "Member",
    "Notice",
    "NoticeKind",
    "Role",
    "ServerStatus",
    "Session",
    "SessionKey",
    "at_least",
]


@dataclass(frozen=True)
class Member:
    """One server of a group."""

    id: int
    """Its id in the cluster: never 0, and never used again for another data directory."""
    address: str
    """Where the other members dial it, as `host:port`."""
    context: bytes = b""
    """Bytes of the host that every member sees, say a client address. The engine gives them no meaning."""


class Applied(NamedTuple):
    """A proposal that is committed, and applied at this server."""

    result: bytes
    """What the state machine answered; empty where it answered `None`."""
    index: int  # type: ignore[assignment]  # Not the method of tuples.
    """The entry's place in the log."""
    term: int
    """The term of the leader that made it."""


class SessionKey(NamedTuple):
    """What a command of a session says of itself. Proposed again with the same key, anywhere, it is applied once."""

    session: int
    """The session's number."""
    sequence: int
    """Which of its commands it is."""
    lowest_outstanding: int
    """The lowest sequence that may still be proposed again: results of those below are forgotten."""


@dataclass
class Session:
    """A session as its client holds it: plain numbers, which it may store, and take to any server of the group.

    A client with one command at a time takes a key for each by `next_key`, proposes the command with it until it has ended
    as applied, and then says that it is `answered`. One with several under way does the same, and says that a command is
    answered once all before it are, too.
    """

    id: int
    """The session's number, never used again in its group."""
    next_sequence: int = 1
    """The sequence of the next command."""
    lowest_outstanding: int = 1
    """The lowest sequence that has no answer yet."""

    def next_key(self) -> SessionKey:
        """The key of the next command."""
        key = SessionKey(self.id, self.next_sequence, self.lowest_outstanding)
        self.next_sequence += 1
        return key

    def answered(self, sequence: int) -> None:
        """The client has the results of all commands through `sequence`, and will propose none of them again."""
        self.lowest_outstanding = max(self.lowest_outstanding, sequence + 1)


class Freshness(enum.Enum):
    """How fresh a read must be."""

    LINEARIZABLE = "linearizable"
    """Covers every write that was acknowledged anywhere before the read began. Only the leader answers."""
    STALE = "stale"
    """Whatever is applied at this server now."""


LINEARIZABLE = Freshness.LINEARIZABLE
STALE = Freshness.STALE


@dataclass(frozen=True)
class AtLeast:
    """Covers at least the entry at `index`, at this server, whoever leads."""

    index: int


def at_least(index: int) -> AtLeast:
    """A read that covers at least the entry at `index`: say, of one's own last write."""
    return AtLeast(index)


Consistency = Union[Freshness, AtLeast]
"""How fresh a read must be: `LINEARIZABLE`, `STALE`, or `at_least(index)`."""


class Role(enum.Enum):
    """What a server is in a group."""

    FORMING = "forming"
    """The group is not formed yet."""
    FOLLOWER = "follower"
    """Follows a leader, or waits for one."""
    PRE_CANDIDATE = "pre-candidate"
    """Asks whether it would be voted for."""
    CANDIDATE = "candidate"
    """Asks for votes."""
    LEADER = "leader"
    """Leads."""


@dataclass(frozen=True)
class GroupStatus:
    """The state of a group on this server."""

    role: Role
    term: int
    leader: Optional[int]
    """Who leads, as far as this server knows."""
    last: int
    """The last entry of the log."""
    durable: int
    """The last entry on this server's own disk."""
    commit: int
    """The last entry known to be committed."""
    applied: int
    """The last entry that the state machine has applied."""
    snapshot: int
    """The last entry that the latest snapshot covers; 0 if there is none."""
    stopped: Optional[str]
    """Why the group stopped on this server, if it did."""
    members: tuple[Member, ...]
    """The members in force; empty before the group is formed."""


@dataclass(frozen=True)
class ServerStatus:
    """The state of a server."""

    id: int
    listen: str
    """Where it listens, with its port also where port 0 was asked for."""
    identity: str
    """Random hexadecimal digits made with its data directory."""
    incarnation: int
    """How many times the directory was opened."""
    ready: bool
    """What it recovered is durable: it speaks with its peers."""
    closed: bool
    stopped: Optional[str]
    """Why it stopped by itself, if it did."""
    disk_backend: str
    """`aio`, `thread-direct` or `thread-buffered`."""
    accept_error: Optional[str]
    """Why nobody is accepted at present; it is tried again."""
    queued_bytes: int
    """Bytes of requests that its loop has not taken yet."""
    log_writes: int
    """Writes to the log since it was opened."""
    log_bytes: int
    """Bytes of all live log segments."""
    connected_peers: tuple[int, ...]
    """Peers to whom messages can go now."""


class NoticeKind(enum.Enum):
    """What a notice is about."""

    FORMED = "formed"
    """The group has its first entry: its initial members have met."""
    ROLE = "role"
    """The role, the term or the leader changed."""
    MEMBERS = "members"
    """A configuration took effect."""
    REMOVED = "removed"
    """This server was removed from the group: it campaigns no more."""
    GROUP_STOPPED = "group-stopped"
    """The group stopped on this server, until the server is opened again."""
    SERVER_STOPPED = "server-stopped"
    """The server stopped: its log failed, or it may not take part."""
    REFUSED = "refused"
    """A peer was refused, or refused this server; the message has the reason and the remedy."""
    WARNING = "warning"
    """Something is odd and costs nothing yet."""


@dataclass(frozen=True)
class Notice:
    """Something that a host may want to know without having asked."""

    kind: NoticeKind
    message: str
    """A sentence for people."""
    role: Optional[Role] = None
    """With `ROLE`."""
    term: int = 0
    """With `ROLE`."""
    leader: Optional[int] = None
    """With `ROLE`: who leads, if that is known."""
    peer: Optional[int] = None
    """With `REFUSED`: the peer's id, if that is known."""
    members: tuple[Member, ...] = ()
    """With `MEMBERS`."""
