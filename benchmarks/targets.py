"""What a GPU should reach, and where the time goes where it does not; how many seeds fit."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import measure
import torch
from shapes import IEMOCAP, MELD, SMALL, Shape, task

from mer_zoo.results.result import file_word
from mer_zoo.training import experiment, memory
from mer_zoo.training.engines import Engine, OneSeed, StackedSeeds, batches_of, seeds_that_fit
from mer_zoo.training.experiment import prepare, run_stack
from mer_zoo.training.options import ComputeOptions as Options
from mer_zoo.training.task import Task

Row = dict[str, Any]
EPOCHS = 9


@dataclass(frozen=True)
class Target:
    """What an epoch of training and testing should take.

    Attributes:
        recipe, shape: what is trained.
        published: seconds of the published code on one H100.
        seconds: wanted, for each seed.
        seeds: trained as one program.
    """

    recipe: str
    shape: Shape
    published: float
    seconds: float
    seeds: int = 1

    @property
    def name(self) -> str:
        """What results call it."""
        return f"{self.recipe} on {self.shape.name}, {self.seeds} seed{'s' * (self.seeds > 1)}"


TARGETS = (
    Target("amb_dsgdn/iemocap", IEMOCAP, 3.9, 0.039),
    Target("amb_dsgdn/iemocap", IEMOCAP, 3.9, 0.008, seeds=16),
    Target("amb_dsgdn/meld", MELD, 4.8, 0.048),
    Target("mmgcn/iemocap", IEMOCAP, 1.7, 0.017),
)
MEMORY = 500.0
"""MB of AMB-DSGDN on IEMOCAP beside dialogues, weights and optimiser."""

WAYS = {"float32": Options(), "tf32": Options("tf32"), "bf16": Options("bf16")}


def targets(device: str, quick: bool, output: Path, **_: Any) -> Iterator[Row]:
    """Every target in float32, and, where that misses it, rounded; then a profile of the fastest way that misses."""
    gpu = device.startswith("cuda")
    for target in TARGETS:
        seeds = range(2 if quick and target.seeds > 1 else target.seeds)
        cell = task(target.recipe, SMALL if quick else target.shape, device, training__epochs=EPOCHS)
        row: Row = {"target": target.name, "shape": cell.dataset.name, "seeds": len(seeds)}
        row |= {"wanted_seconds_per_seed": target.seconds, "published": target.published}
        found: dict[str, Any] = {}
        for way, options in WAYS.items() if gpu else [("float32", Options())]:
            found[way] = measured(cell, seeds, options)
            if not quick and found[way]["per_seed"] <= target.seconds:
                break
        best = min(found, key=lambda way: found[way]["per_seed"])
        met = [way for way, numbers in found.items() if numbers["per_seed"] <= target.seconds]
        row |= {"ways": found, "best": best, "verdict": verdict(met, quick)}
        if target.seeds == 1 and target.shape is IEMOCAP and target.recipe.startswith("amb_dsgdn"):
            beside = found["float32"]["beside_mb"]
            fits = beside is not None and beside <= MEMORY
            row["memory"] = {"wanted_mb": MEMORY, "beside_mb": beside, "verdict": verdict(["float32"] * fits, quick)}
        if not met:
            trace = output / f"trace-{file_word(target.name, 80)}.json.gz"
            row["profile"] = profiled(cell, seeds, WAYS[best], trace)
        yield row
        memory.give_back(device)


def verdict(met: list[str], quick: bool) -> str:
    """Say whether a target was met, and how."""
    if quick:
        return "not judged: other sizes"
    return f"met in {met[0]}" if met else "missed"


def measured(cell: Task, seeds: range, options: Options) -> Row:
    """Time epochs, and take the memory beside dialogues, weights and what the optimiser keeps, twice the weights."""
    cell.train, cell.test  # noqa: B018  (uploaded before the memory is read)
    memory.give_back(cell.device)
    gpu = cell.device.startswith("cuda")
    before = torch.cuda.memory_allocated(cell.device) / 1e6 if gpu else 0.0
    numbers: Row = dict(measure.ours(cell, seeds, options))
    numbers["beside_mb"] = numbers["peak_mb"] - before - 3 * numbers["weights_mb"] if gpu else None
    return numbers


def profiled(cell: Task, seeds: range, options: Options, trace: Path) -> Row:
    """Profile an epoch as it is computed, and one that is not recorded, where operations have their names."""
    rows = {"as computed": _profile(cell, seeds, options, trace)}
    if options.captures(cell.device):
        plain = Options(options.precision, capture=False)
        rows["not recorded"] = _profile(cell, seeds, plain, trace.with_name(f"plain-{trace.name}"))
    return rows


def _profile(cell: Task, seeds: range, options: Options, trace: Path) -> Row:
    size, device = cell.plan.training.dialogues_per_batch, cell.device
    plan = [batches_of(cell.train, seed, 4, size) for seed in seeds]
    kind: type[Engine] = OneSeed if len(seeds) == 1 else StackedSeeds
    with options.computing():
        engine = kind(cell, seeds, plan, options)
        for number in range(3):  # every shape is recorded by then
            engine.epoch(number)
        measure.wait(device)
        with torch.profiler.profile(activities=[*torch.profiler.supported_activities()]) as profile:
            began = time.perf_counter()
            engine.epoch(3)
            measure.wait(device)
            wall = time.perf_counter() - began
    trace.parent.mkdir(parents=True, exist_ok=True)
    profile.export_chrome_trace(str(trace))
    rows = profile.key_averages()
    kernels = [row for row in rows if row.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(row.self_device_time_total for row in kernels) / 1e6
    gpu, steps = device.startswith("cuda"), len(plan[0][0])

    def spent(row: Any) -> float:
        return float(row.self_device_time_total if gpu else row.self_cpu_time_total) / 1e6

    top = sorted(kernels if gpu else rows, key=spent, reverse=True)[:15]
    names = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
    return {
        "epoch_seconds": wall,
        "steps": steps,
        "kernels_per_step": sum(row.count for row in kernels) / steps,
        "launches_per_step": sum(row.count for row in rows if row.key in names) / steps,
        "busy_seconds": busy if gpu else None,
        "gaps_seconds": wall - busy if gpu else None,
        "top": [{"name": row.key[:120], "calls_per_step": row.count / steps, "seconds": spent(row)} for row in top],
        "trace": trace.name,
    }


def seeds(device: str, quick: bool, output: Path, **_: Any) -> Iterator[Row]:
    """How many seeds are said to fit, on a free card and on a half occupied one; are they trained?

    Then the same with a wrong answer: the stack must be halved, and every seed must be finished.
    """
    gpu = device.startswith("cuda")
    recipe, shape = ("amb_dsgdn", SMALL) if quick else ("amb_dsgdn/iemocap", IEMOCAP)
    cell = task(recipe, shape, device, training__epochs=1)
    for occupied in (0.0, 0.5) if gpu else (0.0,):
        memory.give_back(device)
        there = torch.cuda.mem_get_info(device)[0] if gpu else 0
        held = torch.empty(int(occupied * there), dtype=torch.uint8, device=device)
        said = seeds_that_fit(cell)
        count = min(said, 3 if quick else 32)
        row: Row = {"occupied": occupied, "said_to_fit": said if gpu else None, "tried": count}
        try:
            row |= {"fits": True, **measure.ours(cell, range(count), Options(), repeats=1)}
        except torch.OutOfMemoryError as error:
            row |= {"fits": False, "error": str(error).splitlines()[0]}
        yield row
        del held
    memory.give_back(device)
    yield halved(device, quick)


def halved(device: str, quick: bool) -> Row:
    """Train a stack that is too large; on a CPU the step says that memory is short."""
    count, gpu = (6 if quick else 32), device.startswith("cuda")
    data = task("amb_dsgdn", SMALL, device).dataset
    runs = [prepare("amb_dsgdn", data, seed=s, device=device, changes={"training.epochs": 1}) for s in range(count)]
    step = StackedSeeds._step

    def full(engine: StackedSeeds, index: Any) -> Any:
        if not gpu and len(engine.models) > 2:
            raise torch.OutOfMemoryError("as if the memory were full")
        return step(engine, index)

    memory.give_back(device)
    if gpu:
        whole = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated(device) + 200e6) / whole, device)
    try:
        with (
            mock.patch.object(experiment, "seeds_that_fit", return_value=1 << 30),
            mock.patch.object(StackedSeeds, "_step", full),
            warnings.catch_warnings(record=True) as told,
        ):
            warnings.simplefilter("always")
            finished = [outcome.result.seed for outcome in run_stack(runs)]
    finally:
        if gpu:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
    said = [str(one.message) for one in told if "do not fit" in str(one.message)]
    return {"too_many": count, "finished": len(finished), "all_finished": finished == [*range(count)], "said": said}
