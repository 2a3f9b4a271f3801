"""From a request to a result: one recipe on one split of one dataset, with one seed."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mer_zoo.data.container import fingerprint_of
from mer_zoo.data.conversation import Dataset
from mer_zoo.data.loading import load
from mer_zoo.data.splits import SplitRule, fold_count, is_folded, split_dataset
from mer_zoo.errors import MerZooError
from mer_zoo.model import filling, recipe
from mer_zoo.model.assembly import assemble
from mer_zoo.model.budget import size
from mer_zoo.model.changes import Change
from mer_zoo.model.plan import Plan
from mer_zoo.model.saving import save
from mer_zoo.results.identity import Identity, Protocol
from mer_zoo.results.result import SUFFIX, write_result
from mer_zoo.training import checkpoint, learning, loop, memory
from mer_zoo.training.checkpoint import Checkpoints
from mer_zoo.training.engines import seeds_that_fit, why_not_stacked
from mer_zoo.training.options import ComputeOptions, check_device
from mer_zoo.training.task import Task, identity

Data = str | Mapping[str, Any] | Dataset
"""A dataset, its name, `{name: ..., settings}`, or the folder of a container."""

RESULT = 1 << 20
"""Bytes that a result file takes, generously."""

SEEDS = 2**32
"""Seeds lie below it: all generators take them."""


@dataclass(frozen=True)
class Experiment:
    """One run to make, as plain data that a worker process can be sent.

    Attributes:
        name: what tables call the model.
        plan: the recipe, filled for the data.
        data: what `data.loading.load` takes, or a dataset.
        fingerprint: of the dataset.
        seed: decides weights, order of dialogues and dropout.
        fold: which fold is the test; None: the data's own test split.
        protocol: `validation`, or `test-oracle`.
        split_rule: how the dialogues are split.
        device: `cpu`, `cuda`, `cuda:1`.
        options: how to compute.

    Example:
        >>> experiment = prepare("bilstm", "synthetic", changes=["training.epochs=1"])
        >>> experiment.run().result.epochs_run
        1
    """

    name: str
    plan: Plan
    data: Data
    fingerprint: str
    seed: int = 0
    fold: int | None = None
    protocol: Protocol = "validation"
    split_rule: SplitRule = field(default_factory=SplitRule)
    device: str = "cpu"
    options: ComputeOptions = field(default_factory=ComputeOptions)

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or not 0 <= self.seed < SEEDS:
            raise MerZooError(f"seed {self.seed}: want a whole number from 0 to {SEEDS - 1}.")
        if self.options.contributions and (reason := why_no_contributions(self.plan)) is not None:
            raise MerZooError(f"{self.name}: no contributions over epochs, for {reason}. Leave `contributions` out.")

    @property
    def identity(self) -> Identity:
        """What decides the run."""
        how: dict[str, Any] = {"protocol": self.protocol, "precision": self.options.precision}
        return identity(self.plan, self.fingerprint, self.split_rule, seed=self.seed, fold=self.fold, **how)

    def task(self) -> Task:
        """Load the dialogues and split them."""
        dataset = dataset_of(self.data)
        split = split_dataset(dataset, self.fold or 0, self.split_rule)
        return Task(self.name, self.plan, dataset, split, self.fold, self.device, split_rule=self.split_rule)

    def rehearse(self) -> None:
        """Make the model and run it on two random dialogues, so that what does not fit is refused before any training.

        Raises:
            MerZooError: a part, or parts that do not fit together.
        """
        if self.plan.learner is not None:
            learning.made(self.plan.learner)
            return
        assemble(self.plan, self.task().facts)

    def run(
        self, progress: Callable[[dict[str, Any]], None] | None = None, checkpoints: Checkpoints | None = None
    ) -> loop.Outcome:
        """Train, and return the model and its result.

        Args:
            progress: called after every epoch with its record.
            checkpoints: where they are kept; None: there are none. A learner has none.
        """
        if self.plan.learner is not None:
            return learning.learn(self.task(), self.seed, protocol=self.protocol)
        how: dict[str, Any] = {"protocol": self.protocol, "options": self.options, "progress": progress}
        return loop.train(self.task(), self.seed, checkpoints=checkpoints, **how)


def prepare(
    given: recipe.Given,
    data: Data,
    *,
    name: str = "",
    changes: Iterable[str | Change] | Mapping[str, Any] = (),
    fold: int | None = None,
    split_rule: SplitRule | None = None,
    **how: Any,
) -> Experiment:
    """Read a recipe, fill it for the data, and return the experiment; nothing is trained.

    Args:
        given: the recipe, see `recipe.read`.
        data: see `Data`.
        name: what tables call the model; the recipe's name if it is "".
        changes: `key=value` changes of the recipe, or key -> value.
        fold: which fold is the test, where there are folds (None: the first).
        split_rule: how the dialogues are split.
        how: further fields of `Experiment`.

    Raises:
        MerZooError: recipe and data do not fit, there is no such fold, a split has no labels, or the device cannot be
            used.
    """
    check_device(how.get("device", "cpu"))
    dataset = dataset_of(data)
    if isinstance(data, Dataset):
        data = dataset
    plan = filling.fill(file := recipe.read(given, changes), dataset.widths, f"dataset '{dataset.name}'")
    rule = split_rule or SplitRule()
    if is_folded(dataset, rule):
        fold = fold or 0
    elif fold is not None:
        raise MerZooError(
            f"fold {fold}: dataset '{dataset.name}' has no folds, but the splits {', '.join(dataset.splits)}. Leave "
            "the fold out."
        )
    experiment = Experiment(name or file.name, plan, data, dataset.fingerprint, fold=fold, split_rule=rule, **how)
    experiment.task()
    return experiment


def why_no_contributions(plan: Plan) -> str | None:
    """Return why the contributions of modalities cannot be noted after every epoch, or None if they can."""
    if plan.learner is not None:
        return "a learner has no epochs"
    only = next(iter(plan.modalities))
    return f"{only} is its only modality" if len(plan.modalities) == 1 else None


def folds_of(data: Data, rule: SplitRule | None = None) -> Sequence[int | None]:
    """Return the folds to run: numbers for data that is cross-validated, else None alone."""
    dataset = dataset_of(data)
    return range(fold_count(dataset, rule)) if is_folded(dataset, rule) else [None]


def run_stack(
    experiments: Sequence[Experiment],
    progress: Callable[[dict[str, Any]], None] | None = None,
    checkpoints: Checkpoints | None = None,
) -> Iterator[loop.Outcome]:
    """Run experiments that differ in their seed only, as many at a time as memory allows; yield what each leaves.

    Models that cannot be stacked are trained one by one. Seeds that turn out not to fit together are begun anew, half
    as many at a time; those that are finished have been yielded by then.

    Args:
        experiments: at least one.
        progress, checkpoints: as of `Experiment.run`.

    Raises:
        MerZooError: they differ in more than their seed, or a run fails, such as one that does not fit alone.
    """
    first = experiments[0]
    if any(replace(other, seed=first.seed) != first for other in experiments):
        raise MerZooError("experiments that are stacked may differ in their seed only.")
    if first.plan.learner is not None:
        yield from (experiment.run() for experiment in experiments)
        return
    task, left = first.task(), [experiment.seed for experiment in experiments]
    size = 1 if why_not_stacked(task) is not None else seeds_that_fit(task)
    how: dict[str, Any] = {"protocol": first.protocol, "options": first.options, "progress": progress}
    how["checkpoints"] = checkpoints
    while left:
        seeds = left[:size]
        if len(seeds) == 1:
            yield loop.train(task, seeds[0], **how)
        elif (outcomes := _together(task, seeds, how)) is None:
            size = (len(seeds) + 1) // 2
            warnings.warn(f"{task.name}: {len(seeds)} seeds do not fit in memory together. {size} are tried.")
            continue
        else:
            yield from outcomes
        left = left[size:]


def _together(task: Task, seeds: Sequence[int], how: Mapping[str, Any]) -> list[loop.Outcome] | None:
    """Train seeds as one program, or return None with the memory given back if it is not enough."""
    try:
        return loop.train_stacked(task, seeds, **how)
    except Exception as error:
        if not memory.ran_out(error):
            raise
    memory.give_back(task.device)  # here: the error held what was being computed
    return None


def keep(experiment: Experiment, outcome: loop.Outcome, folder: Path, *, weights: bool = False) -> Path:
    """Write the result of an experiment into a folder, after its weights if they are wanted; returns its path.

    The result vouches for everything else, so it is written last; then the checkpoint goes. A learner has no weights to
    keep: it is fitted again.
    """
    path = folder / outcome.result.file_name
    if weights and outcome.model is not None:
        save(outcome.saved, weights_beside(path))
    write_result(outcome.result, folder)
    checkpoint.remove(folder, outcome.result)
    return path


def check_room(experiments: Sequence[Experiment], folder: Path, *, weights: bool) -> None:
    """Warn before training if the disk has no room for what it will write.

    Args:
        experiments: what will run.
        folder: where their files are written.
        weights: whether trained models are kept.
    """
    sizes: dict[str, int] = {}
    need = RESULT * len(experiments)
    for one in experiments if weights else ():
        if one.plan.learner is None:
            key = repr((one.plan, one.fingerprint))
            sizes[key] = sizes.get(key) or size(one.plan, one.task().facts)
            need += sizes[key]
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there)[2]
    if need > free:
        count = f"the {len(experiments)} runs" if len(experiments) > 1 else "the run"
        warnings.warn(
            f"{folder}: {count} will write about {need // 10**6 + 1:,} MB, and {free // 10**6:,} MB are free. Make "
            "room, or choose another folder.",
            stacklevel=2,
        )


def weights_beside(path: Path) -> Path:
    """Return where the weights of a result file lie."""
    return path.with_name(path.name.removesuffix(SUFFIX) + ".safetensors")


def dataset_of(data: Data) -> Dataset:
    """Return the dataset that data stand for, with its fingerprint; a name or a folder is loaded."""
    if not isinstance(data, Dataset):
        return load(data)
    return data if data.fingerprint else replace(data, fingerprint=fingerprint_of(data))
