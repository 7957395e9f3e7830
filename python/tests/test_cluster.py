"""Three servers in one process."""

from __future__ import annotations

import unittest

import raft_engine
from support import SECONDS, Journal, NodeTest, free_ports, until


class Cluster(NodeTest):
    def setUp(self):
        super().setUp()
        ports = free_ports(3)
        self.members = [raft_engine.Member(id, f"127.0.0.1:{port}", b"%d" % id) for id, port in enumerate(ports, 1)]
        self.machines = {}
        self.nodes = {member.id: self.start(member.id) for member in self.members}

    def start(self, id, **settings):
        self.machines[id] = Journal()
        return self.node(self.machines[id], id, self.members, election_timeout_ms=1000, **settings)

    def lead(self):
        """The server that leads and can."""

        def find():
            for node in self.nodes.values():
                try:
                    if node.status().role is raft_engine.Role.LEADER:
                        node.read(timeout=1)
                        return node
                except raft_engine.RaftError:
                    pass
            return None

        return until(find, "a leader")

    def test_what_one_applies_all_apply(self):
        leader = self.lead()
        last = leader.propose_many([b"%d" % number for number in range(100)], timeout=SECONDS)[-1]
        for id, node in self.nodes.items():
            node.read(raft_engine.at_least(last.index), SECONDS)
            self.assertEqual(self.machines[id].items, self.machines[1].items)
            self.assertEqual(node.status().members, tuple(self.members))
        follower = next(node for node in self.nodes.values() if node is not leader)
        follower.wait_for_leader(SECONDS)
        applied = follower.propose(b"x", timeout=SECONDS)
        self.assertEqual(applied.index, last.index + 1)
        machine = next(self.machines[id] for id, node in self.nodes.items() if node is follower)
        self.assertEqual(machine.items[-1], b"x", "it is applied where it was proposed")
        self.assertGreaterEqual(follower.read(timeout=SECONDS), applied.index)

    def test_a_follower_that_does_not_forward_says_who_leads(self):
        leader = self.lead()
        id, follower = next((id, node) for id, node in self.nodes.items() if node is not leader)
        follower.close()
        self.nodes[id] = self.start(id, forwarding="off")
        known = self.nodes[id].wait_for_leader(SECONDS)
        for request in (lambda: self.nodes[id].propose(b"x", timeout=SECONDS), lambda: self.nodes[id].read(timeout=SECONDS)):
            with self.assertRaises(raft_engine.NotLeader) as caught:
                request()
            self.assertEqual(caught.exception.leader, known)

    def test_a_new_leader_follows_and_nothing_is_lost(self):
        leader = self.lead()
        leader.propose_many([b"a", b"b"], timeout=SECONDS)
        gone = next(id for id, node in self.nodes.items() if node is leader)
        self.nodes.pop(gone).close()
        new = self.lead()
        index = new.propose(b"c", timeout=SECONDS).index
        self.nodes[gone] = self.start(gone)
        self.nodes[gone].read(raft_engine.at_least(index), SECONDS)
        self.assertEqual(self.machines[gone].items, [b"a", b"b", b"c"])


if __name__ == "__main__":
    unittest.main()
