"""Random kills: a suite whose parent, a worker, or all of them are killed and started again ends in the same files.

`python tests/killing.py --kills 20` (or `make kill KILLS=20`) runs it at length; `test_killing.py` a piece of it. With
`--ray` the suite runs on a cluster of two machines, each of which is lost now and then, and must end in the files that
undisturbed processes of this machine write. When its head is lost the suite must say so and end, and a new start on a
new cluster goes on. Only kills that come while runs are left are counted.
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
SIGNALS = (signal.SIGKILL, signal.SIGTERM)
WAYS = [(victim, number) for victim in ("parent", "group", "worker") for number in SIGNALS]
LOSSES = [("machine", None), ("head", None)]


def begin(folder, epochs, machines=None):
    """Start the suite in a process group of its own."""
    plan = folder.with_suffix(".yaml")
    plan.write_text(SUITE.format(epochs=epochs))
    where = ["--executor", "ray", "--address", machines.address] if machines else ["--workers", "2"]
    command = [sys.executable, "-m", "mer_zoo", "compare", plan, "--output", folder, "--keep-weights", *where]
    log = open(folder.with_suffix(".log"), "ab")  # noqa: SIM115 (the process writes on)
    return subprocess.Popen([*map(str, command)], stdout=log, stderr=log, start_new_session=True)


def kill(process, victim, number, machines=None):
    """Kill the parent, all of its group, one worker, or a machine; returns whether there was one."""
    if victim == "machine":
        machines.lose_one()
    elif victim == "head":
        machines.lose_head()
    elif victim == "parent":
        os.kill(process.pid, number)
    elif victim == "group":
        os.killpg(process.pid, number)
    else:
        workers = children(process.pid) + (machines.workers() if machines else [])
        with suppress(ProcessLookupError, IndexError):  # it may have just ended
            os.kill(random.choice(workers), number)
            return True
        return False
    return True


def there_now(folder):
    """Return how many results are there."""
    return len(list(folder.glob("*.result.json")))


def random_moment(process, folder, lasts):
    """Wait until up to two more results are there, and a while longer, or the process ends."""
    there = there_now(folder)
    wanted = min(random.randint(there, there + 2), RESULTS - 1)
    while there_now(folder) < wanted and process.poll() is None:
        time.sleep(0.1)
    # a process begins slowly, then results come fast
    time.sleep(random.uniform(0, lasts / (100 if wanted > there else 4)))


def in_turns(ways):
    """Yield every way in a random order, then again in another, without end."""
    while True:
        yield from random.sample(ways, len(ways))


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
    ways = in_turns(WAYS + LOSSES if machines else WAYS)
    while number < kills:
        folder, turn, killed = home / f"round{turn}", turn + 1, 0
        while True:
            process, victim = begin(folder, epochs, machines), None
            if number < kills:
                random_moment(process, folder, lasts)
                there = there_now(folder)
                victim, how = next(ways)
                if process.poll() is None and kill(process, victim, how, machines) and there < RESULTS:
                    number, killed = number + 1, killed + 1
                    by = f" by {how.name}" if how else ""
                    say(f"kill {number}: {victim}{by}, {there} of {RESULTS} results there")
            code = process.wait()
            assert nobody_left(process.pid), "workers outlive their parent"
            if victim == "head":
                said = folder.with_suffix(".log").read_text().splitlines()[-1]
                assert code == 0 or (code == 2 and said.startswith("mer-zoo compare: ")), (code, said)
                machines.begin_anew()
            if machines:
                assert machines.quiet(ENDS), "runs outlive who asked for them"
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
