#!/usr/bin/env python3
"""Measures three servers on loopback beside the floor, and writes a table and bench/out/latest.json.

What each figure is and how it comes about stands in bench/README.md. Builds are made by `make bench`, which calls this.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import queue
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE / "out"
DATA = OUT / "data"

RUN_MS = 2000
FAILOVERS = 10
LOADED_ENTRIES = 1_000_000
LOADED_BYTES = 128
IDLE_SECONDS = 3.0
ANSWER_SECONDS = 30.0
# With these, a million entries stay in the log and no snapshot is taken.
KEEP_THE_LOG = {"snapshot_log_bytes": 8 << 30, "log_bytes": 16 << 30}


@dataclasses.dataclass
class Measure:
    """One figure: its rounds, ours and the floor's, and what it must reach."""

    name: str
    title: str
    unit: str
    # The bound, on the ratio where there is a floor, else on the figure; none for what is only reported.
    target: float | None
    higher_is_better: bool
    ours: list[float] = dataclasses.field(default_factory=list)
    floor: list[float] = dataclasses.field(default_factory=list)

    @property
    def bounded(self) -> float:
        """What the target speaks of."""
        ours = statistics.median(self.ours)
        return ours / statistics.median(self.floor) if self.floor else ours

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.bounded >= self.target if self.higher_is_better else self.bounded <= self.target

    def as_json(self) -> dict:
        floor = statistics.median(self.floor) if self.floor else None
        return {
            "ours": statistics.median(self.ours),
            "floor": floor,
            "ratio": self.bounded if floor is not None else None,
            "unit": self.unit,
            "rounds": len(self.ours),
            "target": self.target,
            "target_is": ("at least, " if self.higher_is_better else "at most, ") + ("ratio" if self.floor else "ours"),
            "met": self.met,
            "ours_rounds": self.ours,
            "floor_rounds": self.floor,
        }


def measures() -> dict[str, Measure]:
    rows = [
        Measure("throughput_256x128", "256 outstanding, 128 B", "entries/s", 0.45, True),
        Measure("throughput_256x4096", "256 outstanding, 4 KiB", "entries/s", 0.45, True),
        Measure("throughput_4096x128", "4,096 outstanding, 128 B", "entries/s", 0.25, True),
        Measure("latency_p50_1x128", "1 outstanding, 128 B, p50", "us", 1.5, False),
        Measure("latency_p99_1x128", "1 outstanding, 128 B, p99", "us", None, False),
        Measure("failover", "SIGKILL of the leader to the next commit", "s", 0.35, False),
        Measure("restart_1m", "restart with 1 M entries to first commit", "s", 1.0, False),
        Measure("leader_rss_1m", "leader RSS after 1 M entries", "MB", 128.0, False),
        Measure("idle_cpu", "idle server, busiest of three", "% of a core", 0.3, False),
    ]
    return {row.name: row for row in rows}


class NodeError(Exception):
    """A node died, did not answer in time, or answered with an error."""


class Node:
    """One server process, commanded by lines on its standard input; each answer is a line of JSON."""

    def __init__(self, binary: Path, number: int, cluster: Cluster) -> None:
        self.number = number
        self.log = cluster.dir / f"node-{number}.log"
        command = [str(binary), "--cluster", "bench", "--id", str(number), "--data", str(cluster.dir / str(number))]
        for member, port in cluster.ports.items():
            command += ["--member", f"{member}=127.0.0.1:{port}"]
        for key, value in cluster.config.items():
            command += ["--config", f"{key}={value}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1
            )
        self._answers: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def say(self, command: str) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(command + "\n")
        except (BrokenPipeError, ValueError) as error:
            raise NodeError(self._told(f"server {self.number} is gone")) from error

    def answer(self, reply: str, timeout_s: float = ANSWER_SECONDS) -> dict:
        """The next answer of the kind `reply`; answers to commands given up before are passed over."""
        until = time.monotonic() + timeout_s
        while True:
            try:
                line = self._answers.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise NodeError(self._told(f"server {self.number}: no {reply} in {timeout_s} s")) from None
            if line is None:
                raise NodeError(self._told(f"server {self.number} ended with {self.process.wait()}"))
            answer = json.loads(line)
            if answer["reply"] != reply:
                continue
            if "error" in answer:
                raise NodeError(self._told(f"server {self.number}: {reply}: {answer['error']}"))
            return answer

    def ask(self, command: str, timeout_s: float = ANSWER_SECONDS) -> dict:
        self.say(command)
        return self.answer(command.split()[0], timeout_s)

    def _told(self, what: str) -> str:
        said = self.log.read_text(errors="replace").splitlines()[-10:] if self.log.exists() else []
        return "\n  ".join([what, *said])

    def end(self, signal_number: int) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal_number)
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            print(f"server {self.number} did not end within 10 s of signal {signal_number}", file=sys.stderr)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def resident_mb(self) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise NodeError(f"no VmRSS of server {self.number}")

    def cpu_ns(self) -> int:
        """Nanoseconds on a processor, all threads together: clock ticks are too coarse for an idle server."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


class Cluster:
    """Three servers on loopback, their data below one directory."""

    def __init__(self, binary: Path, name: str, config: dict[str, object]) -> None:
        self.binary = binary
        self.dir = DATA / name
        self.dir.mkdir(parents=True)
        self.config = config
        self.ports = dict(zip((1, 2, 3), free_ports(3), strict=True))
        self.nodes: dict[int, Node] = {}

    def start(self, numbers: list[int] | None = None) -> None:
        for number in numbers or list(self.ports):
            self.nodes[number] = Node(self.binary, number, self)

    def end(self, signal_number: int = signal.SIGTERM) -> None:
        # All at once first: a server that ends alone would make the others elect.
        for node in self.nodes.values():
            if node.process.poll() is None:
                node.process.send_signal(signal_number)
        for node in self.nodes.values():
            node.end(signal_number)
        self.nodes.clear()

    def settled(self, timeout_s: float = ANSWER_SECONDS) -> tuple[Node, dict]:
        """Waits until all agree on one leader and have applied the same; the leader and its status."""
        until = time.monotonic() + timeout_s
        while True:
            answers = {number: node.ask("status") for number, node in self.nodes.items()}
            leaders = [number for number, answer in answers.items() if answer["role"] == "leader"]
            if len(leaders) == 1:
                leader = answers[leaders[0]]
                same = all(
                    answer["leader"] == leaders[0]
                    and answer["term"] == leader["term"]
                    and answer["applied"] == leader["commit"]
                    for answer in answers.values()
                )
                if same and leader["commit"] > 0:
                    return self.nodes[leaders[0]], leader
            if time.monotonic() > until:
                raise NodeError(f"no settled leader in {timeout_s} s: {answers}")
            time.sleep(0.02)

    def agree(self) -> None:
        """Every replica has applied the same entries to the same end: a benchmark of wrong results is worth nothing."""
        self.settled()
        sums = {(answer["entries"], answer["checksum"]) for answer in (n.ask("status") for n in self.nodes.values())}
        if len(sums) != 1:
            raise NodeError(f"the replicas differ: {sums}")


@contextlib.contextmanager
def cluster(binary: Path, name: str, config: dict[str, object]) -> Iterator[Cluster]:
    servers = Cluster(binary, name, config)
    try:
        servers.start()
        yield servers
    finally:
        servers.end()
        shutil.rmtree(servers.dir, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Bench:
    def __init__(self, binaries: Path, rounds: int, config: dict[str, object], wanted: Callable[[str], bool]) -> None:
        self.node = binaries / "bench-node"
        self.floor_program = binaries / "floor"
        self.rounds = rounds
        self.config = config
        self.all = measures()
        self.wanted = {name for name in self.all if wanted(name)}
        self.disk_backend: str | None = None
        self.leader_changes = 0
        self.busy_elsewhere = 0.0

    def run(self) -> None:
        began, busy = time.monotonic(), busy_seconds()
        self.measure()
        # What others did meanwhile: figures taken beside a build say little.
        self.busy_elsewhere = max(0.0, busy_seconds() - busy) / (time.monotonic() - began)

    def measure(self) -> None:
        self.shapes()
        self.failover()
        self.million()
        self.idle()

    def keep(self, name: str, ours: float, floor: float | None = None) -> None:
        measure = self.all[name]
        measure.ours.append(ours)
        if floor is not None:
            measure.floor.append(floor)
        beside = "" if floor is None else f"   floor {figure(floor)}   ratio {ours / floor:.2f}"
        print(f"  {measure.title:<42} {figure(ours):>12} {measure.unit}{beside}", flush=True)

    def floor(self, entries: int, size: int) -> dict:
        command = [str(self.floor_program), "--dir", str(DATA), "--entries", str(entries), "--bytes", str(size)]
        done = subprocess.run([*command, "--ms", str(RUN_MS)], check=True, capture_output=True, text=True, timeout=60)
        return json.loads(done.stdout)

    def ours(self, servers: Cluster, entries: int, size: int) -> dict:
        for _ in range(3):
            leader, _ = servers.settled()
            try:
                return leader.ask(f"run {entries} {size} {RUN_MS}")
            except NodeError as error:
                self.leader_changes += 1
                print(f"  again: {error}", file=sys.stderr)
        raise NodeError("no run went through without a change of the leader")

    def shapes(self) -> None:
        """Throughput and latency; the floor and ours take turns."""
        shapes = [(256, 128), (256, 4096), (4096, 128), (1, 128)]
        names = {
            (entries, size): [name for name in self.wanted if name.endswith(f"_{entries}x{size}")]
            for entries, size in shapes
        }
        if not any(names.values()):
            return
        with cluster(self.node, "shapes", self.config) as servers:
            _, status = servers.settled()
            self.disk_backend = status.get("disk")
            for number in range(self.rounds):
                print(f"round {number + 1} of {self.rounds}", flush=True)
                for entries, size in shapes:
                    if not names[entries, size]:
                        continue
                    # Which goes first changes from round to round, so that neither always meets the other's remains.
                    if number % 2 == 0:
                        floor = self.floor(entries, size)
                        ours = self.ours(servers, entries, size)
                    else:
                        ours = self.ours(servers, entries, size)
                        floor = self.floor(entries, size)
                    for name in sorted(names[entries, size]):
                        key = {"throughput": "entries_per_s", "latency_p50": "p50_us", "latency_p99": "p99_us"}[
                            name.rsplit("_", 1)[0]
                        ]
                        self.keep(name, ours[key], floor[key])
            servers.agree()

    def failover(self) -> None:
        """SIGKILL of the leader to the next commit, while both survivors propose."""
        if "failover" not in self.wanted:
            return
        print("failover", flush=True)
        with cluster(self.node, "failover", self.config) as servers:
            for _ in range(FAILOVERS):
                leader, status = servers.settled()
                # The moment within a heartbeat interval must not be always the same.
                time.sleep(random.uniform(0.0, 0.1))
                killed_ns = time.monotonic_ns()
                leader.process.kill()
                survivors = [node for node in servers.nodes.values() if node is not leader]
                for node in survivors:
                    node.say(f"probe {status['term']}")
                self.keep("failover", (first_commit_ns(survivors) - killed_ns) / 1e9)
                leader.end(signal.SIGKILL)
                servers.start([leader.number])
            servers.agree()

    def load(self, servers: Cluster) -> Node:
        """Proposes the million; who led at its end."""
        for _ in range(5):
            leader, status = servers.settled()
            missing = LOADED_ENTRIES - status["entries"]
            if missing <= 0:
                return leader
            try:
                leader.ask(f"load {missing} {LOADED_BYTES} 4096", timeout_s=120)
                return leader
            except NodeError as error:
                self.leader_changes += 1
                print(f"  on with another leader: {error}", file=sys.stderr)
        raise NodeError("the million was not applied without five changes of the leader")

    def million(self) -> None:
        """The leader's memory after a million entries, and how soon all three, killed and started again, commit."""
        if not self.wanted & {"leader_rss_1m", "restart_1m"}:
            return
        print(f"{LOADED_ENTRIES} entries of {LOADED_BYTES} B", flush=True)
        for number in range(self.rounds):
            with cluster(self.node, f"million-{number}", {**self.config, **KEEP_THE_LOG}) as servers:
                leader = self.load(servers)
                if "leader_rss_1m" in self.wanted:
                    self.keep("leader_rss_1m", leader.resident_mb())
                if "restart_1m" not in self.wanted:
                    continue
                _, status = servers.settled()
                servers.end(signal.SIGKILL)
                started_ns = time.monotonic_ns()
                servers.start()
                for node in servers.nodes.values():
                    node.say(f"probe {status['term']}")
                self.keep("restart_1m", (first_commit_ns(list(servers.nodes.values())) - started_ns) / 1e9)
                servers.agree()

    def idle(self) -> None:
        """Processor time of servers that nobody talks to but each other."""
        if "idle_cpu" not in self.wanted:
            return
        print("idle", flush=True)
        with cluster(self.node, "idle", self.config) as servers:
            servers.settled()
            time.sleep(1.0)
            for _ in range(self.rounds):
                before = {number: node.cpu_ns() for number, node in servers.nodes.items()}
                began_ns = time.monotonic_ns()
                time.sleep(IDLE_SECONDS)
                spent = max(node.cpu_ns() - before[number] for number, node in servers.nodes.items())
                self.keep("idle_cpu", 100.0 * spent / (time.monotonic_ns() - began_ns))

    def report(self, seconds: float) -> dict:
        return {
            "about": {
                "machine": platform.machine(),
                "kernel": platform.release(),
                "processors": os.cpu_count(),
                "commit": commit(),
                "disk": self.disk_backend,
                "leader_changes": self.leader_changes,
                "processors_busy_elsewhere": round(self.busy_elsewhere, 2),
                "seconds": round(seconds, 1),
            },
            "measures": {name: measure.as_json() for name, measure in self.all.items() if measure.ours},
        }


def first_commit_ns(nodes: list[Node]) -> int:
    """When the first of the probing nodes had a proposal applied; then all probes are ended."""
    answers: queue.Queue[dict | NodeError] = queue.Queue()

    def wait(node: Node) -> None:
        try:
            answers.put(node.answer("probe"))
        except NodeError as error:
            answers.put(error)

    threads = [threading.Thread(target=wait, args=(node,)) for node in nodes]
    for thread in threads:
        thread.start()
    found: list[int] = []
    failed: NodeError | None = None
    for _ in nodes:
        answer = answers.get()
        if isinstance(answer, NodeError):
            failed = answer
        elif "at_ns" in answer:
            found.append(answer["at_ns"])
            for node in nodes:
                node.say("cancel")
    for thread in threads:
        thread.join()
    if failed is not None:
        raise failed
    return min(found)


def busy_seconds() -> float:
    """Processor time of everything but this program and those that it started and has seen the end of; in seconds."""
    user, nice, system = (int(ticks) for ticks in Path("/proc/stat").read_text().split(maxsplit=4)[1:4])
    own = os.times()
    own_seconds = own.user + own.system + own.children_user + own.children_system
    return (user + nice + system) / os.sysconf("SC_CLK_TCK") - own_seconds


def commit() -> str | None:
    done = subprocess.run(["git", "-C", str(HERE), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() or None


def figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(rows: list[Measure]) -> str:
    lines = [f"{'measure':<42} {'ours':>12} {'floor':>12} {'ratio':>6} {'target':>9}  unit"]
    for row in rows:
        floor = figure(statistics.median(row.floor)) if row.floor else ""
        ratio = f"{row.bounded:.2f}" if row.floor else ""
        sign = ">=" if row.higher_is_better else "<="
        target = "" if row.target is None else f"{sign} {row.target:g}"
        missed = "   MISSED" if row.met is False else ""
        ours = figure(statistics.median(row.ours))
        lines.append(f"{row.title:<42} {ours:>12} {floor:>12} {ratio:>6} {target:>9}  {row.unit}{missed}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", type=Path, default=HERE.parent / "build" / "bench", help="where the programs are")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", default=[], help="measures whose name contains this; repeatable")
    parser.add_argument("--backend", choices=["aio", "thread"], help="force a disk back end")
    parser.add_argument("--config", action="append", default=[], metavar="KEY=VALUE", help="any engine setting")
    options = parser.parse_args()

    config: dict[str, object] = dict(item.split("=", 1) for item in options.config)
    if options.backend:
        config["disk_backend"] = options.backend
    shutil.rmtree(DATA, ignore_errors=True)
    DATA.mkdir(parents=True)
    bench = Bench(
        options.bin,
        options.rounds,
        config,
        lambda name: not options.only or any(part in name for part in options.only),
    )
    began = time.monotonic()
    try:
        bench.run()
    except NodeError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(DATA, ignore_errors=True)
    seconds = time.monotonic() - began
    report = bench.report(seconds)
    # A part of the measures must not pass for all of them.
    name = "latest.json" if not options.only else "partial.json"
    (OUT / name).write_text(json.dumps(report, indent=2) + "\n")
    rows = [measure for measure in bench.all.values() if measure.ours]
    print(f"\n{table(rows)}\n\n{seconds:.0f} s, disk back end {bench.disk_backend}; {OUT / name}")
    if bench.busy_elsewhere > 0.1:
        print(f"Other programs kept {bench.busy_elsewhere:.2f} processors busy meanwhile: measure again when they end.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
