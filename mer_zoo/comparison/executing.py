"""Running experiments: in any order, several at a time, resumed by skipping what is there."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mer_zoo.comparison.broken import Broken
from mer_zoo.comparison.claims import LOOK_EVERY, claim, claimed, sweep
from mer_zoo.comparison.workers import Lost, at_a_time, check_count, gpus, spread
from mer_zoo.errors import MerZooError
from mer_zoo.model.saving import run_of
from mer_zoo.results.result import SUFFIX, Damaged, Result, read_result
from mer_zoo.results.writing import check_writable, write_atomically
from mer_zoo.training import checkpoint
from mer_zoo.training.checkpoint import SUFFIX as CHECKPOINT
from mer_zoo.training.checkpoint import Checkpoints
from mer_zoo.training.experiment import Experiment, check_room, keep, run_stack, weights_beside

Progress = Callable[[dict[str, Any]], None]
Attempt = list[tuple[str, "Result | Failure | None"]]
"""What became of every run; None where another process is at it."""
Stack = list[Experiment]
Executor = Callable[[Callable[[Any], Any], Iterable[Sequence[Experiment]]], Iterable[tuple[Any, Any]]]
"""Does some work with every stack, where no storage is shared; takes a stack when there is room for it, and yields it
with the answer, or with `Lost`, as soon as that is there."""


@dataclass(frozen=True)
class Failure:
    """A run that broke; the others went on.

    Attributes:
        experiment: the run.
        message: why, in one or a few lines.
        traceback: where in the code.
    """

    experiment: Experiment
    message: str
    traceback: str = ""

    @property
    def broken(self) -> Broken:
        """What a comparison tells of it."""
        one = self.experiment
        return Broken(one.name, one.seed, one.fingerprint, self.message)


@dataclass(frozen=True)
class Listener:
    """Who hears what of the runs.

    Attributes:
        start: how many runs there are, and how many are already there.
        run: every finished or broken run.
        epoch: the experiment and the record of every epoch, with a single worker.
        damaged: files that cannot be used, and what became of them.
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
    executor: Executor | None = None,
) -> tuple[list[Result], list[Failure]]:
    """Run what is not yet in the folder, and return the results of all experiments.

    Several processes may do so at once in one folder: they share the work, and each run is done by one of them.

    Args:
        experiments: what to run; one that is to note contributions is run again if its result has none.
        folder: where result files lie; one is written as soon as its run ends.
        workers: processes; None: as many as there are processors, at most one per run.
        keep_weights: also keep every trained model; a run whose weights are missing or damaged is run again.
        listener: hears of the runs.
        executor: what runs them elsewhere, such as `ray_cluster.RayCluster`; None: processes of this machine.

    Returns:
        the results, in the order of the experiments, and what broke.

    Raises:
        MerZooError: the folder cannot be written, or a number of workers below 1.
    """
    check_count(workers)
    listener = listener or Listener()
    check_writable(folder)
    sweep(folder)
    done = _there(experiments, folder, keep_weights, listener)
    # two names of a suite may stand for one run
    missing = {one.identity.run: one for one in experiments if one.identity.run not in done}
    check_room(list(missing.values()), folder, weights=keep_weights)
    listener.start(len(experiments), len(experiments) - len(missing))
    failures = []
    for run, outcome in _outcomes(list(missing.values()), folder, workers, keep_weights, listener, executor):
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
    """Results of these experiments that the folder holds, whole; damaged files are set aside."""
    wanted = {experiment.identity.run: experiment for experiment in experiments}
    found: dict[str, Result] = {}
    for path in sorted(folder.rglob(f"*{SUFFIX}")):
        try:
            result = read_result(path)
        except Damaged as error:
            aside = path.with_name(f"{path.name}.damaged")
            with suppress(FileNotFoundError):  # another process was faster
                os.replace(path, aside)
            listener.damaged(f"{error} It is now called {aside.name}.")
            continue
        except MerZooError as error:  # of another version, or unreadable: not ours to touch
            listener.damaged(str(error))
            continue
        if result.run in wanted and whole(path, result, wanted[result.run], keep_weights):
            found[result.run] = result
    return found


def whole(path: Path, result: Result, experiment: Experiment, keep_weights: bool) -> bool:
    """Return whether a result has all that is wanted: contributions over epochs, and weights beside it.

    Args:
        path: of its file.
        result: that the file holds.
        experiment: what is wanted.
        keep_weights: whether its weights are.
    """
    if experiment.options.contributions and not all("contributions" in epoch for epoch in result.history):
        return False
    weighted = keep_weights and experiment.plan.learner is None
    return not weighted or run_of(weights_beside(path)) == result.run


def written(folder: Path, experiment: Experiment, keep_weights: bool) -> Result | None:
    """Return the result of a run that is there already, whole.

    Args:
        folder: where result files lie.
        experiment: the run.
        keep_weights: whether its weights must be there too.
    """
    for path in folder.glob(f"*-{experiment.identity.run}{SUFFIX}"):
        with suppress(MerZooError):
            if whole(path, result := read_result(path), experiment, keep_weights):
                return result
    return None


def _noted(folder: Path, experiment: Experiment) -> bool:
    """Return whether a result of a run has contributions over epochs."""
    there = written(folder, experiment, keep_weights=False)
    return there is not None and any("contributions" in epoch for epoch in there.history)


def _outcomes(
    experiments: Sequence[Experiment],
    folder: Path,
    workers: int | None,
    keep_weights: bool,
    listener: Listener,
    executor: Executor | None,
) -> Iterator[tuple[str, Result | Failure]]:
    known = {one.identity.run: one for one in experiments}
    left, wait = list(experiments), False
    while left:
        busy: list[Experiment] = []
        if executor is not None:
            found = _elsewhere(_stacks(left), keep_weights, folder.absolute(), executor)
        else:
            # what other processes are at is looked for once there is nothing else to do
            stacks = [[one] for one in left] if wait else _stacks(left)
            found = _here(stacks, partial(_attempt, keep_weights, wait), folder, workers, listener)
        for run, outcome in found:
            if outcome is None:
                busy.append(known[run])
            else:
                yield run, outcome
        if executor is not None and len(busy) == len(left):
            time.sleep(LOOK_EVERY)
        left, wait = busy, True


def _here(
    stacks: list[Stack],
    work: Callable[[Progress | None, Path, Stack], Attempt],
    folder: Path,
    workers: int | None,
    listener: Listener,
) -> Iterator[tuple[str, Result | Failure | None]]:
    devices = gpus({one.device for stack in stacks for one in stack})
    count = min(at_a_time(devices, workers), len(stacks))
    if count <= 1:
        for stack in stacks:
            yield from work(partial(listener.epoch, stack[0]), folder, stack)
        return
    for stack, outcomes in spread(partial(work, None, folder), stacks, count, devices):
        if isinstance(outcomes, Lost):
            yield from ((one.identity.run, Failure(one, outcomes.message)) for one in stack)
        else:
            yield from outcomes


def _elsewhere(
    stacks: list[Stack], keep_weights: bool, folder: Path, executor: Executor
) -> Iterator[tuple[str, Result | Failure | None]]:
    """Do what of the stacks no other process is at; this process alone claims runs and writes files."""
    settled: Attempt = []
    held: dict[str, ExitStack] = {}

    def free() -> Iterator[Stack]:
        for stack in stacks:
            with ExitStack() as claims:
                found, mine = _claimed(claims, keep_weights, False, folder, stack)
                settled.extend(found)
                if mine:
                    held[mine[0].identity.run] = claims.pop_all()
                    yield mine

    try:
        for stack, answer in executor(partial(_packed, keep_weights, folder), free()):
            files: dict[str, bytes] = {}
            if isinstance(answer, Lost):
                attempt: Attempt = [(one.identity.run, Failure(one, answer.message)) for one in stack]
            else:
                attempt, files = _of(stack, answer[0]), answer[1]
            for name in sorted(files, key=lambda name: name.endswith(SUFFIX)):  # the result vouches for the rest
                write_atomically(folder / name, files[name])
            for _, outcome in attempt:
                if isinstance(outcome, Result):
                    checkpoint.remove(folder, outcome)
            held.pop(stack[0].identity.run).close()
            yield from attempt
    finally:
        for claims in held.values():
            claims.close()
    yield from settled


def _packed(keep_weights: bool, folder: Path, stack: Stack) -> tuple[Attempt, dict[str, bytes]]:
    """Train a stack, and return what became of it and the files that it left.

    Checkpoints lie in the folder of the suite if this machine has it too: then it sees the claim there.
    """
    with TemporaryDirectory() as made:
        kept = folder if claimed(folder, stack[0].identity.run) else Path(made)
        attempt = _trained(keep_weights, None, Path(made), stack, kept)
        files = {path.name: path.read_bytes() for path in Path(made).iterdir() if path.suffix != CHECKPOINT}
    return _of([replace(one, data="") for one in stack], attempt), files  # the dialogues stay where they are


def _of(stack: Stack, attempt: Attempt) -> Attempt:
    """Return an answer whose failures hold the experiments of this stack."""
    known = {one.identity.run: one for one in stack}
    return [(run, replace(x, experiment=known[run]) if isinstance(x, Failure) else x) for run, x in attempt]


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


def _attempt(keep_weights: bool, wait: bool, progress: Progress | None, folder: Path, stack: Stack) -> Attempt:
    """Do what of a stack no other process is at, or has done; `wait` for those that are."""
    with ExitStack() as claims:
        found, mine = _claimed(claims, keep_weights, wait, folder, stack)
        return found + (_trained(keep_weights, progress, folder, mine, folder) if mine else [])


def _claimed(claims: ExitStack, keep_weights: bool, wait: bool, folder: Path, stack: Stack) -> tuple[Attempt, Stack]:
    """Claim the runs of a stack; returns what is known of those that are not to be done here, and the others."""
    found: Attempt = []
    mine: Stack = []
    for experiment in stack:
        run = experiment.identity.run
        if not claims.enter_context(claim(folder, run, wait)):
            found.append((run, None))
        elif (there := written(folder, experiment, keep_weights)) is not None:
            found.append((run, there))
        else:
            mine.append(experiment)
    if any(_noted(folder, one) for one in mine):  # what another process noted is not lost when a run is made again
        mine = [replace(one, options=replace(one.options, contributions=True)) for one in mine]
    return found, mine


def _trained(keep_weights: bool, progress: Progress | None, folder: Path, stack: Stack, checkpoints: Path) -> Attempt:
    """Train a stack and write its files; one broken run does not take the others with it.

    What of a stack is not finished when it fails is tried again one by one: the fault may be that of a single seed.
    """
    kept = Checkpoints(checkpoints)
    attempt: Attempt = []
    try:
        outcomes = run_stack(stack, progress, kept) if len(stack) > 1 else [stack[0].run(progress, kept)]
        for experiment, outcome in zip(stack, outcomes, strict=True):
            keep(experiment, outcome, folder, weights=keep_weights)
            attempt.append((outcome.result.run, outcome.result))
    except (Exception, SystemExit) as error:  # a part of the user's own may well call `sys.exit`
        if len(stack) == 1:
            return [(stack[0].identity.run, Failure(stack[0], _told(error), traceback.format_exc()))]
    for one in stack[len(attempt) :]:  # here: the error held the memory of the stack
        attempt += _trained(keep_weights, progress, folder, [one], checkpoints)
    return attempt


def _told(error: BaseException) -> str:
    """Return why a run broke, in one or a few lines."""
    if isinstance(error, MerZooError):
        return str(error)
    return f"unexpected {type(error).__name__}: {error}. See --traceback, and please report what it shows."
