"""How long an epoch takes, what its first step costs, how much memory it needs, how many operations it launches."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from yardstick import Plain

from mer_zoo.batch import launch_cost
from mer_zoo.model.assembly import assemble
from mer_zoo.model.step import companions
from mer_zoo.training import memory
from mer_zoo.training.engines import Engine, OneSeed, StackedSeeds, batches_of
from mer_zoo.training.evaluation import Evaluator
from mer_zoo.training.options import ComputeOptions
from mer_zoo.training.task import Task

Numbers = dict[str, float]
VIEWS = frozenset(
    """as_strided view reshape transpose permute unsqueeze squeeze expand slice select detach alias t empty
    empty_like empty_strided new_empty new_empty_strided unbind split split_with_sizes _unsafe_view _reshape_alias
    unfold diagonal lift_fresh profiler::_record_function_enter_new profiler::_record_function_exit""".split()  # noqa: SIM905
)
"""Operations that compute nothing."""


def wait(device: str) -> None:
    """Let the device finish."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def timed(work: Callable[[], Any], device: str, repeats: int) -> Numbers:
    """Median wall-clock seconds, and of this process on the processors, which neighbours cannot lengthen as much."""
    walls, cpus = [], []
    for _ in range(repeats):
        wait(device)
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        wait(device)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {"seconds": statistics.median(walls), "cpu_seconds": statistics.median(cpus), "best_seconds": min(walls)}


def ours(task: Task, seeds: Sequence[int] = (0,), options: ComputeOptions | None = None, repeats: int = 3) -> Numbers:
    """Measure train + test epochs of our engine, a first one apart; memory is beside what the corpus takes."""
    options, device = options or ComputeOptions(), task.device
    size = task.plan.training.dialogues_per_batch
    task.train, task.test  # noqa: B018  (uploaded before the clock starts)
    gc.collect()
    memory.forget_peak(device)
    plan = [batches_of(task.train, seed, repeats + 3, size) for seed in seeds]
    kind: type[Engine] = OneSeed if len(seeds) == 1 else StackedSeeds
    with options.computing():
        torch.manual_seed(0)
        engine = kind(task, seeds, plan, options)
        judge = Evaluator(task.test, engine, size)
        numbers = iter(range(repeats + 3))

        def epoch() -> None:
            engine.epoch(next(numbers)).tolist()
            judge.judge()

        first = timed(epoch, device, 1)
        found = timed(epoch, device, repeats)
        steps = len(plan[0][0])
        launches = {"launches_per_step": count_launches(lambda: engine.epoch(next(numbers)), device) / steps}
        if device == "cpu":
            with launch_cost.assumed(True):
                launches["gpu_launches_per_step"] = count_launches(lambda: engine.epoch(next(numbers)), device) / steps
    weights = sum(p.numel() * 4 for model in engine.models for p in model.parameters()) / 1e6
    return {
        **found,
        "per_seed": found["seconds"] / len(seeds),
        "first_epoch": first["seconds"],
        "steps": steps,
        **launches,
        "weights_mb": weights,
        "peak_mb": memory.peak(device),
    }


def plain(task: Task, repeats: int = 1) -> Numbers:
    """Measure train + test epochs of the yardstick: eager, dense, graph built in every step."""
    device, training = task.device, task.plan.training
    size = training.dialogues_per_batch
    model = assemble(task.plan, task.facts, 0).to(device)
    _, loss = companions(task.plan, task.facts)
    loss.to(device)
    run = Plain(model, task)
    optimizer = torch.optim.Adam(model.parameters(), lr=training.learning_rate, foreach=False)
    steps = -(-len(task.train) // size)
    tests = -(-len(task.test) // size)

    def epoch() -> None:
        model.train()
        for chosen in np.array_split(np.random.default_rng(0).permutation(len(task.train)), steps):
            optimizer.zero_grad()
            total = loss(*run(chosen))
            total.backward()
            optimizer.step()
            total.item()
        model.eval()
        with torch.no_grad():  # as many batches as the test split has, from the training split
            for chosen in np.array_split(np.arange(len(task.test)), tests):
                run(chosen)[0].logits.argmax(-1).tolist()

    if device.startswith("cuda"):
        epoch()
    return timed(epoch, device, repeats)


def beside(task: Task, repeats: int = 3) -> dict[str, Any]:
    """Measure one training step of ours and of the yardstick on the same batch, in turns.

    The ratio is of the times on the processors where that is all there is: they are what neighbours disturb least.
    """
    device, size = task.device, task.plan.training.dialogues_per_batch
    chosen = batches_of(task.train, 0, 1, size)[0][0]
    model = assemble(task.plan, task.facts, 0).to(device).train()
    _, loss = companions(task.plan, task.facts)
    loss.to(device)
    yardstick = Plain(model, task)

    def step(run: Callable[[], Any]) -> None:
        model.zero_grad()
        loss(*run()).backward()

    def our() -> Any:
        batch = task.train.batch(chosen)
        return model(batch), batch.labels

    runs = {"ours": our, "plain": lambda: yardstick(chosen)}
    with ComputeOptions().computing():
        for run in runs.values():
            step(run)
        times: dict[str, list[Numbers]] = {name: [] for name in runs}
        for _ in range(repeats):
            for name, run in runs.items():
                times[name].append(timed(lambda run=run: step(run), device, 1))  # type: ignore[misc]
    clock = "cpu_seconds" if device == "cpu" else "seconds"
    found = {name: {key: min(each[key] for each in kept) for key in kept[0]} for name, kept in times.items()}
    return {**found, "times_faster_than_plain": found["plain"][clock] / found["ours"][clock]}


def count_launches(work: Callable[[], Any], device: str) -> int:
    """Count what is launched: on a GPU kernels and recorded graphs, on CPU operations that compute something."""
    if not device.startswith("cuda"):
        with Launches() as launches:
            work()
        return launches.count
    with torch.profiler.profile(activities=[*torch.profiler.supported_activities()]) as profile:
        work()
        wait(device)
    names = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cudaGraphLaunch")
    return sum(row.count for row in profile.key_averages() if row.key in names)


class Launches(TorchDispatchMode):
    """Counts operations that compute something, forward and backward."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        """Run an operation."""
        self.count += function._schema.name.removeprefix("aten::") not in VIEWS
        return function(*arguments, **(named or {}))
