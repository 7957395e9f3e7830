"""What goes in and comes out: members, consistencies, results, statuses and notices. Plain values, no behaviour."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple, Optional, Union

__all__ = [
    "LEASE",
    "LINEARIZABLE",
    "STALE",
    "AddMember",
    "Applied",
    "AtLeast",
    "Change",
    "Consistency",
    "DigestAnswer",
    "DigestCheck",
    "DigestVerdict",
    "Freshness",
    "GroupSettings",
    "GroupStatus",
    "Member",
    "MemberChange",
    "MemberRole",
    "Notice",
    "NoticeKind",
    "RemoveMember",
    "ReplicaDigest",
    "Role",
    "ServerStatus",
    "Session",
    "SessionKey",
    "SetAddress",
    "SetContext",
    "SetPriority",
    "SetRole",
    "SetSettings",
    "at_least",
]


class MemberRole(enum.Enum):
    """A server's place in a group."""

    VOTER = "voter"
    """Counts in elections and for commitment."""
    LEARNER = "learner"
    """Receives the log and counts for nothing."""


@dataclass(frozen=True)
class Member:
    """One server of a group."""

    id: int
    """Its id in the cluster: never 0, and never used again for another data directory."""
    address: str
    """Where the other members dial it, as `host:port`."""
    context: bytes = b""
    """Bytes of the host that every member sees, say a client address. The engine gives them no meaning."""
    role: MemberRole = MemberRole.VOTER
    """Who forms a group votes."""
    priority: int = 1
    """How much it is wanted as a leader, against the other voters: 0 to 255. One with 0 leads where nobody else can, and
    hands over as soon as another voter has caught up. Nothing else depends on it."""


@dataclass(frozen=True)
class GroupSettings:
    """What every replica of a group computes by: kept in its log, never local to a server."""

    lease: float = 0.0
    """For how many seconds a follower promises to help nobody else to lead, for reads with `LEASE`: at most the leader's
    election timeout. 0: no leases."""
    session_expiry: float = 3600.0
    """A session that is not used for so many seconds of the group's own time expires."""
    max_sessions: int = 4096
    """Sessions that the group keeps: to open one more ends the one that was used least recently."""
    session_reply_bytes: int = 65536
    """The replies that one session keeps for retries, in bytes."""


@dataclass(frozen=True)
class AddMember:
    """A new server, under an id above all that the group ever used. It runs already, started with `join`."""

    id: int
    address: str
    """Where its peers dial it, as `host:port`: it is met there before anything is changed."""
    context: bytes = b""
    role: MemberRole = MemberRole.VOTER
    """What it becomes once it has caught up."""
    priority: int = 1


@dataclass(frozen=True)
class RemoveMember:
    """A member leaves."""

    id: int


@dataclass(frozen=True)
class SetRole:
    """A learner is promoted, or a voter demoted."""

    id: int
    role: MemberRole


@dataclass(frozen=True)
class SetPriority:
    """A member is wanted more or less as a leader."""

    id: int
    priority: int


@dataclass(frozen=True)
class SetAddress:
    """A member moved."""

    id: int
    address: str


@dataclass(frozen=True)
class SetContext:
    """The host's bytes about a member change."""

    id: int
    context: bytes


@dataclass(frozen=True)
class SetSettings:
    """What every replica computes by changes."""

    settings: GroupSettings


MemberChange = Union[AddMember, RemoveMember, SetRole, SetPriority, SetAddress, SetContext, SetSettings]
"""One part of a change of members."""


@dataclass(frozen=True)
class Change:
    """A change of members in progress."""

    target: tuple[Member, ...]
    """The members once it is done."""
    deadline: int
    """It is given up at this time of the group, in nanoseconds as `Entry.log_time`, if those who are to vote have not caught
    up."""
    is_joint: bool
    """Every decision needs a majority of the voters before it and one of those after it: there is no way but forward."""


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
    LEASE = "lease"
    """As `LINEARIZABLE`, and without a round of messages while the leader holds a lease: where `GroupSettings.lease` is
    set; else it is the same. Stands on clocks: the monotonic clock of every member's machine must run, while the machine
    does, at a rate within a tenth of the others', and no machine may be suspended or migrated live."""
    STALE = "stale"
    """Whatever is applied at this server now."""


LINEARIZABLE = Freshness.LINEARIZABLE
LEASE = Freshness.LEASE
STALE = Freshness.STALE


@dataclass(frozen=True)
class AtLeast:
    """Covers at least the entry at `index`, at this server, whoever leads."""

    index: int


def at_least(index: int) -> AtLeast:
    """A read that covers at least the entry at `index`: say, of one's own last write."""
    return AtLeast(index)


Consistency = Union[Freshness, AtLeast]
"""How fresh a read must be: `LINEARIZABLE`, `LEASE`, `STALE`, or `at_least(index)`."""


class Role(enum.Enum):
    """What a server is in a group."""

    FORMING = "forming"
    """The group is not formed yet, or not joined."""
    FOLLOWER = "follower"
    """Follows a leader, or waits for one."""
    PRE_CANDIDATE = "pre-candidate"
    """Asks whether it would be voted for."""
    CANDIDATE = "candidate"
    """Asks for votes."""
    LEADER = "leader"
    """Leads."""


class DigestVerdict(enum.Enum):
    """What came of comparing replicas."""

    AGREED = "agreed"
    """A majority agrees, and nobody who answered differs."""
    DIVERGED = "diverged"
    """A majority agrees, and others differ: the group stops on their servers, for good."""
    SPLIT = "split"
    """Replicas differ, and no majority agrees on anything: nobody knows who is right, and nobody is stopped."""
    UNDECIDED = "undecided"
    """Nobody differs, and those who gave a digest are no majority."""


class DigestAnswer(enum.Enum):
    """What a replica did when it was asked what its state comes down to."""

    GIVEN = "given"
    """It gave a digest."""
    UNABLE = "unable"
    """It cannot say: its state machine gives none, or its state is not from before the entry."""
    MISSING = "missing"
    """It did not answer in time."""


@dataclass(frozen=True)
class ReplicaDigest:
    """What one replica said in a comparison."""

    server: int
    answer: DigestAnswer
    digest: Optional[bytes]
    """With `GIVEN`: what `StateMachine.digest` returned, filled up with zeros to 32 bytes."""
    sessions: int
    """With `GIVEN`: the CRC of the group's sessions, which the engine keeps and which are compared as well; else 0."""
    odd: bool
    """It said something else than the majority: the group stops there."""


@dataclass(frozen=True)
class DigestCheck:
    """What came of comparing the replicas of a group at one entry."""

    index: int
    """The entry: each digest is of the state with everything through it applied, and nothing behind it."""
    verdict: DigestVerdict
    replicas: tuple[ReplicaDigest, ...]
    """What each member said, in order of id."""


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
    outgoing_voters: tuple[int, ...]
    """The voters before a change that is joint: they still count as well."""
    highest_id: int
    """The highest id that the group ever used: a server that is added needs a higher one."""
    settings: Optional[GroupSettings]
    """What every replica computes by; `None` before the group is formed."""
    change: Optional[Change]
    """The change of members in progress."""
    learners: dict[int, int]
    """At the leader: the last entry that each learner holds durably."""
    transferring_to: Optional[int]
    """To whom this leader is handing over."""
    removed: Optional[int]
    """The entry that removed this server from the group, as far as it knows: it campaigns no more."""
    digest_check: Optional[DigestCheck]
    """The latest comparison of replicas that this server knows of since its start: one that it made as the leader, or one in
    which they differ, which the log tells."""
    diverged: Optional[int]
    """This server's state is not that of a majority: the entry at which they were compared. The group stopped for it."""


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
    DIVERGED = "diverged"
    """Replicas differ. Where a majority agrees, the group stops next on the servers of those who differ."""
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
    check: Optional[DigestCheck] = None
    """With `DIVERGED`."""
