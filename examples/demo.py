"""Three servers of one group, two in C and one in Python: the leader is killed, and nothing is lost.

    make demo

It builds what it needs, starts the servers on loopback, writes through redis-py, kills the leader with SIGKILL in the
middle of it, measures how long no write was acknowledged, restarts the dead server, waits until it has caught up, and
looks for every write that was acknowledged. It ends with 0 only if all of them are there.
"""

import contextlib
import os
import queue
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

ROOT = Path(__file__).resolve().parent.parent
KV_IN_C = os.environ.get("RAFT_KV_C", str(ROOT / "build" / "kv-c"))
KV_IN_PYTHON = ROOT / "examples" / "kv-python" / "kv.py"
PATIENCE_SECONDS = 30
WRITES_BEFORE = 3000
WRITES_WHILE_DEAD = 3000
WRITES_AFTER = 1000
BOLD, DIM, GREEN, RED, PLAIN = ("\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m") if sys.stdout.isatty() else [""] * 5


def connect(address):
    """A client that sends each request once: whether to send it again is for the writer to know."""
    host, port = address.rsplit(":", 1)
    return redis.Redis(host, int(port), decode_responses=True, socket_timeout=5, retry=Retry(NoBackoff(), 0))


def say(text=""):
    print(text, flush=True)


def step(text):
    say(f"\n{BOLD}{text}{PLAIN}")


def give_up(text):
    raise SystemExit(f"{RED}{text}{PLAIN}")


def wait_for(what, ask):
    """Asks until there is an answer."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        answer = ask()
        if answer is not None:
            return answer
        time.sleep(0.01)
    give_up(f"waited {PATIENCE_SECONDS} s for {what}")


def free_address():
    """A loopback port that nobody has, below those that the system gives to outgoing connections."""
    while True:
        port = random.randrange(10_000, 32_000)
        with contextlib.closing(socket.socket()) as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return f"127.0.0.1:{port}"


class Server:
    """One member: a process, its data directory, and what it prints."""

    def __init__(self, number, language, folder):
        self.number, self.language = number, language
        self.data = folder / f"server-{number}"
        self.raft, self.resp = free_address(), free_address()
        self.log = (folder / f"server-{number}.log").open("wb")
        self.process = None

    def member(self):
        return f"{self.number}={self.raft}/{self.resp}"

    def start(self, members):
        program = [KV_IN_C] if self.language == "C" else [sys.executable, str(KV_IN_PYTHON)]
        command = [*program, "--cluster", "demo", "--id", str(self.number), "--data", str(self.data)]
        command += ["--raft", self.raft, "--resp", self.resp]
        for member in members:
            command += ["--member", member]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self.log, text=True)
        lines = queue.Queue()

        def read(stream):
            for line in stream:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, args=(self.process.stdout,), daemon=True).start()
        while True:
            try:
                line = lines.get(timeout=PATIENCE_SECONDS)
            except queue.Empty:
                give_up(f"server {self.number} is not ready after {PATIENCE_SECONDS} s")
            if line is None:
                give_up(f"server {self.number} ended at once:\n{Path(self.log.name).read_text()}")
            if line.startswith("ready"):
                return

    def client(self):
        return connect(self.resp)

    def status(self):
        """What the server says of itself; None while it does not answer."""
        if self.process is None:
            return None
        try:
            with self.client() as client:
                reply = client.execute_command("RAFT.STATUS")
        except redis.RedisError:
            return None
        return reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2]))

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process = None

    def stop(self):
        self.process.terminate()
        status = self.process.wait(timeout=PATIENCE_SECONDS)
        self.process.stdout.close()
        self.process = None
        return status

    def name(self):
        return f"server {self.number} (in {self.language})"


class Writer:
    """Writes through redis-py wherever the leader is, one key after another, and remembers what it was told."""

    def __init__(self, servers):
        self.servers = servers
        self.client = None
        self.target = servers[0].resp
        self.next = 0
        self.acknowledged, self.refused, self.unknown = [], [], []

    def write(self):
        """One SET of a new key. Whether it was acknowledged."""
        try:
            client = self.connection()
        except redis.RedisError:
            self.leave(self.another())  # Nobody there: nothing was sent.
            return False
        self.next += 1
        number = self.next
        try:
            client.set(f"write:{number}", number)
        except redis.exceptions.MovedError as moved:
            # Certainly not applied: the leader is elsewhere.
            self.leave(f"{moved.host}:{moved.port}")
            self.refused.append(number)
        except (redis.exceptions.TryAgainError, redis.exceptions.ClusterDownError):
            self.leave(self.another())
            self.refused.append(number)
        except redis.RedisError:
            # The connection broke, or the server said so itself: this write may be applied or not.
            self.leave(self.another())
            self.unknown.append(number)
        else:
            self.acknowledged.append(number)
            return True
        return False

    def until_acknowledged(self, count):
        """Writes until `count` more writes were acknowledged."""
        goal = len(self.acknowledged) + count
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(self.acknowledged) < goal:
            if not self.write():
                if time.monotonic() > deadline:
                    give_up(f"no write was acknowledged for {PATIENCE_SECONDS} s")
                time.sleep(0.002)

    def connection(self):
        if self.client is None:
            client = connect(self.target)
            client.ping()
            self.client = client
        return self.client

    def another(self):
        addresses = [server.resp for server in self.servers]
        return addresses[(addresses.index(self.target) + 1) % len(addresses)]

    def leave(self, target):
        if self.client is not None:
            self.client.close()
        self.client, self.target = None, target


def leader_of(servers):
    """The one server that leads and is followed by all that run, if there is one."""
    statuses = [(server, server.status()) for server in servers if server.process is not None]
    if any(status is None for _, status in statuses):
        return None
    leaders = [server for server, status in statuses if status["role"] == "leader"]
    if len(leaders) != 1 or any(int(status["leader"]) != leaders[0].number for _, status in statuses):
        return None
    return leaders[0]


def show(servers):
    for server in servers:
        status = server.status()
        if status is None:
            say(f"    {server.name():22} {RED}down{PLAIN}")
        else:
            say(
                f"    {server.name():22} {status['role']:9} term {status['term']}  applied {int(status['applied']):6}"
                f"  keys {int(status['keys']):6}  digest {status['digest']}"
            )


def equal(servers):
    """True once all servers have applied the same and hold the same."""
    statuses = [server.status() for server in servers]
    if any(status is None for status in statuses):
        return None
    return True if len({(int(status["applied"]), status["digest"]) for status in statuses}) == 1 else None


def verify(writer, server):
    """How many acknowledged writes are missing, and how many refused ones are there."""
    client = server.client()

    def read(numbers):
        values = []
        for at in range(0, len(numbers), 500):
            values += client.mget([f"write:{number}" for number in numbers[at : at + 500]])
        return values

    missing = sum(value != str(number) for number, value in zip(writer.acknowledged, read(writer.acknowledged)))
    ghosts = sum(value is not None for value in read(writer.refused))
    client.close()
    return missing, ghosts


def demonstrate(servers):
    members = [server.member() for server in servers]

    step("1. Three servers start: one group, two languages, one log")
    for server in servers:
        server.start(members)
        say(f"    {server.name():22} listens for peers at {server.raft}, for Redis clients at {server.resp}")
    leader = wait_for("a leader", lambda: leader_of(servers))
    say(f"    {GREEN}{leader.name()} leads{PLAIN}")

    step(f"2. redis-py writes {WRITES_BEFORE} keys, one after another, each on two disks before it is acknowledged")
    writer = Writer(servers)
    writer.until_acknowledged(1)
    began = time.monotonic()
    writer.until_acknowledged(WRITES_BEFORE)
    say(f"    {WRITES_BEFORE / (time.monotonic() - began):.0f} acknowledged writes a second from one client")
    show(servers)

    step(f"3. kill -9 of the leader, {leader.name()}, while the client writes on")
    dead = leader
    killed = threading.Event()
    moment = []

    def kill():
        moment.append(time.monotonic())
        dead.kill()
        killed.set()

    # From another thread, so that it hits a write in flight.
    threading.Thread(target=kill).start()
    last_before = time.monotonic()
    while not killed.is_set():
        if writer.write():
            last_before = time.monotonic()
    writer.until_acknowledged(1)
    gap_ms = (time.monotonic() - max(last_before, moment[0])) * 1000
    leader = wait_for("a new leader", lambda: leader_of(servers))
    say(f"    {GREEN}{leader.name()} leads now; {gap_ms:.0f} ms without an acknowledged write{PLAIN}")
    say(f"    {len(writer.unknown)} write(s) of unknown outcome, {len(writer.refused)} certainly not applied")
    writer.until_acknowledged(WRITES_WHILE_DEAD)
    show(servers)

    step(f"4. {dead.name()} starts again, with what is on its disk")
    began = time.monotonic()
    dead.start(members)
    writer.until_acknowledged(WRITES_AFTER)
    wait_for("the server to catch up", lambda: equal(servers))
    say(f"    {GREEN}caught up{PLAIN}, {(time.monotonic() - began) * 1000:.0f} ms after its start, {WRITES_AFTER} more writes included")
    show(servers)

    step("5. Every acknowledged write is looked for")
    leader = wait_for("a leader", lambda: leader_of(servers))
    missing, ghosts = verify(writer, leader)
    if missing or ghosts:
        give_up(f"    {missing} acknowledged writes are MISSING, {ghosts} refused writes are there")
    say(f"    {GREEN}all {len(writer.acknowledged)} acknowledged writes are there; none that was refused is{PLAIN}")
    say("    all three replicas hold the same state")

    step("6. SIGTERM")
    for server in servers:
        status = server.stop()
        if status != 0:
            give_up(f"    {server.name()} ended with {status}")
    say("    all servers ended with 0, everything on disk")


def main():
    folder = Path(tempfile.mkdtemp(prefix="raft-demo-"))
    servers = [Server(1, "C", folder), Server(2, "C", folder), Server(3, "Python", folder)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        demonstrate(servers)
    finally:
        for server in servers:
            if server.process is not None:
                server.kill()
            server.log.close()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
