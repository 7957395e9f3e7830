"""An open server: its threads, its groups, its end."""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
import weakref
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Optional, Union

from . import errors
from . import _native
from ._bridge import Bridge, is_in_callback, refuse_in_callback
from .group import Group, settings_row
from .machine import StateMachine
from .types import GroupSettings, Member, MemberRole, ServerStatus

__all__ = ["Node", "Server"]

Settings = Mapping[str, Union[str, int]]

# How much work one call of the native part may do, and how long it may wait for it: it wakes by itself when there is
# some, and at close.
_WORK_PER_CALL = 1024
_WAIT_SECONDS = 3600.0


def _dispatch(native: _native.Server) -> None:
    while native.dispatch(_WORK_PER_CALL, _WAIT_SECONDS):
        pass


class Server:
    """One server of a cluster: a data directory, a listening address, and the groups that were started on it.

    The engine's own threads do the consensus; state machines are called by a thread of Python, `raft-dispatch`. Close it, or
    use it in a `with` or `async with` statement. What is left open is closed when the interpreter ends. After a fork it
    lives in the parent only: in the child, everything raises `Forked`.
    """

    def __init__(
        self,
        *,
        cluster: str,
        id: int,
        data_dir: Union[str, os.PathLike[str]],
        listen: str,
        settings: Optional[Settings] = None,
    ) -> None:
        """Opens the data directory, recovers its log, listens, and starts the threads. Waits while it reads the log.

        cluster: the name that all servers of the cluster share, 1 to 64 bytes.
        id: this server's id: never 0, and never used again for another directory.
        data_dir: where its log and its snapshots are; made if it is missing (not its parents).
        listen: `host:port`; port 0 takes a free one (see `ServerStatus.listen`).
        settings: any setting of the engine by its name, such as `{"election_timeout_ms": 1000}`.

        Raises `ConfigError` and `OpenError`.
        """
        words = [(key, str(value)) for key, value in (settings or {}).items()]
        native = _native.Server.open(cluster, id, os.fsdecode(data_dir), listen, words)
        self._native = native
        self._bridges: list[Bridge] = []
        thread = threading.Thread(target=_dispatch, args=(native,), name="raft-dispatch", daemon=True)
        try:
            thread.start()
        except BaseException:
            native.close()
            raise
        self._thread = thread
        self._finalizer = weakref.finalize(self, _finalize, native, thread, self._bridges, os.getpid())

    def start_group(
        self,
        state_machine: StateMachine,
        members: Optional[Iterable[Member]] = None,
        group: int = 1,
        *,
        group_settings: Optional[GroupSettings] = None,
        join: Optional[Iterable[str]] = None,
    ) -> Group:
        """Starts a group.

        members: forms a new group with these, of whom this server is one; every one of them must be started with the same
            list. Where the directory holds the group already, the same list continues it. None: continues it.
        group: its id in the cluster.
        group_settings: with `members`, what every replica computes by; the same on each of them.
        join: in place of `members`: where some members of a group that runs elsewhere are dialled (`host:port`; they need
            not all be up, nor be all). The server waits to be added by `change_members` at the leader. Where the directory
            holds the group already, it continues it.

        Waits until the engine has taken it, not until it is formed. Raises `StartError`, `Closed` and `InCallback`.
        """
        refuse_in_callback("start_group")
        if not isinstance(state_machine, StateMachine):
            raise TypeError(f"state_machine is a {type(state_machine).__qualname__}: expected a StateMachine")
        kind = type(state_machine)
        if kind.apply is StateMachine.apply and kind.apply_entry is StateMachine.apply_entry:
            raise TypeError(f"{kind.__qualname__} overrides neither `apply` nor `apply_entry`")
        applied = state_machine.applied_index()
        if members is not None and join is not None:
            raise ValueError("`members` form a new group, and `join` names some of one that runs: give one of them")
        if group_settings is not None and members is None:
            raise ValueError("`group_settings` go with `members`: a group that exists has its own (`SetSettings`)")
        rows = None if members is None else [_row(member) for member in members]
        contacts = None if join is None else list(join)
        bridge = Bridge(state_machine)
        words = settings_row(group_settings or GroupSettings())
        native = self._native.start_group(group, bridge, applied, rows, words, contacts)
        self._bridges.append(bridge)
        return Group(self, native, bridge, group)

    def status(self) -> ServerStatus:
        """The server, now. Never waits; also after close."""
        status = self._native.status()
        status["connected_peers"] = tuple(status["connected_peers"])
        return ServerStatus(**status)

    def close(self) -> None:
        """Takes nothing more, waits for the callback in progress, and ends every open request and every thread.

        Everything acknowledged is durable anyway. Closing again does nothing. Raises `InCallback` and `Forked`.
        """
        refuse_in_callback("close")
        _close(self._native, self._thread, self._bridges)
        self._finalizer.detach()

    async def aclose(self) -> None:
        """As `close`, without holding the event loop."""
        refuse_in_callback("close")
        await asyncio.get_running_loop().run_in_executor(None, self.close)

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        finalizer = getattr(self, "_finalizer", None)
        if finalizer is not None and finalizer.alive:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)


class Node(Group):
    """A server with one group: the common case. Every method of `Group`, and `close`."""

    def __init__(
        self,
        *,
        cluster: str,
        id: int,
        data_dir: Union[str, os.PathLike[str]],
        listen: str,
        state_machine: StateMachine,
        members: Optional[Iterable[Member]] = None,
        group: int = 1,
        settings: Optional[Settings] = None,
        group_settings: Optional[GroupSettings] = None,
        join: Optional[Iterable[str]] = None,
    ) -> None:
        """Opens a server and starts a group on it: the arguments of `Server` and of `Server.start_group`."""
        server = Server(cluster=cluster, id=id, data_dir=data_dir, listen=listen, settings=settings)
        try:
            started = server.start_group(state_machine, members, group, group_settings=group_settings, join=join)
        except BaseException:
            server.close()
            raise
        super().__init__(server, started._native, started._bridge, group)

    def close(self) -> None:
        """As `Server.close`."""
        self.server.close()

    async def aclose(self) -> None:
        """As `Server.aclose`."""
        await self.server.aclose()

    def __enter__(self) -> Node:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    async def __aenter__(self) -> Node:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        await self.aclose()


def _row(member: Member) -> tuple[int, str, bytes, int]:
    if member.role is not MemberRole.VOTER:
        raise ValueError(f"member {member.id}: who forms a group votes")
    return member.id, member.address, member.context, member.priority


def _close(native: _native.Server, thread: threading.Thread, bridges: list[Bridge]) -> None:
    native.close()
    thread.join()
    for bridge in bridges:
        bridge.end("the server is closed")


def _finalize(native: _native.Server, thread: threading.Thread, bridges: list[Bridge], process: int) -> None:
    """Closes a server that was forgotten: when it is collected, on whatever thread that happens, or at exit."""
    if os.getpid() != process:
        return
    if is_in_callback() or threading.current_thread() is thread:
        threading.Thread(target=_close, args=(native, thread, bridges), name="raft-close", daemon=True).start()
    else:
        _close(native, thread, bridges)
