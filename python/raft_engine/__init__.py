"""A Raft consensus engine in your process: replicated state machines in Python.

    class Counter(raft_engine.StateMachine): ...

    with raft_engine.Node(cluster="demo", id=1, data_dir="data", listen="127.0.0.1:7001",
                          members=[raft_engine.Member(1, "127.0.0.1:7001")], state_machine=Counter()) as node:
        node.wait_for_leader()
        node.propose(b"...").result

Start with `StateMachine` and `Node`. `Server` and `Group` are its two halves. `errors` has every exception; the commonest are
here too.
"""

from . import errors
from ._native import __version__
from .errors import (
    Busy,
    Closed,
    ConfigError,
    DirectoryLocked,
    DiskFull,
    Failed,
    Forked,
    Forming,
    InCallback,
    LeadershipLost,
    NotApplied,
    NotLeader,
    OpenError,
    Overloaded,
    RaftError,
    ReplyForgotten,
    SessionExpired,
    StartError,
    Stopped,
    TimedOut,
    TooLarge,
    Unknown,
    UnknownClosed,
)
from .group import AsyncGroup, Group
from .machine import Entry, SnapshotReader, StateMachine
from .server import Node, Server
from .types import (
    LINEARIZABLE,
    STALE,
    Applied,
    AtLeast,
    Consistency,
    Freshness,
    GroupStatus,
    Member,
    Notice,
    NoticeKind,
    Role,
    ServerStatus,
    Session,
    SessionKey,
    at_least,
)

__all__ = [
    "LINEARIZABLE",
    "STALE",
    "Applied",
    "AsyncGroup",
    "AtLeast",
    "Busy",
    "Closed",
    "ConfigError",
    "Consistency",
    "DirectoryLocked",
    "DiskFull",
    "Entry",
    "Failed",
    "Forked",
    "Forming",
    "Freshness",
    "Group",
    "GroupStatus",
    "InCallback",
    "LeadershipLost",
    "Member",
    "Node",
    "NotApplied",
    "NotLeader",
    "Notice",
    "NoticeKind",
    "OpenError",
    "Overloaded",
    "RaftError",
    "ReplyForgotten",
    "Role",
    "Server",
    "ServerStatus",
    "Session",
    "SessionExpired",
    "SessionKey",
    "SnapshotReader",
    "StartError",
    "StateMachine",
    "Stopped",
    "TimedOut",
    "TooLarge",
    "Unknown",
    "UnknownClosed",
    "__version__",
    "at_least",
    "errors",
]
