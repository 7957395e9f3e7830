"""Servers at the ends of processes: exit without close, fork, Ctrl-C. And the program of the README."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import unittest
from pathlib import Path

import raft_engine
from support import SECONDS, NodeTest, free_ports

README = Path(__file__).resolve().parent.parent / "README.md"
OPEN = """
import raft_engine, sys, os, signal, threading

class Machine(raft_engine.StateMachine):
    def apply_entry(self, entry):
        return entry.data

node = raft_engine.Node(cluster="test", id=1, data_dir="data", listen="127.0.0.1:0", state_machine=Machine(),
                        members=[raft_engine.Member(1, "127.0.0.1:1")])
node.wait_for_leader(60)
assert node.propose(b"a", 60).result == b"a"
"""


class Processes(NodeTest):
    def run_program(self, text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", text],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    def check(self, text: str, expected: str = "", code: int = 0) -> None:
        done = self.run_program(text)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (code, expected, ""))

    def test_the_program_of_the_readme_counts_on(self):
        [program] = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
        self.assertLessEqual(len([line for line in program.splitlines() if line.strip()]), 15)
        program = program.replace("7101", str(free_ports(1)[0]))
        self.check(program, "5\n")
        self.check(program, "10\n")

    def test_an_exit_without_close_is_a_close(self):
        self.check(OPEN + "futures = node.submit_many([b'x'] * 1000); print('end')", "end\n")
        self.check(OPEN + "sys.exit(3)", code=3)

    def test_an_exit_with_a_thread_that_waits_ends(self):
        done = self.run_program(
            OPEN + "threading.Thread(target=lambda: node.read(raft_engine.at_least(1 << 40)), daemon=True).start()"
        )
        self.assertEqual(done.returncode, 0)

    def test_an_interrupt_ends_a_wait(self):
        self.check(
            OPEN
            + """
# A shell's background job inherits an interrupt that is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    node.read(raft_engine.at_least(1 << 40))
except KeyboardInterrupt:
    print("interrupted")
node.close()
""",
            "interrupted\n",
        )

    def test_after_a_fork_the_server_is_the_parents(self):
        done = self.run_program(
            OPEN
            + """
import warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks with threads.
child = os.fork()
if child == 0:
    for call in (lambda: node.propose(b"x"), lambda: node.submit(b"x"), node.status, node.close, node.server.status):
        try:
            call()
        except raft_engine.Forked:
            continue
        os._exit(1)
    del node
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert node.propose(b"b", 60).result == b"b"
node.close()
"""
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
