"""Replicas are compared, with real servers in one process; one whose state is another stops."""

from __future__ import annotations

import asyncio
import hashlib
import unittest

import raft_engine
from raft_engine import DigestAnswer, DigestVerdict
from support import SECONDS, Journal, NodeTest, free_ports, until


class Hashed(Journal):
    """Gives a digest of what it keeps, and of what a test lets it believe."""

    def __init__(self) -> None:
        super().__init__()
        self.skew: object = b""

    def digest(self):
        if not isinstance(self.skew, bytes):
            return self.skew
        return hashlib.sha256(b"\0".join(self.items) + self.skew).digest()


class Digests(NodeTest):
    def setUp(self):
        super().setUp()
        members = [raft_engine.Member(id, f"127.0.0.1:{port}") for id, port in enumerate(free_ports(3), 1)]
        self.machines = {id: Hashed() for id in (1, 2, 3)}
        self.nodes = {id: self.node(self.machines[id], id, members) for id in (1, 2, 3)}

    def lead(self):
        """The id of whoever leads and can."""

        def find():
            for id, node in self.nodes.items():
                try:
                    if node.status().role is raft_engine.Role.LEADER:
                        node.read(timeout=1)
                        return id
                except raft_engine.RaftError:
                    pass
            return None

        return until(find, "a leader")

    def compare(self, patience=60.0):
        def attempt():
            try:
                return self.nodes[self.lead()].check_digests(patience, SECONDS)
            except (raft_engine.NotLeader, raft_engine.Busy, raft_engine.Unknown):
                return None

        return until(attempt, "a comparison")

    def test_the_odd_one_stops_and_the_others_go_on(self):
        index = self.nodes[self.lead()].propose(b"a", SECONDS).index
        check = self.compare()
        self.assertIs(check.verdict, DigestVerdict.AGREED)
        self.assertGreater(check.index, index)
        expected = hashlib.sha256(b"a").digest()
        self.assertEqual([(each.server, each.digest, each.odd) for each in check.replicas], [(id, expected, False) for id in (1, 2, 3)])
        self.assertEqual(len({each.sessions for each in check.replicas}), 1)

        odd = self.lead() % 3 + 1
        self.machines[odd].skew = b"!"
        check = self.compare()
        self.assertIs(check.verdict, DigestVerdict.DIVERGED)
        self.assertEqual([each.server for each in check.replicas if each.odd], [odd])
        until(lambda: self.nodes[odd].status().stopped, "the odd one to stop")
        status = self.nodes[odd].status()
        self.assertEqual((status.diverged, status.digest_check), (check.index, check))
        self.assertIn(f"entry {check.index}", status.stopped)
        for machine in self.machines.values():
            kinds = {raft_engine.NoticeKind.DIVERGED}
            [told] = until(lambda: [each for each in machine.notices if each.kind in kinds], "a notice")
            self.assertEqual(told.check, check)
        self.nodes[self.lead()].propose(b"b", SECONDS)
        self.assertIsNone(self.nodes[self.lead()].status().diverged)
        check = self.compare(0.1)
        self.assertIs(check.verdict, DigestVerdict.AGREED)
        self.assertIs(check.replicas[odd - 1].answer, DigestAnswer.MISSING)

    def test_whoever_cannot_say_takes_no_part(self):
        self.lead()
        self.machines[1].skew = None
        self.machines[2].skew = b"x".hex  # Not bytes, and said so in a warning.
        check = self.compare()
        self.assertIs(check.verdict, DigestVerdict.UNDECIDED)
        self.assertEqual([each.answer for each in check.replicas[:2]], [DigestAnswer.UNABLE] * 2)
        self.assertIsNone(check.replicas[0].digest)
        until(lambda: any("gave no digest" in each.message for each in self.machines[2].notices), "a warning")
        with self.assertRaises(ValueError):
            self.nodes[1].check_digests(-1.0)

    def test_it_is_awaited_too(self):
        leader = self.lead()
        follower = self.nodes[leader % 3 + 1]

        async def run():
            check = await self.nodes[leader].aio.check_digests(30.0, SECONDS)
            self.assertIs(check.verdict, DigestVerdict.AGREED)
            with self.assertRaises(raft_engine.NotLeader):
                await follower.aio.check_digests()

        asyncio.run(run())


if __name__ == "__main__":
    unittest.main()
