"""The first half hour on a GPU: stage by stage, each within a time of its own, each leaving a file at once.

    python benchmarks/gpu.py [--only machine,targets] [--output DIR]     # --quick: tiny sizes, also without a GPU

A stage that runs out of time leaves what it has found until then, and the next one begins. Stages that are there
already are not repeated. See docs/contributing/measuring.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))

from all import device_name, rounded  # noqa: E402
from targets import seeds, targets  # noqa: E402

Row = dict[str, Any]
SUITE = "default"
TABLE = FOLDER.parent / "baselines" / "results" / "default-2-core-cpu-torch2.13.0.csv"


def machine(device: str, **_: Any) -> Iterator[Row]:
    """Device and versions."""
    from mer_zoo.results.environment import Environment

    found: Row = {"device": device_name(device), "cuda": torch.version.cuda, "python": platform.python_version()}
    if device.startswith("cuda"):
        card = torch.cuda.get_device_properties(device)
        free, whole = torch.cuda.mem_get_info(device)
        found |= {"card": card.name, "capability": f"{card.major}.{card.minor}", "cards": torch.cuda.device_count()}
        found |= {"memory_mb": whole / 1e6, "free_mb": free / 1e6, "cudnn": torch.backends.cudnn.version()}
    yield found | Environment.here(found["device"]).model_dump(mode="json")


def tests(device: str, quick: bool, output: Path, seconds: float, **_: Any) -> Iterator[Row]:
    """Every test that has a side on the GPU, those that failed by name."""
    report = output / "tests.xml"
    chosen = ["tests/test_gpu.py", "-k", "parity and mmgcn or kernel and cogmen"] if quick else ["tests"]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "--gpu", device, f"--junitxml={report}", *chosen]
    began = time.perf_counter()
    finished = subprocess.run(command, cwd=FOLDER.parent, capture_output=True, text=True)
    cases = list(ElementTree.parse(report).iter("testcase")) if report.exists() else []
    failed = {
        f"{case.get('classname')}::{case.get('name')}": (fault.get("message") or "")[:500]
        for case in cases
        for fault in case
        if fault.tag in ("failure", "error")
    }
    skipped = sum(child.tag == "skipped" for case in cases for child in case)
    yield {
        "passed": len(cases) - len(failed) - skipped,
        "skipped": skipped,
        "failed": failed,
        "exit_code": finished.returncode,
        "seconds": time.perf_counter() - began,
        "told": "" if cases else (finished.stdout + finished.stderr)[-2000:],
    }


def speed(device: str, quick: bool, output: Path, compile: bool = False, **_: Any) -> Iterator[Row]:
    """`benchmarks/all.py` in full; of every model, whether it is 20 times faster than its plain form."""
    path = output / f"all{'-compiled' * compile}.json"
    if quick:
        only = "ways" if compile else "models"
    else:
        only = "ways,seeds" if compile else "models,ways,seeds,recipes,batch_sizes,lengths,sequential"
    command = [sys.executable, str(FOLDER / "all.py"), "--device", device, "--output", str(path)]
    command += ["--only", only, *["--quick"] * quick, *["--compile"] * compile]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    last = ""
    for last in process.stdout:
        yield {"said": last.strip()[:400]}
    if process.wait():
        raise RuntimeError(f"all.py ends with {process.returncode}: {last.strip()}")
    found = json.loads(path.read_text())
    for row in (*found.get("models", ()), *found.get("sequential", ())):
        times = row["times_faster_than_plain"]
        judged = "not judged: other sizes" if quick else "met" if times >= 20 else "missed"
        yield {"target": f"{row['recipe']} 20 times its plain form", "times": times, "verdict": judged}


def compiled(**how: Any) -> Iterator[Row]:
    """The ways to compute and stacked seeds, with torch.compile."""
    yield from speed(**how, compile=True)


def suite(device: str, quick: bool, output: Path, **_: Any) -> Iterator[Row]:
    """The default suite with 32 seeds, and each model beside the table of the CPU."""
    import csv

    from mer_zoo.comparison import suite as suites
    from mer_zoo.comparison.executing import Listener, execute

    wanted = suites.read(SUITE)
    change = {"seeds": 2 if quick else 32} | ({"change": {"training.epochs": 1}} if quick else {})
    runs = suites.experiments(wanted.model_copy(update=change), device=device)
    began = time.perf_counter()
    # one process, which has the device to itself; what a stage before it left is not run again
    results, failures = execute(runs, output / "runs", workers=1, listener=Listener())
    yield {"runs": len(results), "failures": [str(f.message) for f in failures], "seconds": time.perf_counter() - began}
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for name in dict.fromkeys(row["model"] for row in rows):
        there = [100 * float(row["weighted_f1"]) for row in rows if row["model"] == name]
        here = [100 * r.metrics.test.weighted_f1 for r in results if r.recipe_name == name]
        yield {"model": name, "cpu": _score(there), "here": _score(here), **agree(there, here, quick)}


def _score(values: list[float]) -> Row:
    return {"mean": float(np.mean(values)), "deviation": float(np.std(values, ddof=1)), "seeds": len(values)}


def agree(there: list[float], here: list[float], quick: bool = False) -> Row:
    """Return whether two samples of seeds may have one mean: Welch's interval of their difference, 95 %.

    Example:
        >>> agree([50.0, 51.0, 52.0], [50.5, 51.5, 51.0])["verdict"]
        'agrees'
        >>> agree([50.0, 50.1, 50.2], [60.0, 60.1, 60.2])["verdict"]
        'differs'
    """
    from scipy import stats

    gap = float(np.mean(here) - np.mean(there))
    if quick:
        return {"difference": gap, "verdict": "not judged: other settings"}
    if np.std(there) == np.std(here) == 0:  # learners without chance
        return {"difference": gap, "verdict": "agrees" if abs(gap) < 0.5 else "differs"}
    interval = stats.ttest_ind(here, there, equal_var=False).confidence_interval(0.95)
    low, high = float(interval.low), float(interval.high)
    return {"difference": gap, "interval": [low, high], "verdict": "agrees" if low <= 0 <= high else "differs"}


STAGES: dict[str, tuple[Callable[..., Iterator[Row]], int]] = {
    "machine": (machine, 60),
    "targets": (targets, 420),
    "tests": (tests, 540),
    "seeds": (seeds, 180),
    "suite": (suite, 300),
    "speed": (speed, 540),
    "compiled": (compiled, 540),
}
"""Stage -> what it does, and its seconds; what a session must not go without comes first."""


def perform(stage: str, device: str, quick: bool, output: Path, seconds: float) -> None:
    """Do a stage in this process, and write its file anew with every row."""
    began, found = time.time(), {"stage": stage, "quick": quick, "finished": False, "rows": []}

    def keep(**more: Any) -> None:
        found.update(more, seconds=time.time() - began)
        path, half = output / f"{stage}.json", output / f"{stage}.json.half"
        half.write_text(json.dumps(rounded(found), indent=1) + "\n", encoding="utf-8")
        os.replace(half, path)

    keep()
    try:
        for row in STAGES[stage][0](device=device, quick=quick, output=output, seconds=seconds):
            found["rows"].append(row)
            keep()
        keep(finished=True)
    except BaseException:
        keep(error=traceback.format_exc()[-3000:])
        raise


def within(command: list[str], seconds: float) -> str:
    """Run a command and what it starts; end all of it when its time is over. Returns what became of it."""
    process = subprocess.Popen(command, start_new_session=True)
    try:
        code = process.wait(seconds)
        return "done" if code == 0 else f"failed ({code})"
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            return f"out of time after {seconds:.0f} s; what it found until then is kept"
        raise


def main() -> None:
    """Do all stages, or some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--only", default=",".join(STAGES), help=f"some of {','.join(STAGES)}")
    parser.add_argument("--seconds", type=float, help="time of each stage, instead of its own")
    parser.add_argument("--output", type=Path, help="benchmarks/results/gpu-DEVICE")
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.device == "cpu" and not options.quick:
        parser.error("there is no GPU here; --quick shows that the stages run")
    name = re.sub(r"[^a-z0-9-]", "", device_name(options.device))
    output = options.output or FOLDER / "results" / f"gpu-{name}{'-quick' * options.quick}"
    output.mkdir(parents=True, exist_ok=True)
    if options.stage:
        perform(options.stage, options.device, options.quick, output, options.seconds)
        return
    for stage in options.only.split(","):
        path = output / f"{stage}.json"
        if path.exists() and json.loads(path.read_text())["finished"]:
            print(f"{stage}: done before", flush=True)
            continue
        seconds = options.seconds or STAGES[stage][1]
        command = [sys.executable, __file__, "--stage", stage, "--device", options.device, "--output", str(output)]
        command += ["--seconds", str(seconds), *["--quick"] * options.quick]
        began = time.perf_counter()
        print(f"{stage}: {within(command, seconds)} ({time.perf_counter() - began:.0f} s) -> {path}", flush=True)


if __name__ == "__main__":
    main()
