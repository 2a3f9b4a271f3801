"""A suite: models × datasets × seeds, planned whole, run in any order, resumed by skipping what is there."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pydantic

from mer_zoo import registry
from mer_zoo.data.conversation import Dataset
from mer_zoo.data.loading import load
from mer_zoo.data.splits import fold_count, split_dataset
from mer_zoo.errors import MerZooError, nearest
from mer_zoo.model import recipe
from mer_zoo.registry import document, resources
from mer_zoo.results.result import Result, read_results, run_id, write_result
from mer_zoo.training.options import Speed


class Entry(pydantic.BaseModel):
    """A model of a suite: a recipe and what to change in it; a bare name stands for `{recipe: name}`."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    recipe: str
    change: dict[str, Any] = {}

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"recipe": value} if isinstance(value, str) else value


class Suite(pydantic.BaseModel):
    """What is compared.

    Attributes:
        title: one line.
        data: datasets, by name, folder, or `{name, settings}`.
        models: name in the tables -> recipe, or `{recipe, change: {key: value}}`.
        seeds: number of seeds (0, 1, ...) or a list of them.
        change: changes of every recipe, such as `training.epochs: 10`.
        protocol: `validation`, or `test-oracle` to replay the literature.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    title: str
    data: list[str | dict[str, Any]]
    models: dict[str, Entry]
    seeds: pydantic.PositiveInt | list[int] = 3
    change: dict[str, Any] = {}
    protocol: Literal["validation", "test-oracle"] = "validation"


@dataclass(frozen=True)
class Cell:
    """One run to make: everything a worker needs to know, as plain data."""

    model: str
    filled: Mapping[str, Any]
    data: str | Mapping[str, Any]
    fold: int | None
    seed: int
    run: str
    protocol: Literal["validation", "test-oracle"] = "validation"
    device: str = "cpu"
    keep_weights: bool = False
    speed: Speed = field(default_factory=Speed)


@dataclass(frozen=True)
class Failure:
    """A run that broke; the others went on."""

    cell: Cell
    message: str


def names() -> list[str]:
    """Return the suites that ship.

    Example:
        >>> "default" in names()
        True
    """
    return sorted(path.stem for path in (resources.folder("baselines") / "suites").glob("*.yaml"))


def title(name: str) -> str:
    """Return the title of a shipped suite."""
    return read(name).title


def read(name: str) -> Suite:
    """Read a suite by shipped name or path; faults are told with line and column."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in names():
            raise MerZooError(f"no suite named '{name}'.{nearest(name, names())} A file ends in .yaml.")
        path = resources.folder("baselines") / "suites" / f"{name}.yaml"
    page = document.read(path)
    try:
        return Suite.model_validate(page.data)
    except pydantic.ValidationError as error:
        lines = []
        for fault in error.errors():
            where = [x for x in fault["loc"] if x not in ("str", "dict[str,any]", "list[int]", "constrained-int")]
            hint = nearest(str(where[-1]), Suite.model_fields) if fault["type"] == "extra_forbidden" and where else ""
            lines.append(f"{page.place(where)} {'.'.join(map(str, where))}: {fault['msg']}.{hint}")
        raise MerZooError("\n".join(lines)) from None


def plan(suite: Suite, *, device: str = "cpu", keep_weights: bool = False, speed: Speed | None = None) -> list[Cell]:
    """Return every run of a suite. All recipes are read and filled first, so a typo costs no training."""
    cells, faults = [], []
    seeds = range(suite.seeds) if isinstance(suite.seeds, int) else suite.seeds
    for reference in suite.data:
        dataset = load(reference)
        folds: Sequence[int | None] = range(fold_count(dataset)) if "all" in dataset.splits else [None]
        for name, entry in suite.models.items():
            try:
                filled = fill(entry.recipe, {**suite.change, **entry.change}, dataset)
            except MerZooError as error:
                faults.append(f"{name} on {dataset.name}: {error}")
                continue
            for fold in folds:
                for seed in seeds:
                    run = run_id(filled, dataset.fingerprint, seed, fold)
                    how = (suite.protocol, device, keep_weights, speed or Speed())
                    cells.append(Cell(name, filled, reference, fold, seed, run, *how))
    if faults:
        raise MerZooError("\n".join(faults))
    return cells


def fill(name: str, change: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """Read a recipe, change it, fill it for a dataset."""
    import json

    overrides = [f"{key}={json.dumps(value)}" for key, value in change.items()]
    return recipe.fill(recipe.read(name, overrides), dataset.widths, f"dataset '{dataset.name}'")


def execute(
    cells: Sequence[Cell],
    folder: Path,
    *,
    workers: int | None = None,
    on_start: Callable[[int, int], None] | None = None,
    on_run: Callable[[Result | Failure], None] | None = None,
    on_epoch: Callable[[Cell, dict[str, Any]], None] | None = None,
    on_damaged: Callable[[str], None] | None = None,
) -> tuple[list[Result], list[Failure]]:
    """Run what is not yet in the folder, and return the results of all cells.

    Args:
        cells: the plan.
        folder: where result files lie; one is written as soon as its run ends.
        workers: processes; None: as many as there are processors, at most one per run.
        on_start: told how many runs there are and how many are already there.
        on_run, on_epoch: told of every finished run and, with a single worker, of every epoch.
        on_damaged: told of result files that cannot be read.
    """
    wanted = {cell.run for cell in cells}
    done = {r.run: r for r in read_results(folder, on_damaged) if r.run in wanted} if folder.exists() else {}
    missing = [cell for cell in cells if cell.run not in done]
    if on_start is not None:
        on_start(len(cells), len(done))
    failures = []
    for cell, outcome in _outcomes(missing, folder, workers, on_epoch):
        if isinstance(outcome, str):
            failures.append(Failure(cell, outcome))
        else:
            done[cell.run] = outcome
        if on_run is not None:
            on_run(failures[-1] if isinstance(outcome, str) else outcome)
    # a result that was there already may come from a run of another name
    found = [done[c.run].model_copy(update={"recipe_name": c.model}) for c in cells if c.run in done]
    return found, failures


def _outcomes(
    cells: Sequence[Cell], folder: Path, workers: int | None, on_epoch: Any
) -> Iterator[tuple[Cell, Result | str]]:
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    stacks = _stacks(cells)
    count = min(workers or processors, len(stacks))
    if count <= 1 or any(cell.device.startswith("cuda") for cell in cells):
        for stack in stacks:
            told = (lambda r, c=stack[0]: on_epoch(c, r)) if on_epoch else None
            yield from zip(stack, _attempt(stack, folder, told), strict=True)
        return
    import joblib

    threads = max(1, processors // count)
    with joblib.parallel_config(backend="loky", inner_max_num_threads=threads):
        session = registry.session()
        jobs = (joblib.delayed(_in_worker)(i, stack, folder, threads, session) for i, stack in enumerate(stacks))
        for i, outcomes in joblib.Parallel(n_jobs=count, return_as="generator_unordered", batch_size=1)(jobs):
            yield from zip(stacks[i], outcomes, strict=True)


def _stacks(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Put neighbours that differ in nothing but the seed together, where stacked seeds are wanted.

    On GPUs they are, unless refused; on CPU one seed fills a processor, so processes side by side are as fast.
    """
    found: list[list[Cell]] = []
    for cell in cells:
        wanted = cell.device.startswith("cuda") if cell.speed.stack is None else cell.speed.stack
        if wanted and found and replace(found[-1][0], seed=cell.seed, run=cell.run) == cell:
            found[-1].append(cell)
        else:
            found.append([cell])
    return found


def _in_worker(number: int, stack: list[Cell], folder: Path, threads: int, session: Any) -> tuple[int, Any]:
    import torch

    registry.resume(session)
    torch.set_num_threads(threads)
    return number, _attempt(stack, folder, None)


def _attempt(stack: list[Cell], folder: Path, progress: Any) -> list[Result | str]:
    """Train a stack; what went wrong is returned, so that one broken run does not take the others with it.

    A stack that fails together is tried again one by one: the fault may be that of a single seed, or memory.
    """
    try:
        return [*(run_stack(stack, folder, progress) if len(stack) > 1 else [run(stack[0], folder, progress)])]
    except Exception as error:
        if len(stack) > 1:
            return [outcome for cell in stack for outcome in _attempt([cell], folder, progress)]
        if isinstance(error, MerZooError):
            return [str(error)]
        return [f"unexpected failure, please report it:\n{traceback.format_exc()}"]


def run(cell: Cell, folder: Path, progress: Callable[[dict[str, Any]], None] | None = None) -> Result:
    """Train one cell and write its result file (and its weights, if they are kept)."""
    from mer_zoo.training.loop import train

    task = _task(cell)
    outcome = train(task, cell.seed, protocol=cell.protocol, progress=progress, speed=cell.speed)
    return _write(cell, task, outcome, folder)


def run_stack(
    cells: Sequence[Cell], folder: Path, progress: Callable[[dict[str, Any]], None] | None = None
) -> list[Result]:
    """Train cells that differ in their seed only, as many at a time as memory allows, and write their files.

    Models that cannot be stacked are trained one by one.
    """
    from mer_zoo.training.engines import seeds_that_fit, why_not_stacked
    from mer_zoo.training.loop import train_stacked

    task, first = _task(cells[0]), cells[0]
    size = 1 if why_not_stacked(task) is not None else seeds_that_fit(task)
    if size == 1:
        return [run(cell, folder, progress) for cell in cells]
    results = []
    for start in range(0, len(cells), size):
        chosen = cells[start : start + size]
        seeds = [cell.seed for cell in chosen]
        outcomes = train_stacked(task, seeds, protocol=first.protocol, progress=progress, speed=first.speed)
        results += [_write(cell, task, outcome, folder) for cell, outcome in zip(chosen, outcomes, strict=True)]
    return results


def _write(cell: Cell, task: Any, outcome: Any, folder: Path) -> Result:
    from mer_zoo.model.saving import Saved, save

    path = write_result(outcome.result, folder)
    if cell.keep_weights:
        weights = path.with_name(path.name.removesuffix(".result.json") + ".safetensors")
        names_ = task.dataset.label_names
        saved = Saved(outcome.model, cell.model, dict(cell.filled), task.facts, names_, cell.run, cell.seed, cell.fold)
        save(saved, weights)
    return outcome.result


_tasks: dict[str, Any] = {}


def _task(cell: Cell) -> Any:
    """The cell's task; the one used last is kept, so that its seeds share their corpora."""
    from mer_zoo.training.loop import Task

    key = repr((cell.model, cell.filled, cell.data, cell.fold, cell.device))
    if key not in _tasks:
        _tasks.clear()
        dataset = load(cell.data)
        split = split_dataset(dataset, cell.fold or 0)
        _tasks[key] = Task(cell.model, cell.filled, dataset, split, cell.fold, cell.device)
    return _tasks[key]
