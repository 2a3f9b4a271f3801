"""Random kills: a suite whose parent, a worker, or all of them are killed and started again ends in the same files.

`python tests/killing.py --kills 20` (or `make kill KILLS=20`) runs it at length; `test_killing.py` a piece of it.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SUITE = """
title: killed
data: [{{name: synthetic, dialogues: [24, 6, 8], utterances: [4, 9]}}]
seeds: 2
change: {{training.epochs: {epochs}}}
models: {{A: bilstm, B: mmgcn, C: majority}}
"""
TIMES = ("seconds", "finished", "peak_memory_mb")
ENDS = 20  # seconds until workers notice that their parent is gone


def begin(folder, epochs):
    """Start the suite in a process group of its own."""
    plan = folder.with_suffix(".yaml")
    plan.write_text(SUITE.format(epochs=epochs))
    command = [sys.executable, "-m", "mer_zoo", "compare", plan, "--output", folder, "--workers", "2", "--keep-weights"]
    log = open(folder.with_suffix(".log"), "ab")  # noqa: SIM115 (the process writes on)
    return subprocess.Popen([*map(str, command)], stdout=log, stderr=log, start_new_session=True)


def children(process):
    """Return the processes below one, itself excluded."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, left = [], [process]
    while left:
        below = parents.get(left.pop(), [])
        found += below
        left += below
    return found


def kill(process, victim, number):
    """Kill the parent, all of its group, or one worker."""
    if victim == "parent":
        os.kill(process.pid, number)
    elif victim == "group":
        os.killpg(process.pid, number)
    elif workers := children(process.pid):
        os.kill(random.choice(workers), number)


def nobody_left(group):
    """Wait until no process of a group is at work."""
    deadline = time.monotonic() + ENDS
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.2)
    return False


def files(folder):
    """Return what is compared of every file: weights bitwise, results without times, of all others their names."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            found[path.name] = path.read_bytes()
        elif path.name.endswith(".result.json"):
            found[path.name] = without_times(json.loads(path.read_text(encoding="utf-8")))
        else:
            found[path.name] = None
    return found


def without_times(value):
    """Return plain data without what a clock or a machine's load decides."""
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMES}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def run(kills, home, epochs=3, say=print):
    """Kill so often, in as many rounds as it takes; raises AssertionError at the first difference."""
    start = time.monotonic()
    undisturbed = begin(home / "undisturbed", epochs)
    assert undisturbed.wait() == 0, (home / "undisturbed.log").read_text()
    lasts = time.monotonic() - start
    expected = files(home / "undisturbed")
    assert sum(name.endswith(".safetensors") for name in expected) == 4
    number = turn = 0
    while number < kills:
        folder, turn, killed = home / f"round{turn}", turn + 1, 0
        while True:
            process = begin(folder, epochs)
            if number < kills:
                time.sleep(random.uniform(0.25, 1.0) * lasts)
                victim = random.choice(("parent", "worker", "group"))
                how = random.choice((signal.SIGKILL, signal.SIGTERM))
                there = len(list(folder.glob("*.result.json"))) if folder.exists() else 0
                if process.poll() is None:
                    kill(process, victim, how)
                    number, killed = number + 1, killed + 1
                    say(f"kill {number}: {victim} by {how.name}, {there} of {len(expected)} results there")
            code = process.wait()
            assert nobody_left(process.pid), "workers outlive their parent"
            if code == 0:
                break
        found = files(folder)
        assert found.keys() == expected.keys(), sorted(found.keys() ^ expected.keys())
        assert [name for name in found if found[name] != expected[name]] == []
        say(f"round {turn}: {killed} kills, {len(found)} files as undisturbed")


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    random.seed(options.seed)
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as home:
        run(options.kills, Path(home))


if __name__ == "__main__":
    main()
