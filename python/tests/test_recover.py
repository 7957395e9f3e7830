"""The recovery of a group from the loss of its quorum, by the command that an operator has."""

from __future__ import annotations

import contextlib
import io
import unittest

import raft_engine
from raft_engine import errors, recover
from support import SECONDS, Journal, NodeTest, free_ports, until


def run(*arguments: object) -> tuple[int, str, str]:
    """The command's status, and what it says."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            status = recover.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
    return status, out.getvalue(), error.getvalue()


class Recover(NodeTest):
    def test_one_server_that_is_left_goes_on_alone(self):
        ports = free_ports(3)
        members = [raft_engine.Member(id, f"127.0.0.1:{port}") for id, port in enumerate(ports, 1)]
        nodes = [self.node(id=member.id, members=members) for member in members]
        leader = nodes[nodes[0].wait_for_leader(timeout=SECONDS) - 1]
        index = leader.propose(b"kept", timeout=SECONDS).index
        until(lambda: all(node.status().applied >= index for node in nodes), "everybody has it")
        data = [self.folder / str(member.id) for member in members]
        with self.assertRaises(errors.DirectoryLocked):
            recover.inspect(data[2])
        for node in nodes:
            node.close()

        found = recover.inspect(data[2])
        self.assertEqual((found.cluster, found.server), ("test", 3))
        (group,) = found.groups
        self.assertEqual((group.voters, group.recovered), ((1, 2, 3), False))
        last = f"{group.last_term}:{group.last_index}"
        status, out, _ = run(*data)
        self.assertEqual((status, out.count("(term:index)")), (0, 3))
        self.assertIn(f"server 3: last {last}", out)

        wanted = [data[2], "--cluster", "test", "--id", 3, "--group", group.group]
        accepted = "--i-accept-that-data-may-be-lost"
        status, out, error = run(*wanted, "--last", last)
        self.assertEqual((status, "BECOMES COMMITTED" in out, "Nothing was done" in error), (1, True, True))
        status, _, error = run(*wanted, "--last", f"{group.last_term}:{group.last_index - 1}", accepted)
        self.assertEqual((status, f"ends at {last}" in error), (1, True))
        self.assertEqual(run(*wanted, accepted)[0], 2)
        self.assertEqual(run(*wanted, "--last", "1-2", accepted)[0], 2)
        self.assertEqual(recover.inspect(data[2]), found)

        status, out, error = run(*wanted, "--last", last, accepted)
        self.assertEqual((status, error), (0, ""))
        self.assertIn("voters 3, lineage", out)
        status, _, error = run(*wanted, "--last", last, accepted)
        self.assertEqual((status, "only voter" in error), (1, True))
        (after,) = recover.inspect(data[2]).groups
        self.assertEqual((after.voters, after.recovered, after.last_index), ((3,), True, group.last_index + 1))
        self.assertNotEqual(after.lineage, group.lineage)

        machine = Journal()
        alone = self.node(machine, id=3, members=members)
        self.assertEqual(alone.wait_for_leader(timeout=SECONDS), 3)
        alone.propose(b"new", timeout=SECONDS)
        self.assertEqual(machine.items, [b"kept", b"new"])

    def test_what_is_no_server_is_told(self):
        with self.assertRaises(errors.RecoveryError):
            recover.inspect(self.folder)
        with self.assertRaises(errors.OpenError):
            recover.inspect(self.folder / "missing")
        self.assertEqual(list(self.folder.iterdir()), [])
        self.assertEqual(run(self.folder)[0], 1)


if __name__ == "__main__":
    unittest.main()
