"""Seconds per epoch of every recipe: `pytest benchmarks --benchmark-enable`. Nothing here fails for being slow."""

import measure
import pytest
import torch
from shapes import SMALL, task

from mer_zoo.model import recipe
from mer_zoo.training.engines import OneSeed, StackedSeeds, batches_of, why_not_stacked
from mer_zoo.training.options import ComputeOptions

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("name", recipe.names())
def test_epoch(benchmark, name):
    cell = task(name, SMALL, DEVICE)
    engine = OneSeed(cell, [0], [batches_of(cell.train, 0, 1, 16)], ComputeOptions())
    first = measure.timed(lambda: engine.epoch(0).tolist(), DEVICE, 1)
    benchmark.pedantic(lambda: engine.epoch(0).tolist(), rounds=3)
    benchmark.extra_info["first_epoch"] = first["seconds"]
    benchmark.extra_info["launches_per_step"] = measure.count_launches(lambda: engine.epoch(0), DEVICE)
    benchmark.extra_info["peak_mb"] = measure.memory.peak(DEVICE)


@pytest.mark.parametrize("seeds", [1, 2, 4, 8])
def test_stacked_seeds(benchmark, seeds):
    cell = task("amb_dsgdn", SMALL, DEVICE)
    assert why_not_stacked(cell) is None
    plan = [batches_of(cell.train, seed, 1, 16) for seed in range(seeds)]
    engine = StackedSeeds(cell, range(seeds), plan, ComputeOptions())
    benchmark.pedantic(lambda: engine.epoch(0).tolist(), rounds=3, warmup_rounds=1)
    if benchmark.stats is not None:  # absent where benchmarks are disabled
        benchmark.extra_info["seed_epochs_per_second"] = seeds / benchmark.stats.stats.median
