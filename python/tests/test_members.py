"""Members come and go, and leadership is handed over, with real servers in one process."""

from __future__ import annotations

import asyncio
import unittest

import raft_engine
from raft_engine import AddMember, MemberRole, RemoveMember, SetSettings
from support import SECONDS, SETTINGS, Journal, NodeTest, free_ports, until


class Members(NodeTest):
    def setUp(self):
        super().setUp()
        self.addresses = {id: f"127.0.0.1:{port}" for id, port in enumerate(free_ports(4), 1)}
        self.machines = {}
        self.nodes = {}
        for id in (1, 2):
            self.start(id)

    def start(self, id):
        """One of the first two, which form the group; or one that joins it."""
        is_founder = id <= 2
        founders = [raft_engine.Member(each, self.addresses[each], priority=3 - each) for each in (1, 2)]
        self.machines[id] = Journal()
        self.nodes[id] = raft_engine.Node(
            cluster="test",
            id=id,
            data_dir=self.folder / str(id),
            listen=self.addresses[id],
            state_machine=self.machines[id],
            members=founders if is_founder else None,
            group_settings=raft_engine.GroupSettings(lease=0.2) if is_founder else None,
            join=None if is_founder else ["127.0.0.1:1", self.addresses[1], self.addresses[2]],
            settings=SETTINGS | {"election_timeout_ms": 1000},
        )
        self.addCleanup(self.nodes[id].close)

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

    def change(self, *changes):
        """Changes members at whoever leads, as often as nothing can come of it."""

        def attempt():
            try:
                return self.lead().change_members(changes, patience=30, timeout=SECONDS)
            except (raft_engine.NotLeader, raft_engine.Busy):
                return None

        return until(attempt, "the change")

    def refused(self, kind, *changes):
        def attempt():
            try:
                self.lead().change_members(changes, timeout=SECONDS)
            except (raft_engine.NotLeader, raft_engine.Busy):
                return None
            except kind as error:
                return str(error)
            raise AssertionError(f"{changes} was taken")

        return until(attempt, "the refusal")

    def test_a_third_joins_and_a_founder_leaves(self):
        self.lead().propose_many([b"a", b"b"], timeout=SECONDS)
        self.start(3)
        self.assertIs(self.nodes[3].status().role, raft_engine.Role.FORMING)
        added = self.change(AddMember(3, self.addresses[3], b"third", priority=7))
        index = self.lead().propose(b"c", timeout=SECONDS).index
        self.assertGreater(index, added)
        self.nodes[3].read(raft_engine.at_least(index), SECONDS)
        self.assertEqual(self.machines[3].items, [b"a", b"b", b"c"])
        status = self.nodes[3].status()
        self.assertEqual([member.id for member in status.members], [1, 2, 3])
        self.assertEqual(status.members[2], raft_engine.Member(3, self.addresses[3], b"third", priority=7))
        self.assertEqual((status.highest_id, status.change, status.outgoing_voters, status.removed), (3, None, (), None))
        self.assertEqual(status.members[0].priority, 2)

        leader = self.lead()
        gone = next(id for id, node in self.nodes.items() if node is leader)
        self.change(RemoveMember(gone))
        until(lambda: self.nodes[gone].status().removed, "the removed server to know")
        until(lambda: any(each.kind is raft_engine.NoticeKind.REMOVED for each in self.machines[gone].notices), "a notice")
        self.nodes.pop(gone).close()
        index = self.lead().propose(b"d", timeout=SECONDS).index
        for id, node in self.nodes.items():
            node.read(raft_engine.at_least(index), SECONDS)
            self.assertEqual(self.machines[id].items, [b"a", b"b", b"c", b"d"])

        # A restart by the same words finds the group.
        self.nodes.pop(3).close()
        self.start(3)
        self.nodes[3].read(raft_engine.at_least(index), SECONDS)
        self.assertEqual(self.machines[3].items, [b"a", b"b", b"c", b"d"])
        self.assertIn("never used again", self.refused(raft_engine.Invalid, AddMember(gone, self.addresses[4])))

    def test_leadership_is_handed_over_with_what_was_acknowledged(self):
        leader = self.lead()
        first = next(id for id, node in self.nodes.items() if node is leader)
        leader.propose(b"a", timeout=SECONDS)
        leader.transfer_leadership(3 - first, timeout=SECONDS)
        self.assertEqual(leader.status().leader, 3 - first)
        self.assertIsNone(leader.status().transferring_to)
        self.lead().propose(b"b", timeout=SECONDS)
        self.lead().transfer_leadership(timeout=SECONDS)
        self.assertIs(self.lead(), leader)
        self.assertEqual(leader.propose(b"c", timeout=SECONDS).result, b"3")
        with self.assertRaises(raft_engine.Invalid):
            leader.transfer_leadership(77, timeout=SECONDS)
        with self.assertRaises(raft_engine.NotLeader):
            self.nodes[3 - first].transfer_leadership(timeout=SECONDS)

    def test_what_cannot_be_is_refused_and_what_does_not_come_is_given_up(self):
        self.lead()
        self.assertIn("not a member", self.refused(raft_engine.Invalid, RemoveMember(9)))
        self.assertIn("lease", self.refused(raft_engine.Invalid, SetSettings(raft_engine.GroupSettings(lease=9.0))))
        with self.assertRaises(TypeError):
            self.lead().change_members(["add"])
        with self.assertRaises(ValueError):
            self.lead().change_members([RemoveMember(1)], patience=-1.0)
        with self.assertRaises(raft_engine.GivenUp) as caught:
            self.lead().change_members([AddMember(4, self.addresses[4])], patience=0.05)
        self.assertIn("was not met", str(caught.exception))
        self.assertTrue(caught.exception.retriable)
        with self.assertRaises(raft_engine.Invalid):
            self.lead().cancel_change(timeout=SECONDS)

    def test_settings_and_leases(self):
        leader = self.lead()
        settings = leader.status().settings
        self.assertEqual(settings, raft_engine.GroupSettings(lease=0.2))
        index = leader.propose(b"a", timeout=SECONDS).index
        self.assertGreaterEqual(self.lead().read(raft_engine.LEASE, SECONDS), index)
        self.assertEqual(self.lead().query(b"a", raft_engine.LEASE, SECONDS), b"1")
        self.change(SetSettings(raft_engine.GroupSettings(max_sessions=5)))
        self.assertEqual(self.lead().status().settings, raft_engine.GroupSettings(max_sessions=5))
        self.assertEqual(self.lead().query(b"a", raft_engine.LEASE, SECONDS), b"1")

    def test_everything_is_awaited_too(self):
        self.lead().propose(b"a", timeout=SECONDS)
        self.start(3)
        leader = self.lead()

        async def run():
            learner = AddMember(3, self.addresses[3], role=MemberRole.LEARNER)
            self.assertGreater(await leader.aio.change_members([learner], timeout=SECONDS), 0)
            waits = leader.aio.change_members([AddMember(4, self.addresses[4])])
            self.assertGreater(await leader.aio.cancel_change(SECONDS), 0)
            with self.assertRaises(raft_engine.Cancelled):
                await waits
            self.assertIsNone(await leader.aio.transfer_leadership(timeout=SECONDS))

        asyncio.run(run())
        status = until(lambda: (status := self.lead().status()).learners.get(3) and status, "the learner to be heard of")
        self.assertIs(status.members[2].role, MemberRole.LEARNER)

    def test_a_start_is_of_one_kind(self):
        server = self.nodes[1].server
        founders = [raft_engine.Member(1, self.addresses[1])]
        with self.assertRaises(ValueError):
            server.start_group(Journal(), founders, 2, join=["127.0.0.1:1"])
        with self.assertRaises(ValueError):
            server.start_group(Journal(), group=2, group_settings=raft_engine.GroupSettings())
        with self.assertRaises(ValueError):
            server.start_group(Journal(), [raft_engine.Member(1, "a:1", role=MemberRole.LEARNER)], 2)


if __name__ == "__main__":
    unittest.main()
