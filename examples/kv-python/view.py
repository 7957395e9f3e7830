"""What a request may know of its connection, its server and the cluster, and how a client is sent elsewhere.

Knows no sockets and no Raft: whoever owns the server says by `ServerView.refresh` how things stand.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

import resp


class SessionUse(enum.Enum):
    """What a request has to do with a session."""

    NOTHING = 0
    COMMAND = 1  # it is one of its commands
    OPEN = 2
    RENEW = 3
    CLOSE = 4


@dataclass(frozen=True)
class SessionPart:
    """The part of a request that concerns a session."""

    use: SessionUse = SessionUse.NOTHING
    id: int = 0
    sequence: int = 0


@dataclass
class ClientView:
    """What a command may know and change of its connection."""

    id: int
    version: int = 2
    name: bytes = b""
    session: SessionPart = SessionPart()
    """Of the request that was routed last."""


@dataclass(frozen=True)
class MemberView:
    """One server of the cluster."""

    id: int
    raft_address: str
    resp_address: str  # empty: no client is sent there
    role: str = "voter"  # or "learner"
    becomes: str = "voter"  # by the change in progress: the same, or "none" if it leaves
    priority: int = 1
    durable: int = 0  # at the leader, of a learner: how much of the log it holds


@dataclass
class ServerView:
    """What a command may tell of the server. `refresh` brings it up to date."""

    cluster: str
    id: int
    members: tuple[MemberView, ...]
    refresh: Callable[[ServerView], None] = lambda view: None
    language: str = "python"
    role: str = "forming"
    term: int = 0
    leader: int = 0  # 0: not known
    last: int = 0
    durable: int = 0
    commit: int = 0
    applied: int = 0
    snapshot: int = 0
    log_writes: int = 0
    disk: str = "unknown"
    stopped: str = ""
    change: str = "none"  # of the members: or "learning" or "joint"
    transferring_to: int = 0  # 0: leadership is not being handed over
    removed: int = 0  # the entry that removed this server from the group; 0: none
    keys: int = 0
    digest: str = "0" * 16
    clients: int = 0
    requests: int = 0
    uptime_seconds: int = 0

    def member(self, id: int) -> MemberView | None:
        """The member with this id."""
        return next((member for member in self.members if member.id == id), None)

    def client_member(self, id: int) -> MemberView | None:
        """The member with this id, if clients may dial it."""
        member = self.member(id)
        return member if member is not None and member.resp_address else None

    def leader_first(self) -> list[MemberView]:
        """The members that clients may dial, the one that owns all slots first: the leader, which must be known."""
        members = [member for member in self.members if member.resp_address]
        return sorted(members, key=lambda member: (member.id != self.leader, member.id))


def split_address(address: str) -> tuple[str, int]:
    """Splits host:port. Raises ValueError if it is none."""
    host, colon, port = address.rpartition(":")
    number = resp.to_integer(port.encode())
    if not colon or not host or number is None or not 0 <= number <= 65535:
        raise ValueError(f"{address}: not HOST:PORT")
    if len(host) > 2 and host[0] == "[" and host[-1] == "]":
        host = host[1:-1]
    return host, number


def client_address(member: MemberView) -> str:
    """An address as clients want it: of IPv6 ones, without the brackets."""
    host, port = split_address(member.resp_address)
    return f"{host}:{port}"


def not_leader(server: ServerView, leader: int) -> bytes:
    """Why a request that only the leader can answer was certainly not applied: MOVED or CLUSTERDOWN."""
    member = None if leader == server.id else server.client_member(leader)
    if member is None and leader not in (0, server.id):
        server.refresh(server)  # It may be a member since a moment ago.
        member = server.client_member(leader)
    if member is None:
        return resp.error("CLUSTERDOWN no leader is known: there is an election, or no majority is connected")
    return resp.error(f"MOVED 0 {client_address(member)}")
