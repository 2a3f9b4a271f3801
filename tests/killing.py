"""Random kills: a suite whose parent, a worker, or all of them are killed and started again ends in the same files.

`python tests/killing.py --kills 20` (or `make kill KILLS=20`) runs it at length; `test_killing.py` a piece of it. With
`--ray` the suite runs on a cluster of two machines, of which one is lost now and then, and must end in the files that
undisturbed processes of this machine write.
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
from contextlib import nullcontext, suppress
from pathlib import Path

from machines import children, two

from mer_zoo.comparison.summary import read_csv

SUITE = """
title: killed
data: [{{name: synthetic, dialogues: [24, 6, 8], utterances: [4, 9]}}]
seeds: 2
change: {{training.epochs: {epochs}}}
models: {{A: bilstm, B: mmgcn, C: majority}}
"""
RESULTS = 6
OUTSIDE = ("seconds", "finished", "peak_memory_mb", "git_commit")  # how keys begin; somebody may commit meanwhile
ENDS = 20  # seconds until workers notice that their parent is gone


def begin(folder, epochs, machines=None):
    """Start the suite in a process group of its own."""
    plan = folder.with_suffix(".yaml")
    plan.write_text(SUITE.format(epochs=epochs))
    where = ["--executor", "ray", "--address", machines.address] if machines else ["--workers", "2"]
    command = [sys.executable, "-m", "mer_zoo", "compare", plan, "--output", folder, "--keep-weights", *where]
    log = open(folder.with_suffix(".log"), "ab")  # noqa: SIM115 (the process writes on)
    return subprocess.Popen([*map(str, command)], stdout=log, stderr=log, start_new_session=True)


def kill(process, victim, number, machines=None):
    """Kill the parent, all of its group, one worker, or a machine."""
    if victim == "machine":
        machines.lose_one()
    elif victim == "parent":
        os.kill(process.pid, number)
    elif victim == "group":
        os.killpg(process.pid, number)
    elif workers := machines.workers() if machines else children(process.pid):
        with suppress(ProcessLookupError):  # it may have just ended
            os.kill(random.choice(workers), number)


def random_moment(process, folder, lasts):
    """Wait until so many results are there, and a while longer, or the process ends; returns how many are there."""
    wanted = random.randint(0, RESULTS)
    while (there := len(list(folder.glob("*.result.json")))) < wanted and process.poll() is None:
        time.sleep(0.1)
    time.sleep(random.uniform(0, lasts / 4))
    return there


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
    """Return what is compared of every file: weights bitwise, data without times, of all others their names."""
    read = {
        ".safetensors": Path.read_bytes,
        ".json": lambda path: inside(json.loads(path.read_text(encoding="utf-8"))),
        ".csv": lambda path: inside(read_csv(path)),
    }
    return {path.name: read.get(path.suffix, lambda _: None)(path) for path in sorted(folder.iterdir())}


def inside(value):
    """Return plain data without what a clock, a machine's load or a commit decides."""
    if isinstance(value, dict):
        return {key: inside(inner) for key, inner in value.items() if not key.startswith(OUTSIDE)}
    return [inside(inner) for inner in value] if isinstance(value, list) else value


def run(kills, home, epochs=3, say=print, machines=None):
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
            process = begin(folder, epochs, machines)
            if number < kills:
                there = random_moment(process, folder, lasts)
                victim = random.choice(("parent", "worker", "machine" if machines else "group"))
                how = random.choice((signal.SIGKILL, signal.SIGTERM))
                if process.poll() is None:
                    kill(process, victim, how, machines)
                    number, killed = number + 1, killed + 1
                    by = "" if victim == "machine" else f" by {how.name}"
                    say(f"kill {number}: {victim}{by}, {there} of {RESULTS} results there")
            code = process.wait()
            assert nobody_left(process.pid), "workers outlive their parent"
            if code == 0:
                break
        found = files(folder)
        assert found.keys() == expected.keys(), sorted(found.keys() ^ expected.keys())
        different = [name for name in found if found[name] != expected[name]]
        assert different == [], different
        say(f"round {turn}: {killed} kills, {len(found)} files as undisturbed")


def main():
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--ray", action="store_true", help="on a cluster of two machines")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    random.seed(options.seed)
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as home, two() if options.ray else nullcontext() as machines:
        run(options.kills, Path(home), machines=machines)


if __name__ == "__main__":
    main()
