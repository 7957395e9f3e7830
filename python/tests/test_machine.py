"""Callbacks that fail or misbehave: what stops, what is told, and to whom."""

from __future__ import annotations

import sys
import threading
import unittest
from unittest import mock

import raft_engine
from raft_engine import NoticeKind
from support import SECONDS, Journal, NodeTest, until


class Apply(NodeTest):
    def stopped(self, node: raft_engine.Node) -> str:
        return until(lambda: node.status().stopped, "the group stops")

    def test_an_exception_stops_the_group_at_its_entry(self):
        machine = Journal()
        node = self.leader(machine)
        first = node.propose(b"a", timeout=SECONDS)
        outcomes = node.propose_many([b"b", b"fail", b"c"], timeout=SECONDS)
        self.assertEqual(outcomes[0].result, b"2")
        self.assertIsInstance(outcomes[1], raft_engine.Stopped)
        self.assertIsInstance(outcomes[2], raft_engine.Stopped)
        self.assertEqual(machine.items, [b"a", b"b"])
        reason = self.stopped(node)
        self.assertIn("ValueError: told to fail", reason)
        self.assertIn(str(first.index + 2), reason)
        self.assertEqual(node.status().applied, first.index + 1)
        self.assertIsInstance(node.failure, ValueError)
        until(lambda: [n for n in machine.notices if n.kind is NoticeKind.GROUP_STOPPED], "a notice")
        for call in (lambda: node.propose(b"d", timeout=SECONDS), lambda: node.query(b"a", timeout=SECONDS)):
            with self.assertRaises(raft_engine.Closed):
                call()

    def test_it_is_tried_again_when_the_server_is_opened_again(self):
        node = self.leader()
        with self.assertRaises(raft_engine.Stopped):
            node.propose(b"fail", timeout=SECONDS)
        node.close()

        class Repaired(Journal):
            def apply(self, entries):
                self.items.extend(entry.data for entry in entries)
                return [None] * len(entries)

        machine = Repaired()
        self.leader(machine).read(timeout=SECONDS)
        self.assertEqual(machine.items, [b"fail"])

    def check_refused(self, apply, message):
        class Wrong(raft_engine.StateMachine):
            pass

        Wrong.apply = apply
        node = self.leader(Wrong())
        self.assertIsInstance(node.propose_many([b"a", b"b"], timeout=SECONDS)[1], raft_engine.Stopped)
        self.assertIn(message, self.stopped(node))

    def test_too_few_results_are_refused(self):
        self.check_refused(lambda self, entries: [], "`apply` gave 0 results for")

    def test_too_many_results_are_refused(self):
        self.check_refused(lambda self, entries: [None] * (len(entries) + 1), "`apply` gave more than")

    def test_results_that_are_no_bytes_are_refused(self):
        self.check_refused(lambda self, entries: ["a"] * len(entries), "expected bytes or None")

    def test_results_beyond_the_limit_are_refused(self):
        self.check_refused(lambda self, entries: [bytes((1 << 20) + 1)] * len(entries), "longer than 1048576")

    def test_even_an_exit_is_only_an_exception(self):
        self.check_refused(lambda self, entries: sys.exit(3), "SystemExit: 3")

    def test_entries_tell_their_place_and_time(self):
        seen = []

        class Seeing(raft_engine.StateMachine):
            def apply_entry(self, entry):
                seen.append((entry.index, entry.term, entry.log_time, entry.data))

        node = self.leader(Seeing())
        places = [node.propose(b"%d" % number, timeout=SECONDS) for number in range(3)]
        self.assertEqual([(index, term) for index, term, _, _ in seen], [place[1:] for place in places])
        self.assertEqual([data for *_, data in seen], [b"0", b"1", b"2"])
        times = [time for _, _, time, _ in seen]
        self.assertEqual(times, sorted(times))
        self.assertEqual(repr(raft_engine.Entry(3, 2, 1, b"x")), "Entry(index=3, term=2, log_time=1, data=b'x')")


class Others(NodeTest):
    def test_a_failed_query_fails_alone(self):
        node = self.leader()
        with self.assertRaisesRegex(raft_engine.Failed, "KeyError: 'told to fail'"):
            node.query(b"fail", timeout=SECONDS)
        self.assertEqual(node.propose(b"a", timeout=SECONDS).result, b"1")

    def test_a_failed_snapshot_fails_alone(self):
        class Unwilling(Journal):
            def snapshot(self):
                yield b"half"
                raise OSError("no snapshot today")

        node = self.leader(Unwilling())
        node.propose(b"a", timeout=SECONDS)
        with self.assertRaisesRegex(raft_engine.Failed, "no snapshot today"):
            node.snapshot(SECONDS)
        self.assertEqual(node.propose(b"b", timeout=SECONDS).result, b"2")

    def test_a_failed_restore_stops_the_group(self):
        node = self.leader()
        node.propose(b"a", timeout=SECONDS)
        node.snapshot(SECONDS)
        node.close()

        class Forgetful(Journal):
            def restore(self, reader):
                raise LookupError("cannot read this")

        node = self.node(Forgetful())
        self.assertIn("cannot read this", until(lambda: node.status().stopped, "the group stops"))
        self.assertIsInstance(node.failure, LookupError)

    def test_a_reader_is_good_until_restore_returns(self):
        node = self.leader()
        node.propose(b"a", timeout=SECONDS)
        node.snapshot(SECONDS)
        node.close()
        kept = []

        class Keeping(Journal):
            def restore(self, reader):
                kept.append(reader.raw._reader)
                super().restore(reader)

        self.leader(Keeping()).read(timeout=SECONDS)
        with self.assertRaisesRegex(ValueError, "has returned"):
            kept[0].read(1)

    def test_a_failed_notice_is_reported_and_changes_nothing(self):
        class Deaf(Journal):
            def notice(self, notice):
                raise ValueError("cannot hear")

        with mock.patch("sys.unraisablehook") as hook:
            node = self.leader(Deaf())
            self.assertEqual(node.propose(b"a", timeout=SECONDS).result, b"1")
        self.assertEqual(str(hook.call_args[0][0].exc_value), "cannot hear")

    def test_callbacks_come_from_one_thread_and_may_submit_but_not_wait(self):
        class Busy(Journal):
            node = None

            def apply_entry(self, entry):
                raise AssertionError

            def apply(self, entries):
                for entry in entries:
                    threads.add(threading.current_thread().name)
                    if entry.data == b"first":
                        calls = (lambda: self.node.propose(b"x"), self.node.close, self.node.read, self.node.snapshot)
                        for call in calls:
                            try:
                                call()
                            except raft_engine.InCallback as error:
                                refused.append(error)
                        submitted.append(self.node.submit(b"second"))
                    yield entry.data

        threads, refused, submitted = set(), [], []
        machine = Busy()
        node = machine.node = self.leader(machine)
        self.assertEqual(node.propose(b"first", timeout=SECONDS).result, b"first")
        self.assertEqual(submitted[0].result(SECONDS).result, b"second")
        self.assertEqual(len(refused), 4)
        self.assertEqual(threads, {"raft-dispatch"})

    def test_a_state_that_is_ahead_of_the_log_is_refused(self):
        class Ahead(Journal):
            def applied_index(self):
                return 1000

        with self.assertRaises(raft_engine.StartError):
            self.node(Ahead())
        self.assertFalse(any(thread.name == "raft-dispatch" for thread in threading.enumerate()))

    def test_a_state_machine_must_apply(self):
        with self.assertRaisesRegex(TypeError, "overrides neither"):
            self.node(raft_engine.StateMachine())
        with self.assertRaisesRegex(TypeError, "expected a StateMachine"):
            self.node(object())


if __name__ == "__main__":
    unittest.main()
