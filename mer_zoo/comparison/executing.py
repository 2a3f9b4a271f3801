"""Running experiments: in any order, several at a time, resumed by skipping what is there."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mer_zoo import registry
from mer_zoo.errors import MerZooError
from mer_zoo.results.result import Result, read_results
from mer_zoo.training.experiment import Experiment, keep, run_stack, weights_beside

Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Failure:
    """A run that broke; the others went on."""

    experiment: Experiment
    message: str


@dataclass(frozen=True)
class Listener:
    """Who hears what of the runs.

    Attributes:
        start: how many runs there are, and how many are already there.
        run: every finished or broken run.
        epoch: the experiment and the record of every epoch, with a single worker.
        damaged: result files that cannot be read.
    """

    start: Callable[[int, int], None] = lambda total, done: None
    run: Callable[[Result | Failure], None] = lambda outcome: None
    epoch: Callable[[Experiment, dict[str, Any]], None] = lambda experiment, record: None
    damaged: Callable[[str], None] = lambda message: None


def execute(
    experiments: Sequence[Experiment],
    folder: Path,
    *,
    workers: int | None = None,
    keep_weights: bool = False,
    listener: Listener | None = None,
) -> tuple[list[Result], list[Failure]]:
    """Run what is not yet in the folder, and return the results of all experiments.

    Args:
        experiments: what to run.
        folder: where result files lie; one is written as soon as its run ends.
        workers: processes; None: as many as there are processors, at most one per run.
        keep_weights: also keep every trained model; a run whose weights are missing is run again.
        listener: hears of the runs.
    """
    listener = listener or Listener()
    done = _there(experiments, folder, keep_weights, listener)
    missing = [experiment for experiment in experiments if experiment.identity.run not in done]
    listener.start(len(experiments), len(done))
    failures = []
    for run, outcome in _outcomes(missing, folder, workers, keep_weights, listener):
        if isinstance(outcome, Failure):
            failures.append(outcome)
        else:
            done[run] = outcome
        listener.run(outcome)
    # a result that was there already may come from a run of another name
    wanted = [(experiment.identity.run, experiment.name) for experiment in experiments]
    return [done[run].model_copy(update={"recipe_name": name}) for run, name in wanted if run in done], failures


def _there(
    experiments: Sequence[Experiment], folder: Path, keep_weights: bool, listener: Listener
) -> dict[str, Result]:
    """Results of these experiments that the folder holds, whole."""
    if not folder.exists():
        return {}
    wanted = {experiment.identity.run: experiment for experiment in experiments}
    found = {result.run: result for result in read_results(folder, listener.damaged) if result.run in wanted}
    return {
        run: result
        for run, result in found.items()
        if not keep_weights or wanted[run].plan.learner or weights_beside(folder / result.file_name).exists()
    }


def _outcomes(
    experiments: Sequence[Experiment], folder: Path, workers: int | None, keep_weights: bool, listener: Listener
) -> Iterator[tuple[str, Result | Failure]]:
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    stacks = _stacks(experiments)
    count = min(workers or processors, len(stacks))
    if count <= 1 or any(experiment.device.startswith("cuda") for experiment in experiments):
        for stack in stacks:
            yield from _attempt(stack, folder, keep_weights, partial(listener.epoch, stack[0]))
        return
    import joblib

    threads = max(1, processors // count)
    with joblib.parallel_config(backend="loky", inner_max_num_threads=threads):
        session = registry.session()
        jobs = (joblib.delayed(_in_worker)(stack, folder, keep_weights, threads, session) for stack in stacks)
        for outcomes in joblib.Parallel(n_jobs=count, return_as="generator_unordered", batch_size=1)(jobs):
            yield from outcomes


def _stacks(experiments: Sequence[Experiment]) -> list[list[Experiment]]:
    """Put neighbours that differ in nothing but the seed together, where stacked seeds are wanted.

    On GPUs they are, unless refused; on CPU one seed fills a processor, so processes side by side are as fast.
    """
    found: list[list[Experiment]] = []
    for experiment in experiments:
        asked = experiment.options.stack
        wanted = experiment.device.startswith("cuda") if asked is None else asked
        if wanted and found and replace(found[-1][0], seed=experiment.seed) == experiment:
            found[-1].append(experiment)
        else:
            found.append([experiment])
    return found


def _in_worker(
    stack: list[Experiment], folder: Path, keep_weights: bool, threads: int, session: Mapping[Any, Any]
) -> list[tuple[str, Result | Failure]]:
    import torch

    registry.resume(session)
    torch.set_num_threads(threads)
    return _attempt(stack, folder, keep_weights, None)


def _attempt(
    stack: list[Experiment], folder: Path, keep_weights: bool, progress: Progress | None
) -> list[tuple[str, Result | Failure]]:
    """Train a stack and write its files; one broken run does not take the others with it.

    A stack that fails together is tried again one by one: the fault may be that of a single seed, or memory.
    """
    try:
        outcomes = run_stack(stack, progress) if len(stack) > 1 else [stack[0].run(progress)]
        for experiment, outcome in zip(stack, outcomes, strict=True):
            keep(experiment, outcome, folder, weights=keep_weights)
    except Exception as error:
        if len(stack) > 1:
            return [outcome for one in stack for outcome in _attempt([one], folder, keep_weights, progress)]
        known = isinstance(error, MerZooError)
        message = str(error) if known else f"unexpected failure, please report it:\n{traceback.format_exc()}"
        return [(stack[0].identity.run, Failure(stack[0], message))]
    return [(outcome.result.run, outcome.result) for outcome in outcomes]
