"""From requests to Raft and back: what all clients asked within one turn of the event loop becomes one proposed batch
and one linearizable read.
"""

from __future__ import annotations

import asyncio
import enum
from typing import TYPE_CHECKING, Any

import raft_engine

import machine
import resp
from operation import Kind, Operation
from options import Options
from replica import Replica
from view import ServerView, SessionPart, SessionUse, not_leader

if TYPE_CHECKING:
    from connection import Connection

BATCH_BYTES_MAX = 1 << 20
# What an item costs beside its command, at most.
ITEM_EXTRA_BYTES = 64
# Reads under way. What comes meanwhile gathers for the next one.
READS_IN_FLIGHT_MAX = 4
# A server that is added has so long to be met and to catch up, and a voter so long to take leadership over.
ADD_PATIENCE_SECONDS = 60.0
TRANSFER_PATIENCE_SECONDS = 10.0
# And who does not say by then what its state comes down to is not waited for.
DIGEST_PATIENCE_SECONDS = 5.0


NO_SESSION = SessionPart()


class Place(enum.Enum):
    """Where a request stands."""

    ANSWERED = 1
    IN_LOG = 2  # proposed, or about to be
    IN_READ = 3  # waits until the state is fresh enough
    IN_OPERATION = 5  # an operator's, being done; counted with the reads
    READY = 4  # the state is: looked up when it is this request's turn and there is room for the answer


class Request:
    """One request that could not be answered at once."""

    __slots__ = ("answer", "command", "connection", "cost_bytes", "is_write", "place", "session", "version")

    def __init__(self, connection: Connection, version: int, place: Place) -> None:
        self.connection = connection
        self.version = version
        self.place = place
        self.is_write = False
        self.session = NO_SESSION
        self.command = b""
        self.cost_bytes = 0
        self.answer = b""


class Submission:
    """The requests of all connections on their way through Raft."""

    def __init__(self, replica: Replica, server: ServerView, options: Options) -> None:
        queue_bytes = options.queue_bytes
        self.leads = False
        self.is_forwarding = options.is_forwarding  # where another server leads, the engine asks it
        self.open_count = 0
        self._replica = replica
        self._server = server
        self._entry_bytes_max = options.max_entry_bytes
        self._batch_bytes_max = min(BATCH_BYTES_MAX, queue_bytes // 2)
        self._group: raft_engine.AsyncGroup | None = None
        self._loop = asyncio.get_running_loop()
        self._is_scheduled = False
        self._batch: list[Request] = []
        self._batch_bytes = 0
        self._open_bytes = 0
        self._open_cost_bytes = 0  # as `_batch_bytes` counts
        self._open_cost_bytes_max = queue_bytes // 2
        self._waiting: dict[Connection, None] = {}  # in the order in which they came
        self._gathering: list[Request] = []
        self._reads_in_flight = 0

    def attach(self, group: raft_engine.AsyncGroup) -> None:
        """The group that it all goes to, once it is started."""
        self._group = group

    # ---- In ----

    def has_room(self, connection: Connection, command: bytes) -> bool:
        """Whether another command may be proposed; else the connection goes on when some have been completed."""
        cost_bytes = len(command) + ITEM_EXTRA_BYTES
        if self._open_cost_bytes == 0 or self._open_cost_bytes + cost_bytes <= self._open_cost_bytes_max:
            return True
        self._waiting[connection] = None
        return False

    def write(self, request: Request) -> None:
        """Takes a request to be proposed, or answers it with why not."""
        if not self.leads and not self.is_forwarding:
            request.connection.answered(request, not_leader(self._server, self._server.leader))
            return
        length = len(request.command)
        if length > self._entry_bytes_max:
            text = "ERR the request is longer than an entry may be (max_entry_bytes)"
            request.connection.answered(request, resp.error(text))
            return
        if request.session.use in (SessionUse.OPEN, SessionUse.RENEW, SessionUse.CLOSE):
            self._session(request)
            return
        if self._batch and self._batch_bytes + length + ITEM_EXTRA_BYTES > self._batch_bytes_max:
            self._propose()
        self._batch.append(request)
        self._batch_bytes += length + ITEM_EXTRA_BYTES
        self._open_bytes += length
        self._open_cost_bytes += length + ITEM_EXTRA_BYTES
        self.open_count += 1
        self._schedule()

    def read(self, request: Request) -> None:
        """Takes a request to be read, or answers it with why not."""
        if not self.leads and not self.is_forwarding:
            request.connection.answered(request, not_leader(self._server, self._server.leader))
            return
        self._gathering.append(request)
        self.open_count += 1
        self._schedule()

    def operate(self, request: Request, operation: Operation) -> None:
        """Has an operation done, or answers it with why not."""
        if not self.leads and operation.kind is not Kind.SNAPSHOT:
            request.connection.answered(request, not_leader(self._server, self._server.leader))
            return
        future = self._begin(operation)
        future.add_done_callback(lambda future: self._operated(request, operation, future))

    def _begin(self, operation: Operation) -> asyncio.Future:
        group = self._group
        if operation.kind is Kind.ADD:
            role = raft_engine.MemberRole.LEARNER if operation.is_learner else raft_engine.MemberRole.VOTER
            context = operation.resp_address.encode()
            added = raft_engine.AddMember(operation.id, operation.raft_address, context, role)
            return group.change_members([added], ADD_PATIENCE_SECONDS)
        if operation.kind is Kind.REMOVE:
            return group.change_members([raft_engine.RemoveMember(operation.id)], ADD_PATIENCE_SECONDS)
        if operation.kind is Kind.CANCEL:
            return group.cancel_change()
        if operation.kind is Kind.TRANSFER:
            return group.transfer_leadership(operation.id or None, TRANSFER_PATIENCE_SECONDS)
        if operation.kind is Kind.DIGEST:
            return group.check_digests(DIGEST_PATIENCE_SECONDS)
        return group.snapshot()

    def answer_bytes(self, command: bytes) -> int:
        """About how long the result of such a read is going to be."""
        return self._replica.value_bytes(command[5:]) if command[0] == machine.GET else 0

    def fits_log(self, command: bytes) -> bool:
        """Whether the result of a read is sure to be short enough for the log, whatever the open writes do.

        They cannot make a value longer by more than their own bytes; where another server leads, it may have grown unseen.
        """
        if command[0] == machine.GET:
            return self.leads and self.answer_bytes(command) + self._open_bytes + 1 <= machine.RESULT_BYTES_MAX
        return command[0] in (machine.EXISTS, machine.LENGTH, machine.COUNT)

    def look_up(self, request: Request) -> bytes:
        """Answers a read that is ready from the state as it is now."""
        return machine.reply(self._replica.look_up(request.command), request.version)

    # ---- To Raft ----

    def _schedule(self) -> None:
        """Flushes when every socket that is readable now has been read."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_scheduled = False
        if self._batch:
            self._propose()
        if self._gathering and self._reads_in_flight < READS_IN_FLIGHT_MAX:
            self._read_state()

    def _propose(self) -> None:
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        keys = []
        if any(request.session.use is SessionUse.COMMAND for request in batch):
            keys = [_key(request.session) for request in batch]
        future = self._group.propose_many([request.command for request in batch], keys=keys)
        future.add_done_callback(lambda future: self._proposed(batch, future))

    def _session(self, request: Request) -> None:
        """Opens, renews or closes a session, behind what gathered before."""
        if self._batch:
            self._propose()
        self.open_count += 1
        self._open_cost_bytes += ITEM_EXTRA_BYTES
        id = request.session.id
        if request.session.use is SessionUse.OPEN:
            future = self._group.open_session()
        elif request.session.use is SessionUse.RENEW:
            future = self._group.renew_session(id)
        else:
            future = self._group.close_session(id)
        future.add_done_callback(lambda future: self._session_done(request, future))

    def _read_state(self) -> None:
        requests, self._gathering = self._gathering, []
        self._reads_in_flight += 1
        future = self._group.read()
        future.add_done_callback(lambda future: self._may_read(requests, future))

    # ---- Back ----

    def _proposed(self, batch: list[Request], future: asyncio.Future[list]) -> None:
        refusal = future.exception()
        outcomes = [refusal] * len(batch) if refusal is not None else future.result()
        touched = {}
        for request, outcome in zip(batch, outcomes):
            self._open_bytes -= len(request.command)
            self._open_cost_bytes -= len(request.command) + ITEM_EXTRA_BYTES
            if isinstance(outcome, raft_engine.Applied):
                answer = machine.reply(outcome.result, request.version)
            else:
                answer = self._failure(request, outcome)
            request.connection.answered(request, answer)
            touched[request.connection] = None
        self.open_count -= len(batch)
        for connection in touched:
            connection.go_on()
        waiting, self._waiting = self._waiting, {}
        for connection in waiting:
            connection.go_on()  # Who finds no room again is entered again.

    def _session_done(self, request: Request, future: asyncio.Future) -> None:
        self._open_cost_bytes -= ITEM_EXTRA_BYTES
        self.open_count -= 1
        refusal = future.exception()
        if refusal is not None:
            answer = self._failure(request, refusal)
        elif request.session.use is SessionUse.OPEN:
            answer = resp.integer(future.result().id)
        else:
            answer = resp.simple("OK")
        request.connection.answered(request, answer)
        request.connection.go_on()
        waiting, self._waiting = self._waiting, {}
        for connection in waiting:
            connection.go_on()

    def _may_read(self, requests: list[Request], future: asyncio.Future[int]) -> None:
        self._reads_in_flight -= 1
        refusal = future.exception()
        touched = {}
        for request in requests:
            if refusal is None:
                request.place = Place.READY
            else:
                request.connection.answered(request, self._failure(request, refusal))
            touched[request.connection] = None
        self.open_count -= len(requests)
        for connection in touched:
            connection.go_on()
        if self._gathering:
            self._schedule()

    def _operated(self, request: Request, operation: Operation, future: asyncio.Future) -> None:
        refusal = future.exception()
        if refusal is None:
            request.connection.answered(request, _done(operation, future.result()))
        elif isinstance(refusal, raft_engine.NotApplied):
            request.connection.answered(request, self._failure(request, refusal))
        else:
            text = f"UNKNOWN {refusal}; RAFT.MEMBERS tells what became of it"
            request.connection.answered(request, resp.error(text))
        request.connection.go_on()

    def _failure(self, request: Request, error: BaseException) -> bytes:
        if isinstance(error, raft_engine.NotLeader):
            return not_leader(self._server, error.leader or 0)
        if isinstance(error, raft_engine.Forming):
            return resp.error("CLUSTERDOWN the group is not formed yet")
        if isinstance(error, (raft_engine.TooLarge, raft_engine.Invalid, raft_engine.Cancelled)):
            return resp.error(f"ERR {error}")
        # Whether a read in the log was applied makes no difference to anyone.
        is_unknown = request.is_write and not isinstance(error, raft_engine.NotApplied)
        return resp.error(f"{'UNKNOWN' if is_unknown else 'TRYAGAIN'} {error}")


def _done(operation: Operation, result: Any) -> bytes:
    """The answer to an operation that was done."""
    if operation.kind is Kind.TRANSFER:
        return resp.simple("OK")
    if operation.kind is Kind.DIGEST:
        return _comparison(result)
    return resp.integer(result)


def _comparison(check: raft_engine.DigestCheck) -> bytes:
    """Index, verdict, and a row a replica: id, what it did, and the digest as RAFT.STATUS shows it."""
    rows = []
    for replica in check.replicas:
        what = "odd" if replica.odd else replica.answer.value
        digest = (replica.digest or b"")[:8].hex()
        rows.append(resp.array([resp.integer(replica.server), resp.bulk(what), resp.bulk(digest)]))
    return resp.array([resp.integer(check.index), resp.bulk(check.verdict.value), *rows])


def _key(part: SessionPart) -> raft_engine.SessionKey | None:
    """The key of a command of a session. Which replies its client still wants is not known here: the engine bounds them."""
    if part.use is not SessionUse.COMMAND:
        return None
    return raft_engine.SessionKey(part.id, part.sequence, 0)
