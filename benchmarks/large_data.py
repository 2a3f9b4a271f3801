"""How long importing and validating a large dataset take, as commands, start of the program included.

    python benchmarks/large_data.py [--dialogues 50000]

Ten utterances a dialogue, three modalities, ten classes. Prints seconds of the clock and of the processor.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import numpy as np

UTTERANCES = 10
WIDTHS = {"text": 32, "audio": 24, "visual": 16}
LIMIT = 15  # seconds, for 50,000 dialogues


def write(path: Path, dialogues: int) -> None:
    """Write the columns of a table."""
    draw = np.random.default_rng(0)
    rows = dialogues * UTTERANCES
    split = np.repeat(np.array(["train", "train", "train", "dev", "test"])[np.arange(dialogues) % 5], UTTERANCES)
    columns = {m: draw.normal(size=(rows, width)).astype(np.float32) for m, width in WIDTHS.items()}
    np.savez(
        path,
        dialogue=np.repeat(np.char.add("dialogue ", np.arange(dialogues).astype(str)), UTTERANCES),
        turn=np.tile(np.arange(UTTERANCES), dialogues),
        split=split,
        label=draw.integers(0, 10, rows),
        speaker=np.array(["Ann", "Bob", "Eve"])[draw.integers(0, 3, rows)],
        transcript=np.array(["I see.", "What do you mean by that?"])[draw.integers(0, 2, rows)],
        **columns,
    )


def timed(*command: object) -> tuple[float, float]:
    """Run a command of the library; returns seconds of the clock and of the processor."""
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-m", "mer_zoo", *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    clock, after = time.perf_counter() - start, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return clock, used


def main() -> int:
    """Run; returns 1 if one of the two takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dialogues", type=int, default=50_000)
    count = parser.parse_args().dialogues
    found = {}
    with tempfile.TemporaryDirectory() as home:
        write(Path(home) / "table.npz", count)
        found["import"] = timed("import", "npz", f"{home}/table.npz", "--output", f"{home}/data")
        found["validate"] = timed("validate", f"{home}/data")
    machine = f"{os.cpu_count()} processors ({platform.machine()}), Python {platform.python_version()}"
    print(f"{count:,} dialogues of {UTTERANCES} utterances; {machine}, numpy {np.__version__}, {date.today():%B %Y}")
    for name, (clock, used) in found.items():
        print(f"{name:9} {clock:6.1f} s, {used:6.1f} s of the processor")
    return int(any(used > LIMIT * count / 50_000 for _, used in found.values()))


if __name__ == "__main__":
    sys.exit(main())
