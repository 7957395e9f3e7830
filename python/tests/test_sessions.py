"""Sessions: what is proposed again is applied once, and answered as at first."""

from __future__ import annotations

import asyncio
import unittest

import raft_engine
from raft_engine import Session, SessionKey
from support import SECONDS, Journal, NodeTest


class Sessions(NodeTest):
    def test_a_retry_is_applied_once_and_has_the_first_result(self):
        machine = Journal()
        node = self.leader(machine)
        session = node.open_session(SECONDS)
        first, second = session.next_key(), session.next_key()
        one = node.propose(b"a", SECONDS, key=first)
        self.assertEqual(node.propose(b"a", SECONDS, key=first), one)
        outcomes = node.propose_many([b"b", b"a", b"c", b"b"], SECONDS, keys=[second, first, None, second])
        self.assertEqual([outcome.result for outcome in outcomes], [b"2", b"1", b"3", b"2"])
        self.assertEqual(outcomes[3], outcomes[0])
        self.assertEqual(node.submit(b"b", key=second).result(SECONDS), outcomes[0])
        self.assertEqual(machine.items, [b"a", b"b", b"c"])

        session.answered(second.sequence)
        third = session.next_key()
        self.assertEqual(third, SessionKey(session.id, 3, 3))
        node.propose(b"d", SECONDS, key=third)
        with self.assertRaises(raft_engine.ReplyForgotten):
            node.propose(b"a", SECONDS, key=first)
        node.renew_session(session.id, SECONDS)
        node.close_session(session.id, SECONDS)
        node.close_session(session.id, SECONDS)
        for call in (lambda: node.renew_session(session.id, SECONDS), lambda: node.propose(b"d", SECONDS, key=third)):
            with self.assertRaises(raft_engine.SessionExpired) as caught:
                call()
            self.assertIsInstance(caught.exception, raft_engine.Unknown)
            self.assertFalse(caught.exception.retriable)
        self.assertEqual(machine.items, [b"a", b"b", b"c", b"d"])

    def test_a_session_outlives_its_server(self):
        node = self.leader(Journal())
        session = node.open_session(SECONDS)
        before, after = session.next_key(), session.next_key()
        node.propose(b"a", SECONDS, key=before)
        node.snapshot(SECONDS)
        node.propose(b"b", SECONDS, key=after)
        node.close()
        machine = Journal()
        node = self.leader(machine)
        self.assertEqual(node.propose(b"b", SECONDS, key=after).result, b"2")
        self.assertEqual(node.propose(b"a", SECONDS, key=before).result, b"1")
        self.assertEqual(machine.items, [b"a", b"b"])

    def test_keys_belong_to_items(self):
        node = self.leader(Journal())
        key = Session(1).next_key()
        with self.assertRaises(ValueError):
            node.propose_many([b"a", b"b"], SECONDS, keys=[key])
        with self.assertRaises(raft_engine.SessionExpired):
            node.propose(b"a", SECONDS, key=key)

    def test_a_session_lasts_as_long_as_its_with(self):
        node = self.leader(Journal())
        with node.session(SECONDS) as session:
            self.assertEqual(node.propose(b"a", SECONDS, key=session.next_key()).result, b"1")
        with self.assertRaises(raft_engine.SessionExpired):
            node.renew_session(session.id, SECONDS)

        async def run():
            async with node.aio.session(SECONDS) as session:
                key = session.next_key()
                tries = await asyncio.gather(*(node.aio.propose(b"b", SECONDS, key=key) for _ in range(3)))
                self.assertEqual([applied.result for applied in tries], [b"2"] * 3)
                await node.aio.renew_session(session.id, SECONDS)
                many = await node.aio.propose_many([b"b"], SECONDS, keys=[key])
                self.assertEqual(many, tries[:1])
            with self.assertRaises(raft_engine.SessionExpired):
                await node.aio.propose(b"c", SECONDS, key=key)

        asyncio.run(run())


if __name__ == "__main__":
    unittest.main()
