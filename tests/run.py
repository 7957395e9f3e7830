"""Runs everything that CI checks, a step at a time, and ends with a true count of what passed and what failed.

    python3 tests/run.py             every step
    python3 tests/run.py unit sim    only these
    python3 tests/run.py --list      their names

A step is a command. What it prints is shown as it comes and kept in build/test/STEP.log. Its tests are counted from what
its test runner says of itself; a step that counts nothing, or that fails without saying how often, counts as one. A
failed step does not keep the others from running, unless they need what it builds.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / "build" / "test"
SIMULATOR_SEEDS = 5000
EXHAUSTIVE_STATES = 1_500_000
CHECKED = ["--profile", "checked"]
CARGO = os.environ.get("CARGO", "cargo")


def cargo(*words):
    return [CARGO, *words]


def make(*words):
    return ["make", "--no-print-directory", *words]


# Name, what it is for, command, and the steps that must have passed before.
STEPS = [
    ("tools", "programs that tests call", make("tools"), []),
    ("format", "sources are formatted", cargo("fmt", "--all", "--check"), []),
    ("lint", "no lint fires", cargo("clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"), []),
    ("mutants", "every mutant still fits the sources", [sys.executable, "tests/mutants/run.py", "--check"], []),
    ("five-mutants", "five broken rules are noticed", [sys.executable, "tests/mutants/run.py", "--five", "--seeds", "0"], ["mutants"]),
    ("unit", "unit tests, recovery, edges", cargo("test", "--workspace", "--no-fail-fast", *CHECKED), []),
    (
        "sim",
        f"{SIMULATOR_SEEDS} seeds of the simulator",
        make("sim", f"SEEDS={SIMULATOR_SEEDS}"),
        [],
    ),
    (
        "exhaustive",
        f"the first {EXHAUSTIVE_STATES} states of each small world",
        make("exhaustive", f"STATES={EXHAUSTIVE_STATES}"),
        [],
    ),
    ("header", "raft.h is what the C ABI says", cargo("run", "--quiet", *CHECKED, "-p", "raft-header", "--", "--check"), []),
    ("standards", "raft.h compiles alone, C99 to C++20", ["sh", "tests/header.sh"], ["tools"]),
    ("examples", "libraft and the example in C build", make("examples"), []),
    ("kv-c", "the example in C, alone", make("-C", "examples/kv-c", "test"), ["examples"]),
    ("python", "the Python package builds", make("python"), []),
    ("pytests", "the Python package, and the example in it", make("pytests"), ["python"]),
    (
        "processes",
        "real servers: kills, clients, mistakes, system calls",
        cargo("test", *CHECKED, "--no-fail-fast", "-p", "raft-tests", "--features", "processes", "--tests", "--", "--test-threads=1"),
        ["tools", "examples", "python"],
    ),
]

CARGO_COUNT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed;", re.M)
UNITTEST_COUNT = re.compile(r"^Ran (\d+) tests? in", re.M)
UNITTEST_BAD = re.compile(r"\b(?:failures|errors)=(\d+)")
OWN_COUNT = re.compile(r"\b(\d+) passed, (\d+) failed$", re.M)


def count(text, succeeded):
    """How many tests of a step passed and failed, by its own account, corrected by its exit status."""
    passed = failed = 0
    for match in CARGO_COUNT.finditer(text):
        passed, failed = passed + int(match[1]), failed + int(match[2])
    for match in OWN_COUNT.finditer(text):
        passed, failed = passed + int(match[1]), failed + int(match[2])
    for match in UNITTEST_COUNT.finditer(text):
        bad = sum(map(int, UNITTEST_BAD.findall(text)))
        passed, failed = passed + int(match[1]) - bad, failed + bad
    if succeeded:
        return max(passed, 1), 0
    return passed, max(failed, 1)


def run_step(name, command):
    """Runs a step; its output goes to the terminal and to its log."""
    log = LOGS / f"{name}.log"
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process, log.open("w") as kept:
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            kept.write(line)
    return process.returncode == 0, log.read_text(errors="replace")


def main():
    names = [name for name, _, _, _ in STEPS]
    wanted = sys.argv[1:]
    if wanted == ["--list"]:
        for name, purpose, _, _ in STEPS:
            print(f"{name:14} {purpose}")
        return 0
    unknown = [name for name in wanted if name not in names]
    if unknown:
        sys.exit(f"tests/run.py: no step {', '.join(unknown)}; there are: {', '.join(names)}")
    LOGS.mkdir(parents=True, exist_ok=True)
    total_passed = total_failed = 0
    table, good = [], set()
    began = time.monotonic()
    for name, purpose, command, needs in STEPS:
        if wanted and name not in wanted:
            good.add(name)  # Taken as done: a developer runs one step again.
            continue
        missing = [need for need in needs if need not in good]
        print(f"\n==> {name}: {purpose}", flush=True)
        step_began = time.monotonic()
        if missing:
            print(f"not run: {', '.join(missing)} failed", flush=True)
            succeeded, passed, failed = False, 0, 1
        else:
            print(f"    {' '.join(command)}", flush=True)
            succeeded, text = run_step(name, command)
            passed, failed = count(text, succeeded)
        if succeeded:
            good.add(name)
        total_passed, total_failed = total_passed + passed, total_failed + failed
        table.append((name, "ok" if succeeded else "FAILED", passed, failed, time.monotonic() - step_began))
    print("\n==> summary (logs in build/test/)")
    for name, verdict, passed, failed, seconds in table:
        print(f"    {name:14} {verdict:7} {passed:5} passed {failed:4} failed {seconds:7.0f} s")
    minutes = (time.monotonic() - began) / 60
    print(f"    {minutes:.1f} minutes in all\n")
    print(f"{total_passed} passed, {total_failed} failed")
    return 0 if total_failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
