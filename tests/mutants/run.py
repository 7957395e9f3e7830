"""Breaks one rule of the engine at a time, and sees that the tests notice.

    python3 tests/mutants/run.py                  every mutant that is not yet known to be caught
    python3 tests/mutants/run.py --only vote      those with `vote` in their name
    python3 tests/mutants/run.py --shard 1/4      every fourth of them, from the first on (`make mutants SHARD=1/4`)
    python3 tests/mutants/run.py --five           five of them, the same always: what `make test` runs
    python3 tests/mutants/run.py --seeds 1000     with more seeds of the simulator (200)
    python3 tests/mutants/run.py --seeds 0        without new seeds of the simulator
    python3 tests/mutants/run.py --list           their names, and what was found last
    python3 tests/mutants/run.py --check          only whether every patch still fits the sources

Each `.patch` in this folder breaks one rule; the text before its diff says which. A mutant is caught if the engine's unit
tests or, if these notice nothing, the kept seeds or new ones of the simulator fail with it, or are not through in 90 seconds
(building not counted): what hangs is broken too. The unchanged sources must pass first.

Everything happens in a copy of the sources under build/mutants/, with one build folder for all. What was found is kept in
build/mutants/results.json with a digest of the sources and of the patch, so a run goes on where the last one stopped.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PATCHES = Path(__file__).resolve().parent
WORK = ROOT / "build" / "mutants"
TREE = WORK / "tree"
RESULTS = WORK / "results.json"
CARGO = os.environ.get("CARGO", "cargo")
BASELINE = "unchanged"
BUILD_SECONDS = 1800
# The unchanged sources are given whatever they need.
BASELINE_SECONDS = 1800
RUN_SECONDS = 90
SEEDS = 200
# One rule each of elections, commitment, the disk, reads, and what a server does with its own disk at a restart.
FIVE = [
    "vote-skips-log-check",
    "commit-counts-old-terms",
    "acknowledges-before-sync",
    "read-before-first-commit",
    "vote-forgotten-at-restart",
]


def sources():
    """Everything that the engine's tests are built from, as paths relative to the root."""
    listed = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True)
    names = [name for name in listed.stdout.decode().split("\0") if name]
    return sorted(name for name in names if not name.startswith("tests/mutants/") and (ROOT / name).is_file())


def copy_sources(names):
    """Brings the copy up to date; files that are the same keep their times, so that cargo need not build again."""
    TREE.mkdir(parents=True, exist_ok=True)
    wanted = set(names)
    for path in TREE.rglob("*"):
        if path.is_file() and str(path.relative_to(TREE)) not in wanted:
            path.unlink()
    digest = hashlib.sha256()
    for name in names:
        content = (ROOT / name).read_bytes()
        if name.startswith(("raft-engine/", "Cargo.")):
            digest.update(name.encode() + b"\0" + content + b"\0")
        target = TREE / name
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    return digest.hexdigest()


def run(command, log, seconds):
    """Whether a command succeeded in time: True, False, or None for out of time. Its output goes to the log."""
    environment = dict(os.environ, CARGO_TARGET_DIR=str(WORK / "target"), CARGO_INCREMENTAL="1", RUST_BACKTRACE="0")
    with log.open("ab") as out:
        out.write(f"$ {' '.join(command)}\n".encode())
        out.flush()
        process = subprocess.Popen(command, cwd=TREE, stdout=out, stderr=subprocess.STDOUT, env=environment, process_group=0)
        try:
            return process.wait(timeout=seconds) == 0
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, 9)  # Its own group: cargo and the test that hangs.
                process.wait()


def judge(name, seeds, seconds):
    """Builds and runs what should notice: who noticed, or None; a mutant that does not build ends the script."""
    log = WORK / f"{name}.log"
    log.unlink(missing_ok=True)
    engine = ["-p", "raft-engine"]
    checked = [*engine, "--profile", "checked"]
    # Not the tests of the real server: it decides nothing, and waits for real clocks.
    stages = [
        ("unit tests", [CARGO, "test", *engine, "--lib"], ["--no-run"]),
        ("kept seeds", [CARGO, "test", *checked, "--test", "simulator"], ["--no-run"]),
    ]
    if seeds:
        simulator = [CARGO, "run", *checked, "--bin", "raft-sim", "--", "--seeds", str(seeds)]
        stages.append(("simulator", [*simulator, "--threads", str(os.cpu_count())], None))
    left = seconds
    # The first that fails is enough, and the next is built only where it notices nothing.
    for who, command, built_only in stages:
        build = [*command, *built_only] if built_only else [CARGO, "build", *checked, "--bin", "raft-sim"]
        if not run(build, log, BUILD_SECONDS):
            sys.exit(f"{name}: does not build, see {log}")
        began = time.monotonic()
        if not run(command, log, left):
            return who
        left -= time.monotonic() - began
    return None


def apply(patch):
    """Applies a patch to the copy."""
    command = ["git", "apply", "-C1", f"--directory={TREE.relative_to(ROOT)}", str(patch)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True)
    if done.returncode != 0:
        sys.exit(f"{patch.name} does not fit the sources any more:\n{done.stderr.decode()}")


def check(patches):
    """Whether every patch fits the sources as they are."""
    unfit = 0
    for patch in patches:
        done = subprocess.run(["git", "apply", "-C1", "--check", str(patch)], cwd=ROOT, capture_output=True)
        if done.returncode != 0:
            unfit += 1
            print(f"{patch.name} does not fit the sources any more:\n{done.stderr.decode()}")
    print(f"{len(patches) - unfit} passed, {unfit} failed")
    return 1 if unfit else 0


def shard(patches, part):
    """Every n-th patch, of `i/n`."""
    try:
        which, parts = (int(number) for number in part.split("/"))
    except ValueError:
        sys.exit(f"tests/mutants/run.py: a shard is i/n, for example 1/4, and not {part}")
    if not 1 <= which <= parts:
        sys.exit(f"tests/mutants/run.py: there is no shard {part}")
    return patches[which - 1 :: parts]


def purpose(patch):
    """The first line of a patch: which rule it breaks."""
    return patch.read_text().splitlines()[0]


def verdict_of(name, noticed):
    """What was found of a mutant, or of the unchanged sources, in words."""
    if noticed:
        return f"caught by {noticed}"
    return "passes" if name == BASELINE else "NOT CAUGHT"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--only", default="", help="a part of the names to run")
    arguments.add_argument("--shard", default="1/1", help="i/n: every n-th mutant")
    arguments.add_argument("--five", action="store_true", help="five of them, the same always")
    arguments.add_argument("--seeds", type=int, default=SEEDS)
    arguments.add_argument("--again", action="store_true", help="also those that are known to be caught")
    arguments.add_argument("--list", action="store_true")
    arguments.add_argument("--check", action="store_true", help="only whether every patch still fits the sources")
    options = arguments.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    patches = [patch for patch in sorted(PATCHES.glob("*.patch")) if options.only in patch.stem]
    patches = shard(patches, options.shard)
    if options.five:
        patches = [PATCHES / f"{name}.patch" for name in FIVE]
    if options.list:
        for patch in patches:
            known = results.get(patch.stem)
            verdict = verdict_of(patch.stem, known["noticed"]) if known else "not run"
            print(f"{patch.stem:40} {verdict:26} {purpose(patch)}")
        return 0
    if options.check:
        return check(patches)
    digest = copy_sources(sources())
    caught, survivors = 0, []
    for patch in [None, *patches]:
        name = patch.stem if patch else BASELINE
        key = hashlib.sha256(digest.encode() + (patch.read_bytes() if patch else b"")).hexdigest()
        known = results.get(name, {})
        # What passes must have passed as many seeds; what was caught by fewer is caught by more.
        is_known = known.get("key") == key and (bool(known["noticed"]) if patch else known["seeds"] >= options.seeds)
        if is_known and not options.again:
            caught += bool(patch)
            print(f"{name:40} known: {verdict_of(name, known['noticed'])}")
            continue
        began = time.monotonic()
        if patch:
            apply(patch)
        try:
            noticed = judge(name, options.seeds, RUN_SECONDS if patch else BASELINE_SECONDS)
        finally:
            copy_sources(sources())
        if patch is None and noticed:
            sys.exit(f"the unchanged sources do not pass ({noticed}), see {WORK / name}.log")
        results[name] = {"key": key, "seeds": options.seeds, "noticed": noticed}
        RESULTS.write_text(json.dumps(results, indent=1))
        seconds = time.monotonic() - began
        if patch and noticed:
            caught += 1
        elif patch:
            survivors.append(name)
        print(f"{name:40} {verdict_of(name, noticed)} ({seconds:.0f} s)", flush=True)
    print(f"{caught} passed, {len(survivors)} failed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
