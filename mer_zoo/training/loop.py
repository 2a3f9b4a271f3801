"""The training loop, read from top to bottom: what is trained, what chooses the epoch, what is reported.

The test split is not even uploaded before the epoch is chosen on validation; only the protocol `test-oracle`, which
replays the literature and is marked everywhere, looks at it while training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mer_zoo.data.normalising import Normaliser
from mer_zoo.errors import MerZooError
from mer_zoo.model.model import Model
from mer_zoo.model.saving import Saved
from mer_zoo.results.identity import Protocol
from mer_zoo.results.metrics import score_confusion
from mer_zoo.results.result import Result
from mer_zoo.showing import Shown, Table, Words
from mer_zoo.training import memory
from mer_zoo.training.describing import described
from mer_zoo.training.engines import Engine, OneSeed, StackedSeeds, batches_of, why_not_stacked
from mer_zoo.training.evaluation import Evaluator
from mer_zoo.training.options import ComputeOptions
from mer_zoo.training.task import Task

Progress = Callable[[dict[str, Any]], None]


@dataclass(repr=False)
class Outcome(Shown):
    """What a run leaves; shows itself as its result.

    Attributes:
        model: the trained model; None where a learner was fitted.
        result: scores, predictions and all that was run.
        normaliser: what its features were brought to one scale by.
    """

    model: Model | None
    result: Result
    normaliser: Normaliser

    def shown(self) -> Iterator[Words | Table]:
        """Yield the scores."""
        yield from self.result.shown()

    def records(self) -> list[dict[str, Any]]:
        """Return a row per test utterance, see `Result`."""
        return self.result.records()

    @property
    def saved(self) -> Saved:
        """The trained model with all it takes to use it, as `load_model` returns it.

        Raises:
            MerZooError: a learner was fitted.
        """
        result = self.result
        if self.model is None:
            raise MerZooError(f"{result.recipe_name}: a learner leaves no model. Take a recipe that has one.")
        names, fold = tuple(result.dataset.label_names), result.fold
        model, plan = self.model.eval(), self.model.plan
        return Saved(model, result.recipe_name, plan, names, result.run, self.normaliser, result.seed, fold)


def train(
    task: Task,
    seed: int,
    *,
    protocol: Protocol = "validation",
    progress: Progress | None = None,
    options: ComputeOptions | None = None,
) -> Outcome:
    """Train one seed of a task, choose the epoch, and only then look at the test split.

    Args:
        task: plan and dialogues.
        seed: decides weights, order of dialogues and dropout.
        protocol: `validation`, or `test-oracle` to also report the best epoch on test (marked as such).
        progress: called after every epoch with its record.
        options: how to compute.

    Raises:
        MerZooError: the loss or a weight is not finite.
    """
    return _Run(OneSeed, task, [seed], protocol, options or ComputeOptions()).train(progress)[0]


def train_stacked(
    task: Task,
    seeds: Sequence[int],
    *,
    protocol: Protocol = "validation",
    progress: Progress | None = None,
    options: ComputeOptions | None = None,
) -> list[Outcome]:
    """Train several seeds as one program; without dropout each is what it would be alone.

    Weights and order of dialogues are those of the seed alone; dropout is drawn from the stack's own generator. A seed
    that has stopped early is carried along, and ignored, until all have.

    Args:
        task, protocol, progress, options: as of `train`; progress hears of every seed that has not stopped.
        seeds: at least one.

    Raises:
        MerZooError: a part or the balancing cannot be stacked, or a loss or a weight is not finite.
    """
    if (reason := why_not_stacked(task)) is not None:
        raise MerZooError(f"{task.name}: {reason}. Train its seeds one by one.")
    return _Run(StackedSeeds, task, seeds, protocol, options or ComputeOptions()).train(progress)


@dataclass
class Best:
    """The weights of the epoch with the highest score so far; the earlier one on a tie."""

    score: float = -1.0
    epoch: int = -1
    weights: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, Any] | None = None

    def offer(self, epoch: int, scores: dict[str, Any], select: str, weights: Callable[[], dict[str, Tensor]]) -> None:
        """Keep this epoch if it is the best by the selected score."""
        if scores[select] > self.score:
            self.score, self.epoch, self.scores, self.weights = scores[select], epoch, scores, weights()


@dataclass
class SeedRecord:
    """What is kept of one seed while it trains."""

    seed: int
    best: Best = field(default_factory=Best)
    best_on_test: Best = field(default_factory=Best)
    history: list[dict[str, Any]] = field(default_factory=list)
    stopped: bool = False


class _Run:
    """The training of all seeds that go together, from the first batch to the result."""

    def __init__(
        self,
        engine: type[Engine],
        task: Task,
        seeds: Sequence[int],
        protocol: Protocol,
        options: ComputeOptions,
    ) -> None:
        self.task, self.seeds, self.protocol, self.options, self.engine_class = task, seeds, protocol, options, engine
        self.training = task.plan.training
        self.names = task.dataset.label_names
        self.records = [SeedRecord(seed) for seed in seeds]
        self.seconds: list[float] = []
        self.started = time.perf_counter()

    def train(self, progress: Progress | None) -> list[Outcome]:
        """Train, choose, and judge the test split; the caller's random generators are left as they were."""
        task, size = self.task, self.training.dialogues_per_batch
        memory.forget_peak(task.device)
        devices = [torch.device(task.device)] if task.device.startswith("cuda") else []
        with self.options.computing(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.seeds[0])
            batches = [batches_of(task.train, seed, self.training.epochs, size) for seed in self.seeds]
            engine = self.engine_class(task, self.seeds, batches, self.options)
            validation = Evaluator(task.validation, engine, size)
            test = Evaluator(task.test, engine, size) if self.protocol == "test-oracle" else None
            for epoch in range(self.training.epochs):
                began = time.perf_counter()
                self._epoch(epoch, engine, validation, test, progress)
                self.seconds.append(time.perf_counter() - began)
                if all(record.stopped for record in self.records):
                    break
            engine.load([record.best.weights for record in self.records])
            test = test or Evaluator(task.test, engine, size)
            confusions = validation.confusion(), test.confusion()
            predictions = test.predictions(task.dataset.select(task.split.test))
        return [
            Outcome(
                model,
                self._result(record, [of_split[number] for of_split in confusions], predicted, model),
                task.normaliser,
            )
            for number, (record, predicted, model) in enumerate(
                zip(self.records, predictions, engine.models, strict=True)
            )
        ]

    def _epoch(
        self, epoch: int, engine: Engine, validation: Evaluator, test: Evaluator | None, progress: Progress | None
    ) -> None:
        """Train and judge one epoch, and note it for every seed that has not stopped."""
        losses = engine.epoch(epoch).tolist()
        rates, finite, confusions = engine.rates(), engine.finite(), validation.confusion()
        test_confusions = test.confusion() if test is not None else None
        for number, record in enumerate(self.records):
            if record.stopped:
                continue
            self._refuse_diverged(record.seed, epoch, losses[number], finite[number])
            scores = score_confusion(confusions[number], self.names)
            noted: dict[str, Any] = {"epoch": epoch, "seed": record.seed, "train_loss": losses[number]}
            noted |= {"stacked_seeds": len(self.seeds)} if len(self.seeds) > 1 else {}
            noted |= {"rates": rates[number]} if rates[number] else {}
            noted |= {f"validation_{name}": scores[name] for name in ("weighted_f1", "accuracy")}
            record.best.offer(epoch, scores, self.training.select, partial(engine.weights, number))
            if test_confusions is not None:
                scores = score_confusion(test_confusions[number], self.names)
                noted["test_weighted_f1"] = scores["weighted_f1"]
                record.best_on_test.offer(epoch, scores, self.training.select, dict)
            record.history.append(noted)
            if progress is not None:
                progress(noted)
            patience = self.training.patience
            record.stopped = patience is not None and epoch - record.best.epoch >= patience

    def _refuse_diverged(self, seed: int, epoch: int, loss: float, finite: bool) -> None:
        """Raise if the loss or a weight is no longer finite: such a model must never be chosen."""
        if np.isfinite(loss) and finite:
            return
        what = "weights are no longer finite" if np.isfinite(loss) else f"the training loss is {loss}"
        raise MerZooError(
            f"{self.task.name}, seed {seed}, epoch {epoch}: {what}. Lower `training.learning_rate`, or set "
            "`training.clip`."
        )

    def _result(
        self, record: SeedRecord, confusions: Sequence[np.ndarray], predictions: dict[str, Any], model: Model
    ) -> Result:
        """Describe the run of one seed."""
        share = 1 / len(self.seeds)  # what one of several stacked seeds costs
        validation, test = (score_confusion(confusion, self.names) for confusion in confusions)
        return described(
            self.task,
            record.seed,
            self.protocol,
            self.options.precision,
            chosen_epoch=record.best.epoch,
            epochs_run=len(record.history),
            metrics={"validation": validation, "test": test},
            oracle_metrics=record.best_on_test.scores,
            history=record.history,
            predictions=predictions,
            parameters=sum(p.numel() for p in model.parameters()),
            seconds={
                "total": (time.perf_counter() - self.started) * share,
                "first_epoch": self.seconds[0] * share,
                "per_epoch": float(np.median(self.seconds)) * share,
            },
        )
