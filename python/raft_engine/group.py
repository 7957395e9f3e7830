"""One group of an open server: proposals, queries, snapshots, status; for threads, and for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Optional, Union

from . import errors
from . import _native
from ._bridge import Bridge, check_of, members_of, refuse_in_callback
from ._requests import Awaited, Batch, Futures, Outcome, Waited
from .types import (
    LINEARIZABLE,
    AddMember,
    Applied,
    AtLeast,
    Change,
    Consistency,
    DigestCheck,
    Freshness,
    GroupSettings,
    GroupStatus,
    MemberChange,
    RemoveMember,
    Role,
    Session,
    SessionKey,
    SetAddress,
    SetContext,
    SetPriority,
    SetRole,
    SetSettings,
)

if TYPE_CHECKING:
    from .server import Server

__all__ = ["AsyncGroup", "Group"]

Bytes = Union[bytes, bytearray, memoryview]

Keys = Sequence[Optional[SessionKey]]

_NO_SESSION = SessionKey(0, 0, 0)


class Group:
    """One group of an open server. Any thread may use it; it outlives the server's close, after which it refuses.

    Methods that wait take a `timeout` in seconds (None: no limit) and raise `InCallback` on a thread that is in a callback.
    A request ends with its result, with an exception below `NotApplied` (it was certainly not applied), or with one below
    `Unknown` (it may or may not be, now or later; a timeout is one of them).
    """

    def __init__(self, server: Server, native: _native.Group, bridge: Bridge, id: int) -> None:
        """Made by `Server.start_group`."""
        self._native = native
        self._bridge = bridge
        self.server: Server = server
        """The server that it is on."""
        self.group_id: int = id
        """The group's id in its cluster."""

    @property
    def aio(self) -> AsyncGroup:
        """The same methods for asyncio."""
        return AsyncGroup(self)

    # ---- Proposals ----

    def propose(self, data: Bytes, timeout: Optional[float] = None, *, key: Optional[SessionKey] = None) -> Applied:
        """Proposes one entry, and waits until it is applied here. Where another server leads, it is asked, once.

        With the `key` of a session (`Session.next_key`) it is applied once, however often and wherever it is proposed, and
        every time that it ends as applied it has the first result. So what ended below `Unknown` may be proposed again with
        its key, but for `SessionExpired` and `ReplyForgotten`.
        """
        refuse_in_callback("propose")
        batch = Waited(1)
        self._propose(batch, [data], _keys(key))
        return one(batch.wait(timeout))

    def propose_many(
        self, items: Iterable[Bytes], timeout: Optional[float] = None, *, keys: Keys = ()
    ) -> list[Outcome]:
        """Proposes a batch by one call of the engine, and waits until every entry of it has ended.

        Gives one outcome an item, in order: an `Applied`, or the exception that `propose` would raise, not raised. Raises
        where the batch was refused as a whole: then nothing of it was submitted. `keys` has one an item, or None for what is
        of no session; or nothing at all.
        """
        refuse_in_callback("propose_many")
        items = list(items)
        batch = Waited(len(items))
        if items:
            self._propose(batch, items, keys)
            return batch.wait(timeout)
        return []

    def submit(self, data: Bytes, *, key: Optional[SessionKey] = None) -> Future[Applied]:
        """Proposes one entry and never waits. Its end comes by the future, whose callbacks run as callbacks do."""
        return self.submit_many([data], keys=_keys(key))[0]

    def submit_many(self, items: Iterable[Bytes], *, keys: Keys = ()) -> list[Future[Applied]]:
        """Proposes a batch by one call of the engine and never waits: a future an item, which cannot be cancelled.

        Also from a callback. Raises where the batch was refused: then nothing of it was submitted.
        """
        items = list(items)
        batch = Futures(len(items))
        if items:
            self._propose(batch, items, keys)
        return batch.futures

    # ---- Sessions ----

    def open_session(self, timeout: Optional[float] = None) -> Session:
        """Opens a session, under which commands that are proposed again are applied once.

        It lasts until it is closed, is not used for as long as the group's settings say, or is the one used least recently
        where others are opened and there are too many. Where the outcome is unknown, open another one.
        """
        refuse_in_callback("open_session")
        batch = Waited(1)
        self._bridge.requests.submit(batch, self._native.open_session)
        return _session(batch.wait(timeout))

    def renew_session(self, session: int, timeout: Optional[float] = None) -> None:
        """Uses a session without a command, so that it does not expire. May be done again, whatever the outcome."""
        refuse_in_callback("renew_session")
        batch = Waited(1)
        self._bridge.requests.submit(batch, lambda tag: self._native.renew_session(tag, session))
        one(batch.wait(timeout))

    def close_session(self, session: int, timeout: Optional[float] = None) -> None:
        """Ends a session, if it has not ended. May be done again, whatever the outcome."""
        refuse_in_callback("close_session")
        batch = Waited(1)
        self._bridge.requests.submit(batch, lambda tag: self._native.close_session(tag, session))
        one(batch.wait(timeout))

    @contextlib.contextmanager
    def session(self, timeout: Optional[float] = None) -> Iterator[Session]:
        """A session for the length of a `with`. Where it cannot be closed at the end, it is left to expire."""
        session = self.open_session(timeout)
        try:
            yield session
        finally:
            with contextlib.suppress(errors.NotApplied, errors.Unknown):
                self.close_session(session.id, timeout)

    # ---- Reads ----

    def query(
        self, request: Bytes, consistency: Consistency = LINEARIZABLE, timeout: Optional[float] = None
    ) -> bytes:
        """Asks the state machine at this server, as fresh as asked for."""
        refuse_in_callback("query")
        batch = Waited(1)
        self._query(batch, request, consistency)
        return one(batch.wait(timeout)).result

    def read(self, consistency: Consistency = LINEARIZABLE, timeout: Optional[float] = None) -> int:
        """Waits until the state machine is as fresh as asked for; says through which index it then was."""
        refuse_in_callback("read")
        batch = Waited(1)
        self._read(batch, consistency)
        return one(batch.wait(timeout)).index

    # ---- The group ----

    def snapshot(self, timeout: Optional[float] = None) -> int:
        """Takes a snapshot now, and waits until it is durable; says which index it covers.

        Raises `Busy` where one is being taken or there is nothing new, and `Failed` where the state machine failed.
        """
        refuse_in_callback("snapshot")
        batch = Waited(1)
        self._bridge.requests.submit(batch, self._native.snapshot)
        return one(batch.wait(timeout)).index

    def change_members(
        self, changes: Iterable[MemberChange], patience: float = 60.0, timeout: Optional[float] = None
    ) -> int:
        """Changes the members of the group, at its leader, and waits until that is done; says by which entry.

        All of `changes` are one operation with one end. Who is added is met at its address, gets the log while it does not
        vote, and is promoted once it has caught up; then the voters change by joint consensus. After `patience` seconds it
        is given up where those who are to vote were not met or have not caught up; never once it is past that.

        Raises `Invalid` (it asks for what cannot be), `GivenUp`, `Cancelled`, `NotLeader`, `Busy` (another change is in
        progress), and `Unknown` where leadership was lost: the next leader goes on with it, and the status tells.
        """
        refuse_in_callback("change_members")
        batch = Waited(1)
        self._change_members(batch, changes, patience)
        return one(batch.wait(timeout)).index

    def cancel_change(self, timeout: Optional[float] = None) -> int:
        """Gives up the change of members in progress, at the leader: whom it added goes again. Says by which entry.

        Raises `Invalid` where there is none, or where it is past the point of no return.
        """
        refuse_in_callback("cancel_change")
        batch = Waited(1)
        self._bridge.requests.submit(batch, self._native.cancel_change)
        return one(batch.wait(timeout)).index

    def transfer_leadership(
        self, to: Optional[int] = None, patience: float = 10.0, timeout: Optional[float] = None
    ) -> None:
        """Hands leadership over, at the leader, to this voter or to the best one, and waits until it leads.

        Proposals end as `Transferring` meanwhile, which is certainly not applied. After `patience` seconds it is given up,
        and this server goes on leading. Raises `Invalid`, `GivenUp`, `NotLeader`, `Busy` and `Unknown`.
        """
        refuse_in_callback("transfer_leadership")
        batch = Waited(1)
        self._transfer_leadership(batch, to, patience)
        one(batch.wait(timeout))

    def check_digests(self, patience: float = 10.0, timeout: Optional[float] = None) -> DigestCheck:
        """Compares the replicas of the group, at its leader, and says what came of it.

        An entry is appended, at which each replica says what its state comes down to (`StateMachine.digest`); whoever has not
        answered after `patience` seconds is not waited for. Where a majority of the voters agrees and others differ, the
        group stops on the servers of these, for good, be it the leader or a learner; where no majority agrees, all are told
        (`NoticeKind.DIVERGED`) and nobody is stopped.

        Raises `NotLeader`, `Busy` (another comparison waits), `GivenUp`, and `Unknown` where leadership was lost: it may be
        asked again whatever the outcome.
        """
        refuse_in_callback("check_digests")
        batch = Waited(1)
        self._check_digests(batch, patience)
        return _check(batch.wait(timeout))

    def wait_for_leader(self, timeout: Optional[float] = None) -> int:
        """Waits until this server knows who leads, which may be itself; says who."""
        refuse_in_callback("wait_for_leader")
        batch = Waited(1)
        self._bridge.wait_for_leader(batch)
        return one(batch.wait(timeout)).index

    def status(self) -> GroupStatus:
        """The group on this server, now. Never waits. Raises `Closed` once the group is gone."""
        status = self._native.status()
        if status is None:
            raise errors.Closed("the group is closed")
        status["role"] = Role(status["role"])
        status["members"] = members_of(status["members"])
        status["outgoing_voters"] = tuple(status["outgoing_voters"])
        if status["settings"] is not None:
            status["settings"] = GroupSettings(*status["settings"])
        if status["change"] is not None:
            target, deadline = status["change"]
            status["change"] = Change(members_of(target), deadline, bool(status["outgoing_voters"]))
        if status["digest_check"] is not None:
            status["digest_check"] = check_of(status["digest_check"])
        return GroupStatus(**status)

    @property
    def failure(self) -> Optional[BaseException]:
        """The exception of a callback that stopped the group, with its traceback, if there was one."""
        return self._bridge.failure

    # ---- Shared with asyncio ----

    def _propose(self, batch: Batch, items: list[Bytes], keys: Keys) -> None:
        if keys and len(keys) != len(items):
            raise ValueError(f"{len(keys)} keys for {len(items)} items")
        known = [_NO_SESSION if key is None else key for key in keys]
        self._bridge.requests.submit(batch, lambda tag: self._native.propose(tag, items, known))

    def _query(self, batch: Batch, request: Bytes, consistency: Consistency) -> None:
        how, index = _consistency(consistency)
        self._bridge.requests.submit(batch, lambda tag: self._native.query(tag, request, how, index))

    def _change_members(self, batch: Batch, changes: Iterable[MemberChange], patience: float) -> None:
        rows = [_change(change) for change in changes]
        self._bridge.requests.submit(batch, lambda tag: self._native.change_members(tag, rows, patience))

    def _transfer_leadership(self, batch: Batch, to: Optional[int], patience: float) -> None:
        self._bridge.requests.submit(batch, lambda tag: self._native.transfer_leadership(tag, to, patience))

    def _check_digests(self, batch: Batch, patience: float) -> None:
        self._bridge.requests.submit(batch, lambda tag: self._native.check_digests(tag, patience))

    def _read(self, batch: Batch, consistency: Consistency) -> None:
        how, index = _consistency(consistency)
        self._bridge.requests.submit(batch, lambda tag: self._native.read(tag, how, index))


class AsyncGroup:
    """A group's methods for asyncio. Each submits *when it is called*, so order is kept, and returns a future to await.

    Everything that fails for a reason of the engine's is raised by the await. A cancelled future ends the wait, not the
    request. The loop is woken once for all requests that end together.
    """

    def __init__(self, group: Group) -> None:
        """Made by `Group.aio`."""
        self._group = group

    def propose(
        self, data: Bytes, timeout: Optional[float] = None, *, key: Optional[SessionKey] = None
    ) -> asyncio.Future[Applied]:
        """As `Group.propose`."""
        return self._start(Awaited(1, one, timeout), lambda batch: self._group._propose(batch, [data], _keys(key)))

    def propose_many(
        self, items: Iterable[Bytes], timeout: Optional[float] = None, *, keys: Keys = ()
    ) -> asyncio.Future[list[Outcome]]:
        """As `Group.propose_many`."""
        items = list(items)
        batch = Awaited(len(items), list, timeout)
        if not items:
            batch.resolve()
            return batch.future
        return self._start(batch, lambda batch: self._group._propose(batch, items, keys))

    def open_session(self, timeout: Optional[float] = None) -> asyncio.Future[Session]:
        """As `Group.open_session`."""
        group = self._group
        return self._start(
            Awaited(1, _session, timeout), lambda batch: group._bridge.requests.submit(batch, group._native.open_session)
        )

    def renew_session(self, session: int, timeout: Optional[float] = None) -> asyncio.Future[None]:
        """As `Group.renew_session`."""
        group = self._group
        return self._start(
            Awaited(1, _nothing, timeout),
            lambda batch: group._bridge.requests.submit(batch, lambda tag: group._native.renew_session(tag, session)),
        )

    def close_session(self, session: int, timeout: Optional[float] = None) -> asyncio.Future[None]:
        """As `Group.close_session`."""
        group = self._group
        return self._start(
            Awaited(1, _nothing, timeout),
            lambda batch: group._bridge.requests.submit(batch, lambda tag: group._native.close_session(tag, session)),
        )

    @contextlib.asynccontextmanager
    async def session(self, timeout: Optional[float] = None) -> AsyncIterator[Session]:
        """As `Group.session`, for `async with`."""
        session = await self.open_session(timeout)
        try:
            yield session
        finally:
            with contextlib.suppress(errors.NotApplied, errors.Unknown):
                await self.close_session(session.id, timeout)

    def query(
        self, request: Bytes, consistency: Consistency = LINEARIZABLE, timeout: Optional[float] = None
    ) -> asyncio.Future[bytes]:
        """As `Group.query`."""
        batch = Awaited(1, lambda outcomes: one(outcomes).result, timeout)
        return self._start(batch, lambda batch: self._group._query(batch, request, consistency))

    def read(
        self, consistency: Consistency = LINEARIZABLE, timeout: Optional[float] = None
    ) -> asyncio.Future[int]:
        """As `Group.read`."""
        batch = Awaited(1, _index, timeout)
        return self._start(batch, lambda batch: self._group._read(batch, consistency))

    def snapshot(self, timeout: Optional[float] = None) -> asyncio.Future[int]:
        """As `Group.snapshot`."""
        group = self._group
        return self._start(
            Awaited(1, _index, timeout), lambda batch: group._bridge.requests.submit(batch, group._native.snapshot)
        )

    def change_members(
        self, changes: Iterable[MemberChange], patience: float = 60.0, timeout: Optional[float] = None
    ) -> asyncio.Future[int]:
        """As `Group.change_members`."""
        batch = Awaited(1, _index, timeout)
        return self._start(batch, lambda batch: self._group._change_members(batch, changes, patience))

    def cancel_change(self, timeout: Optional[float] = None) -> asyncio.Future[int]:
        """As `Group.cancel_change`."""
        group = self._group
        return self._start(
            Awaited(1, _index, timeout), lambda batch: group._bridge.requests.submit(batch, group._native.cancel_change)
        )

    def transfer_leadership(
        self, to: Optional[int] = None, patience: float = 10.0, timeout: Optional[float] = None
    ) -> asyncio.Future[None]:
        """As `Group.transfer_leadership`."""
        batch = Awaited(1, lambda outcomes: one(outcomes) and None, timeout)
        return self._start(batch, lambda batch: self._group._transfer_leadership(batch, to, patience))

    def check_digests(self, patience: float = 10.0, timeout: Optional[float] = None) -> asyncio.Future[DigestCheck]:
        """As `Group.check_digests`."""
        batch = Awaited(1, _check, timeout)
        return self._start(batch, lambda batch: self._group._check_digests(batch, patience))

    def wait_for_leader(self, timeout: Optional[float] = None) -> asyncio.Future[int]:
        """As `Group.wait_for_leader`."""
        return self._start(Awaited(1, _index, timeout), self._group._bridge.wait_for_leader)

    @staticmethod
    def _start(batch: Awaited, submit: Callable[[Batch], None]) -> asyncio.Future[Any]:
        try:
            submit(batch)
        except errors.RaftError as error:
            batch.future.set_exception(error)
        except BaseException:
            batch.future.cancel()
            raise
        return batch.future


def one(outcomes: list[Outcome]) -> Applied:
    """The outcome of a batch of one: raised, if it is an exception."""
    [outcome] = outcomes
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _nothing(outcomes: list[Outcome]) -> None:
    one(outcomes)


def _check(outcomes: list[Outcome]) -> DigestCheck:
    # The native part gives a row in place of the bytes of a result.
    row: Any = one(outcomes).result
    return check_of(row)


def _session(outcomes: list[Outcome]) -> Session:
    return Session(one(outcomes).index)


def _keys(key: Optional[SessionKey]) -> Keys:
    return () if key is None else (key,)


def _index(outcomes: list[Outcome]) -> int:
    return one(outcomes).index


def _consistency(consistency: Consistency) -> tuple[str, int]:
    if isinstance(consistency, AtLeast):
        return "at-least", consistency.index
    if isinstance(consistency, Freshness):
        return consistency.value, 0
    raise TypeError(f"{consistency!r} is no consistency: expected LINEARIZABLE, LEASE, STALE or at_least(index)")


def settings_row(settings: GroupSettings) -> tuple[float, float, int, int]:
    """Settings in the native part's words."""
    return settings.lease, settings.session_expiry, settings.max_sessions, settings.session_reply_bytes


def _change(change: MemberChange) -> tuple[Any, ...]:
    """A change in the native part's words: kind, id, role, priority, address, context, settings."""
    if isinstance(change, AddMember):
        return "add", change.id, change.role.value, change.priority, change.address, change.context, None
    if isinstance(change, RemoveMember):
        return "remove", change.id, "", 0, "", b"", None
    if isinstance(change, SetRole):
        return "role", change.id, change.role.value, 0, "", b"", None
    if isinstance(change, SetPriority):
        return "priority", change.id, "", change.priority, "", b"", None
    if isinstance(change, SetAddress):
        return "address", change.id, "", 0, change.address, b"", None
    if isinstance(change, SetContext):
        return "context", change.id, "", 0, "", change.context, None
    if isinstance(change, SetSettings):
        return "settings", 0, "", 0, "", b"", settings_row(change.settings)
    raise TypeError(f"{change!r} is no change of members: expected AddMember, RemoveMember, SetRole, ...")
