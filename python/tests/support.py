"""What the tests share: state machines, nodes with small logs, and waiting for a condition with a bound."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import raft_engine

SECONDS = 60
"""The bound of every wait: far more than a slow machine needs."""

SETTINGS: dict[str, Any] = {
    "election_timeout_ms": 300,
    "heartbeat_ms": 50,
    "segment_bytes": 1 << 20,
    "log_bytes": 16 << 20,
}


class Journal(raft_engine.StateMachine):
    """Keeps everything it applies; answers with how much that is."""

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.notices: list[raft_engine.Notice] = []
        self.batches: list[int] = []
        self.restored: list[int] = []

    def apply(self, entries):
        self.batches.append(len(entries))
        for entry in entries:
            if entry.data == b"fail":
                raise ValueError("told to fail")
            self.items.append(entry.data)
            yield b"%d" % len(self.items)

    def query(self, request: bytes) -> bytes:
        if request == b"fail":
            raise KeyError("told to fail")
        return b"%d" % self.items.count(request)

    def snapshot(self):
        copy = list(self.items)
        for item in copy:
            yield len(item).to_bytes(4, "big") + item

    def restore(self, reader: raft_engine.SnapshotReader) -> None:
        items = []
        while head := reader.read(4):
            items.append(reader.read(int.from_bytes(head, "big")))
        self.items = items
        self.restored.append(reader.index)

    def notice(self, notice: raft_engine.Notice) -> None:
        self.notices.append(notice)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def until(condition: Callable[[], Any], what: str) -> Any:
    """Waits until a condition holds, and gives its value."""
    end = time.monotonic() + SECONDS
    pause = threading.Event()
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {SECONDS} s for this: {what}")
        pause.wait(0.01)
    return value


class NodeTest(unittest.TestCase):
    """Has a folder, and closes what it opened."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="raft-engine-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def node(
        self,
        machine: Optional[raft_engine.StateMachine] = None,
        id: int = 1,
        members: Optional[list[raft_engine.Member]] = None,
        restart: bool = False,
        **settings: Any,
    ) -> raft_engine.Node:
        """A node; alone in its group where there are no members."""
        if members is None:
            listen, members = "127.0.0.1:0", [raft_engine.Member(id, "127.0.0.1:1", b"context")]
        else:
            listen = next(member.address for member in members if member.id == id)
        node = raft_engine.Node(
            cluster="test",
            id=id,
            data_dir=self.folder / str(id),
            listen=listen,
            members=None if restart else members,
            state_machine=Journal() if machine is None else machine,
            settings=SETTINGS | settings,
        )
        self.addCleanup(node.close)
        return node

    def leader(self, machine: Optional[raft_engine.StateMachine] = None, **arguments: Any) -> raft_engine.Node:
        """A node that leads a group of its own."""
        node = self.node(machine, **arguments)
        self.assertEqual(node.wait_for_leader(SECONDS), 1)
        return node
