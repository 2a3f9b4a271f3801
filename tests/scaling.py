"""Six models × six seeds on a Ray cluster of two machines: every number, prediction and weight of this machine alone.

`python tests/scaling.py` (or `make scale`) runs the suite both ways, and compares all that they write.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from killing import files
from machines import two

SUITE = """
title: six by six
data: [{name: synthetic, dialogues: [24, 6, 8], utterances: [4, 9]}]
seeds: 6
change: {training.epochs: 3}
models: {A: bilstm, B: mmgcn, C: dialoguegcn, D: speaker_nodes, E: amb_dsgdn, F: logistic_regression}
"""


def seconds(plan, folder, *where):
    """Run the suite, and return how long it took."""
    start = time.monotonic()
    command = [sys.executable, "-m", "mer_zoo", "compare", plan, "--output", folder, "--keep-weights", *where]
    subprocess.run([*map(str, command)], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def main():
    """Run the command."""
    with tempfile.TemporaryDirectory() as home, two() as machines:
        plan, here, there = (Path(home) / name for name in ("plan.yaml", "here", "there"))
        plan.write_text(SUITE)
        alone = seconds(plan, here, "--workers", "2")
        print(f"two processes of this machine: {alone:.0f} s")
        print(f"two machines: {seconds(plan, there, '--executor', 'ray', '--address', machines.address):.0f} s")
        one, other = files(here), files(there)
    assert one.keys() == other.keys(), sorted(one.keys() ^ other.keys())
    different = [name for name in one if one[name] != other[name]]
    assert different == [], different
    counts = {ending: sum(name.endswith(ending) for name in one) for ending in (".result.json", ".safetensors")}
    assert counts == {".result.json": 36, ".safetensors": 30}, counts
    print(f"{len(one)} files, among them {counts}: equal")


if __name__ == "__main__":
    main()
