"""Mistakes and refusals: each has its type, its outcome and a message that helps."""

from __future__ import annotations

import pickle
import unittest

import raft_engine
from raft_engine import errors
from support import SECONDS, NodeTest


class Mistakes(NodeTest):
    def test_settings_are_checked(self):
        for settings, message in (
            ({"election_timeout": 5}, "election_timeout"),
            ({"election_timeout_ms": "soon"}, "soon"),
            ({"election_timeout_ms": 100, "heartbeat_ms": 90}, "three times"),
        ):
            with self.assertRaisesRegex(raft_engine.ConfigError, message):
                self.node(**settings)

    def test_arguments_are_checked(self):
        for arguments in ({"id": 0}, {"cluster": ""}, {"listen": "nowhere"}):
            good = {"cluster": "test", "id": 1, "data_dir": self.folder / "1", "listen": "127.0.0.1:0"}
            with self.assertRaises(raft_engine.ConfigError):
                raft_engine.Server(**(good | arguments))

    def test_a_directory_has_one_server(self):
        self.node()
        with self.assertRaisesRegex(raft_engine.DirectoryLocked, "process") as caught:
            self.node()
        self.assertTrue(caught.exception.retriable)

    def test_an_address_in_use_is_told(self):
        address = self.node().server.status().listen
        with self.assertRaisesRegex(raft_engine.OpenError, address):
            raft_engine.Server(cluster="test", id=2, data_dir=self.folder / "2", listen=address)

    def test_a_directory_without_the_group_is_no_restart(self):
        with self.assertRaises(raft_engine.StartError):
            self.node(restart=True)

    def test_a_group_is_started_once(self):
        node = self.leader()
        with self.assertRaises(raft_engine.StartError):
            node.server.start_group(node._bridge._machine, node.status().members)

    def test_only_bytes_are_proposed(self):
        node = self.leader()
        for call in (lambda: node.propose("text"), lambda: node.submit(7), lambda: node.query(None)):
            with self.assertRaisesRegex(TypeError, "is no bytes"):
                call()
        with self.assertRaisesRegex(TypeError, "is no consistency"):
            node.query(b"a", "linearizable")
        self.assertEqual(len(node._bridge.requests), 0)


class Refusals(NodeTest):
    def test_an_entry_that_is_too_long_is_certainly_not_applied(self):
        node = self.leader(max_entry_bytes=1000)
        with self.assertRaisesRegex(raft_engine.TooLarge, "item 1 has 1001 bytes") as caught:
            node.propose_many([b"a", bytes(1001)])
        self.assertIsInstance(caught.exception, raft_engine.NotApplied)
        self.assertFalse(caught.exception.retriable)

    def test_a_group_that_is_forming_says_so(self):
        members = [raft_engine.Member(1, "127.0.0.1:0"), raft_engine.Member(2, "127.0.0.1:9")]
        node = self.node(members=members)
        with self.assertRaises(raft_engine.Forming) as caught:
            node.propose(b"a", timeout=SECONDS)
        self.assertTrue(caught.exception.retriable)
        with self.assertRaises(raft_engine.TimedOut):
            node.wait_for_leader(timeout=0.01)

    def test_there_is_nothing_new_to_snapshot(self):
        node = self.leader()
        node.propose(b"a", timeout=SECONDS)
        node.snapshot(SECONDS)
        with self.assertRaises(raft_engine.Busy):
            node.snapshot(SECONDS)

    def test_a_timeout_is_unknown_and_a_timeout(self):
        node = self.leader()
        with self.assertRaises(TimeoutError) as caught:
            node.query(b"a", raft_engine.at_least(1 << 40), timeout=0)
        self.assertIsInstance(caught.exception, raft_engine.Unknown)
        self.assertFalse(caught.exception.retriable)


class Types(unittest.TestCase):
    def test_the_outcome_shows_in_the_type(self):
        names = set(errors.__all__) - {"RaftError", "NotApplied", "Unknown"}
        for name in names:
            error = getattr(errors, name)
            self.assertTrue(issubclass(error, raft_engine.RaftError))
            if issubclass(error, raft_engine.Unknown):
                self.assertFalse(error.retriable, name)
            self.assertIs(getattr(raft_engine, name), error)
        self.assertIs(raft_engine.NotLeader(3).leader, 3)

    def test_exceptions_can_be_copied(self):
        for error in (raft_engine.NotLeader(3), raft_engine.Closed("closed")):
            copy = pickle.loads(pickle.dumps(error))
            self.assertEqual((type(copy), str(copy)), (type(error), str(error)))
        self.assertEqual(pickle.loads(pickle.dumps(raft_engine.NotLeader(3))).leader, 3)


if __name__ == "__main__":
    unittest.main()
