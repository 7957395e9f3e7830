"""kv: a replicated key-value server that Redis clients talk to. README.md of examples/kv has the command line."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import time

import raft_engine

import options as command_line
from connection import Connection
from options import Options, complain
from replica import Replica
from submission import Submission
from view import MemberView, ServerView, split_address

CONNECTIONS_MAX = 4096
# How long a server that ends waits for what was proposed, and then for its clients to take their answers.
END_SECONDS = 2.0


class Server:
    """The program: sockets and clients on the event loop, the engine beside it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._loop = asyncio.get_running_loop()
        self._started = time.monotonic()
        self._replica = Replica(lambda notice: self._on_loop(self._noticed, notice))
        self._view = ServerView(options.cluster, options.id, tuple(options.members), refresh=self._refresh)
        self._submission = Submission(self._replica, self._view, options)
        self._connections: set[Connection] = set()
        self._client_ids = itertools.count(1)
        self._node: raft_engine.Node | None = None
        self._printed: tuple[raft_engine.Role, int] | None = None
        self._ended = asyncio.Event()
        self._has_stopped = False  # by itself

    async def run(self) -> int:
        """Runs until SIGTERM or SIGINT, or until it cannot go on. Returns the program's exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._ended.set)
        host, port = split_address(self._options.resp_address)
        try:
            listener = await self._loop.create_server(
                self._connect, host, port, backlog=511, reuse_address=True, start_serving=False
            )
        except OSError as error:
            complain(f"listening on {self._options.resp_address}: {error}")
            return 1
        try:
            self._node = self._open()
        except raft_engine.ConfigError as error:
            complain(error)
            return 2
        except raft_engine.RaftError as error:
            complain(error)
            return 1
        self._submission.attach(self._node.aio)
        await listener.start_serving()
        print(f"ready id={self._options.id} resp={self._options.resp_address}", flush=True)
        await self._ended.wait()
        listener.close()
        await self._end()
        return 1 if self._has_stopped else 0

    def _open(self) -> raft_engine.Node:
        options = self._options
        members = [
            raft_engine.Member(member.id, member.raft_address, member.resp_address.encode())
            for member in options.members
        ]
        return raft_engine.Node(
            cluster=options.cluster,
            id=options.id,
            data_dir=options.data,
            listen=options.raft_address,
            state_machine=self._replica,
            members=None if options.contacts else members,
            join=options.contacts or None,
            # Clients of Redis expect to be sent to the leader; whoever wants it otherwise says so.
            settings={"forwarding": "off", **options.settings},
        )

    def _connect(self) -> asyncio.Protocol:
        if self._view.clients >= CONNECTIONS_MAX:
            return _Refusal()
        connection = Connection(next(self._client_ids), self._submission, self._view, self._options.max_entry_bytes)
        self._connections.add(connection)
        connection.on_lost = self._connections.discard
        return connection

    async def _end(self) -> None:
        """Takes nothing more; gives what was proposed time to end well, then ends it anyhow, and sends the answers."""
        deadline = time.monotonic() + END_SECONDS
        for connection in self._connections:
            connection.take_no_more()
        while self._submission.open_count and not self._has_stopped and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        assert self._node is not None
        await self._node.aclose()
        await asyncio.sleep(0)  # What the close completed is told by calls into this loop.
        for connection in list(self._connections):
            connection.end()
        while self._connections and time.monotonic() < deadline:
            await asyncio.sleep(0.005)

    # ---- What the engine tells ----

    def _on_loop(self, function, *arguments) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            pass  # The loop is closed: the program is about to end.

    def _noticed(self, notice: raft_engine.Notice) -> None:
        kind = raft_engine.NoticeKind
        if notice.kind is kind.ROLE:
            self._role_changed(notice)
        elif notice.kind is kind.MEMBERS:
            self._refresh(self._view)
        elif notice.kind is kind.REMOVED:
            print("removed", flush=True)
            advice = "this server ends; its directory may go, and its id is never used again"
            complain(f"{notice.message}: {advice}")
            self._ended.set()
        elif notice.kind in (kind.GROUP_STOPPED, kind.SERVER_STOPPED):
            complain(f"stopped: {notice.message}")
            self._view.stopped = self._view.stopped or notice.message
            self._has_stopped = True
            self._submission.leads = self._submission.is_forwarding = False
            self._ended.set()
        elif notice.kind in (kind.REFUSED, kind.WARNING, kind.DIVERGED):
            complain(notice.message)

    def _role_changed(self, notice: raft_engine.Notice) -> None:
        role = notice.role
        assert role is not None
        self._view.role = role.value
        self._view.term = notice.term
        self._view.leader = notice.leader or 0
        self._submission.leads = role is raft_engine.Role.LEADER
        if (role, notice.term) != self._printed:
            self._printed = role, notice.term
            print(f"role {role.value} term={notice.term}", flush=True)

    def _refresh(self, view: ServerView) -> None:
        if self._node is None:
            return  # A notice came before the start had returned.
        view.uptime_seconds = int(time.monotonic() - self._started)
        try:
            group = self._node.status()
        except raft_engine.RaftError:
            return
        applied, view.keys, view.digest = self._replica.describe()
        # The engine also counts entries of its own, and may not yet count the latest of ours: the digest shown is that
        # of the later of the two.
        view.applied = max(applied, group.applied)
        view.last, view.durable, view.commit, view.snapshot = group.last, group.durable, group.commit, group.snapshot
        if group.members:
            view.members = _views(group)
        view.change = "none" if group.change is None else "joint" if group.change.is_joint else "learning"
        view.transferring_to, view.removed = group.transferring_to or 0, group.removed or 0
        server = self._node.server.status()
        view.log_writes, view.disk = server.log_writes, server.disk_backend


def _views(group: raft_engine.GroupStatus) -> tuple[MemberView, ...]:
    """The members in force, as clients see them."""
    target = group.members if group.change is None else group.change.target
    becomes = {member.id: member.role.value for member in target}
    return tuple(
        MemberView(
            member.id,
            member.address,
            member.context.decode(errors="replace"),
            member.role.value,
            becomes.get(member.id, "none"),
            member.priority,
            group.learners.get(member.id, 0),
        )
        for member in group.members
    )


class _Refusal(asyncio.Protocol):
    """A client too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"-ERR max number of clients reached\r\n")
        transport.close()


def main() -> int:
    """The program."""
    try:
        options = command_line.parse(sys.argv[1:])
    except command_line.UsageError as error:
        if str(error):
            complain(error)
        sys.stderr.write(command_line.USAGE)
        return 2

    async def run() -> int:
        return await Server(options).run()

    return asyncio.run(run())


if __name__ == "__main__":
    sys.exit(main())
