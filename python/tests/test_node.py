"""One server that leads alone: requests and their ends, restart, snapshots, close."""

from __future__ import annotations

import sys
import threading
import unittest
from concurrent.futures import wait
from unittest import mock

import raft_engine
from raft_engine import LINEARIZABLE, STALE, Role, at_least
from support import SECONDS, Journal, NodeTest, until


class Requests(NodeTest):
    def test_a_proposal_gives_the_result_and_its_place(self):
        node = self.leader()
        first = node.propose(b"a", timeout=SECONDS)
        second = node.propose(bytearray(b"b"), timeout=SECONDS)
        self.assertEqual((first.result, second.result), (b"1", b"2"))
        self.assertEqual((first.index + 1, first.term), (second.index, second.term))

    def test_a_batch_is_applied_in_order(self):
        machine = Journal()
        node = self.leader(machine)
        items = [b"%d" % number for number in range(3000)]
        outcomes = node.propose_many(items, timeout=SECONDS)
        self.assertEqual([outcome.result for outcome in outcomes], [b"%d" % (number + 1) for number in range(3000)])
        self.assertEqual(machine.items, items)
        self.assertLess(len(machine.batches), 3000)
        self.assertEqual(node.propose_many([]), [])

    def test_futures_come_true_for_many_threads(self):
        node = self.leader()
        results = []

        def propose():
            futures = [node.submit(b"x") for _ in range(50)]
            wait(futures, SECONDS)
            results.extend(future.result(0).index for future in futures)

        threads = [threading.Thread(target=propose) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(len(set(results)), 200)

    def test_a_callback_of_a_future_that_exits_harms_nobody(self):
        gate = threading.Event()

        class Gated(Journal):
            def apply(self, entries):
                gate.wait(SECONDS)
                return super().apply(entries)

        node = self.leader(Gated())
        with mock.patch("sys.unraisablehook") as hook:
            futures = node.submit_many([b"a", b"b"])
            futures[0].add_done_callback(lambda _: sys.exit(3))
            gate.set()
            self.assertEqual(futures[1].result(SECONDS).result, b"2")
        self.assertIs(hook.call_args[0][0].exc_type, SystemExit)
        self.assertEqual(node.propose(b"c", timeout=SECONDS).result, b"3")

    def test_queries_and_reads_are_as_fresh_as_asked_for(self):
        node = self.leader()
        index = node.propose(b"a", timeout=SECONDS).index
        for consistency in (LINEARIZABLE, at_least(index), STALE):
            self.assertEqual(node.query(b"a", consistency, SECONDS), b"1")
            self.assertGreaterEqual(node.read(consistency, SECONDS), index)
        with self.assertRaises(raft_engine.TimedOut):
            node.query(b"a", at_least(index + 1000), timeout=0.01)

    def test_an_empty_entry_is_an_entry(self):
        machine = Journal()
        self.leader(machine).propose(b"", timeout=SECONDS)
        self.assertEqual(machine.items, [b""])

    def test_the_status_tells_of_server_and_group(self):
        node = self.leader()
        applied = node.propose(b"a", timeout=SECONDS)
        group = until(lambda: (status := node.status()).commit >= applied.index and status, "the commit is published")
        self.assertEqual((group.role, group.leader, group.term), (Role.LEADER, 1, applied.term))
        self.assertEqual((group.applied, group.stopped, group.snapshot), (applied.index, None, 0))
        self.assertEqual(group.members, (raft_engine.Member(1, "127.0.0.1:1", b"context"),))
        server = node.server.status()
        self.assertEqual((server.id, server.ready, server.closed, server.stopped), (1, True, False, None))
        self.assertGreater(server.log_writes, 0)
        self.assertNotEqual(server.listen, "127.0.0.1:0")

    def test_notices_tell_of_formation_members_and_roles(self):
        machine = Journal()
        self.leader(machine)
        kinds = {notice.kind for notice in machine.notices}
        self.assertLessEqual({raft_engine.NoticeKind.FORMED, raft_engine.NoticeKind.ROLE}, kinds)
        last = [notice for notice in machine.notices if notice.kind is raft_engine.NoticeKind.ROLE][-1]
        self.assertEqual((last.role, last.leader), (Role.LEADER, 1))


class Durability(NodeTest):
    def test_a_restart_applies_the_log_again(self):
        node = self.leader()
        node.propose_many([b"a", b"b"], timeout=SECONDS)
        node.close()
        machine = Journal()
        node = self.leader(machine, restart=True)
        self.assertEqual(node.propose(b"c", timeout=SECONDS).result, b"3")
        self.assertEqual(machine.items, [b"a", b"b", b"c"])
        self.assertEqual(node.server.status().incarnation, 2)

    def test_a_snapshot_stands_for_the_log(self):
        node = self.leader()
        big = bytes(1 << 20)
        node.propose_many([b"a", big, b"c"], timeout=SECONDS)
        index = node.snapshot(SECONDS)
        self.assertEqual(until(lambda: node.status().snapshot, "the snapshot is published"), index)
        node.propose(b"d", timeout=SECONDS)
        node.close()
        machine = Journal()
        node = self.leader(machine)
        node.read(timeout=SECONDS)
        self.assertEqual(machine.items, [b"a", big, b"c", b"d"])
        self.assertEqual(machine.restored, [index])

    def test_snapshots_are_taken_by_themselves(self):
        node = self.leader(snapshot_log_bytes=1 << 20)
        for _ in range(8):
            node.propose(bytes(1 << 18), timeout=SECONDS)
        until(lambda: node.status().snapshot, "a snapshot")

    def test_a_snapshot_is_what_the_state_was_when_it_began(self):
        class Slow(Journal):
            def __init__(self):
                super().__init__()
                self.node = None

            def snapshot(self):
                taken = list(self.items)
                yield from (len(item).to_bytes(4, "big") + item for item in taken)
                # Entries are applied between the steps of a snapshot.
                self.node.submit(b"later")

        machine = Slow()
        node = machine.node = self.leader(machine)
        node.propose(bytes(1 << 20), timeout=SECONDS)
        node.snapshot(SECONDS)
        node.query(b"later", timeout=SECONDS)
        until(lambda: machine.items[1:] == [b"later"], "what was proposed meanwhile is applied")
        machine.node = None
        node.close()
        restarted = Journal()
        self.leader(restarted).read(timeout=SECONDS)
        self.assertEqual([len(item) for item in restarted.items], [1 << 20, 5])

    def test_bytes_are_a_snapshot_too(self):
        class Sum(raft_engine.StateMachine):
            total = 0

            def apply_entry(self, entry):
                self.total += int(entry.data)

            def snapshot(self):
                return b"%d" % self.total

            def restore(self, reader):
                self.total = int(reader.read())

        node = self.leader(Sum())
        self.assertEqual(node.propose(b"5", timeout=SECONDS).result, b"")
        node.snapshot(SECONDS)
        node.close()
        machine = Sum()
        self.leader(machine).read(timeout=SECONDS)
        self.assertEqual(machine.total, 5)


class Close(NodeTest):
    def test_close_ends_everything_open(self):
        release = threading.Event()

        class Stuck(Journal):
            def apply(self, entries):
                release.wait(SECONDS)
                return super().apply(entries)

        node = self.leader(Stuck())
        futures = node.submit_many([b"a"] * 10)
        ends = []

        def wait_for_ever():
            try:
                ends.append(node.query(b"a", at_least(1 << 40)))
            except raft_engine.RaftError as error:
                ends.append(error)

        waiter = threading.Thread(target=wait_for_ever)
        waiter.start()
        until(lambda: len(node._bridge.requests) == 2, "both are open")
        closer = threading.Thread(target=node.close)
        closer.start()
        release.set()
        closer.join()
        waiter.join()
        self.assertIsInstance(ends[0], raft_engine.Closed)
        for future in futures:
            # Applied; or not known; or certainly not applied, where the close was faster than the loop.
            ends = (type(None), raft_engine.UnknownClosed, raft_engine.Closed)
            self.assertIsInstance(future.exception(0), ends)
        self.assertEqual(len(node._bridge.requests), 0)

    def test_what_is_closed_refuses(self):
        node = self.leader()
        node.close()
        node.close()
        for call in (lambda: node.propose(b"a"), lambda: node.query(b"a"), node.snapshot, node.wait_for_leader):
            with self.assertRaises(raft_engine.Closed) as caught:
                call()
            self.assertFalse(caught.exception.retriable)
        self.assertTrue(node.server.status().closed)
        self.assertFalse(any(thread.name == "raft-dispatch" for thread in threading.enumerate()))

    def test_a_forgotten_server_is_closed_and_told_of(self):
        server = raft_engine.Server(cluster="test", id=1, data_dir=self.folder / "1", listen="127.0.0.1:0")
        with self.assertWarns(ResourceWarning):
            del server
        members = [raft_engine.Member(1, "127.0.0.1:1")]
        node = raft_engine.Node(
            cluster="test",
            id=1,
            data_dir=self.folder / "1",
            listen="127.0.0.1:0",
            members=members,
            state_machine=Journal(),
        )
        with self.assertWarns(ResourceWarning):
            del node
        self.node().close()


if __name__ == "__main__":
    unittest.main()
