"""The same group from asyncio."""

from __future__ import annotations

import asyncio
import unittest

import raft_engine
from support import SECONDS, Journal, NodeTest


class Aio(NodeTest):
    def test_requests_are_awaited(self):
        async def run():
            async with self.node() as node:
                self.assertEqual(await node.aio.wait_for_leader(SECONDS), 1)
                first = await node.aio.propose(b"a", timeout=SECONDS)
                self.assertEqual(first.result, b"1")
                outcomes = await node.aio.propose_many([b"b", b"c"])
                self.assertEqual([outcome.result for outcome in outcomes], [b"2", b"3"])
                self.assertEqual(await node.aio.propose_many([]), [])
                self.assertEqual(await node.aio.query(b"a"), b"1")
                self.assertEqual(await node.aio.read(raft_engine.at_least(first.index)), outcomes[-1].index)
                self.assertEqual(await node.aio.snapshot(), outcomes[-1].index)

        asyncio.run(run())

    def test_requests_are_made_when_they_are_called_and_keep_their_order(self):
        machine = Journal()
        node = self.leader(machine)

        async def run():
            futures = [node.aio.propose(b"%d" % number) for number in range(500)]
            results = await asyncio.gather(*reversed(futures))
            return [applied.index for applied in reversed(results)]

        indices = asyncio.run(run())
        self.assertEqual(indices, sorted(indices))
        self.assertEqual(machine.items, [b"%d" % number for number in range(500)])

    def test_failures_are_raised_by_the_await(self):
        node = self.leader(max_entry_bytes=100)

        async def run():
            refused = node.aio.propose(bytes(101))
            with self.assertRaises(raft_engine.TooLarge):
                await refused
            with self.assertRaises(raft_engine.TimedOut):
                await node.aio.query(b"a", raft_engine.at_least(1 << 40), timeout=0.01)
            with self.assertRaises(raft_engine.Failed):
                await node.aio.query(b"fail")
            outcomes = await node.aio.propose_many([b"a", b"fail"])
            self.assertEqual([type(outcome) for outcome in outcomes], [raft_engine.Applied, raft_engine.Stopped])
            with self.assertRaises(TypeError):
                node.aio.propose("text")

        asyncio.run(run())

    def test_a_cancelled_wait_harms_nobody(self):
        node = self.leader()

        async def run():
            cancelled, other = node.aio.propose(b"a"), node.aio.propose(b"b")
            cancelled.cancel()
            self.assertEqual((await other).result, b"2")
            with self.assertRaises(asyncio.CancelledError):
                await cancelled

        asyncio.run(run())

    def test_a_closed_loop_harms_nobody(self):
        node = self.leader()
        asyncio.run(self.submit_and_leave(node))
        self.assertEqual(node.propose(b"b", timeout=SECONDS).result, b"2")
        self.assertEqual(len(node._bridge.requests), 0)

    async def submit_and_leave(self, node):
        node.aio.propose(b"a")

    def test_close_ends_what_is_awaited(self):
        async def run():
            node = self.node()
            await node.aio.wait_for_leader(SECONDS)
            never = node.aio.read(raft_engine.at_least(1 << 40))
            await node.aclose()
            with self.assertRaises(raft_engine.Closed):
                await never
            with self.assertRaises(raft_engine.Closed):
                await node.aio.propose(b"a")
            with self.assertRaises(raft_engine.Closed):
                await node.aio.wait_for_leader()

        asyncio.run(run())


if __name__ == "__main__":
    unittest.main()
