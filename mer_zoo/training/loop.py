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
from mer_zoo.model.optimising import LOSS
from mer_zoo.model.saving import Saved
from mer_zoo.results.identity import Protocol
from mer_zoo.results.metrics import score_confusion, value_of
from mer_zoo.results.result import Damaged, Result, file_stem
from mer_zoo.showing import Shown, Table, Words
from mer_zoo.training import memory
from mer_zoo.training.checkpoint import SUFFIX, Checkpoints, Keeper, bound
from mer_zoo.training.describing import described
from mer_zoo.training.engines import Engine, OneSeed, StackedSeeds, batches_of, why_not_stacked
from mer_zoo.training.evaluation import Evaluator, Judged
from mer_zoo.training.holding import shared_generators
from mer_zoo.training.options import ComputeOptions
from mer_zoo.training.task import Task, identity

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
    checkpoints: Checkpoints | None = None,
) -> Outcome:
    """Train one seed of a task, choose the epoch, and only then look at the test split.

    Args:
        task: plan and dialogues.
        seed: decides weights, order of dialogues and dropout.
        protocol: `validation`, or `test-oracle` to also report the best epoch on test (marked as such).
        progress: called after every epoch with its record.
        options: how to compute.
        checkpoints: where they are kept; None: there are none.

    Raises:
        MerZooError: the loss or a weight is not finite, a checkpoint is of another run, or memory does not suffice.
    """
    try:
        return _Run(OneSeed, task, [seed], protocol, options or ComputeOptions(), checkpoints).train(progress)[0]
    except Exception as error:
        if isinstance(error, MerZooError) or not memory.ran_out(error):
            raise
        raise MerZooError(
            f"{task.name}, seed {seed}: it does not fit in the memory of {task.device}. Lower "
            f"`training.dialogues_per_batch`, or take `--precision bf16`. ({str(error).partition(chr(10))[0]})"
        ) from error


def train_stacked(
    task: Task,
    seeds: Sequence[int],
    *,
    protocol: Protocol = "validation",
    progress: Progress | None = None,
    options: ComputeOptions | None = None,
    checkpoints: Checkpoints | None = None,
) -> list[Outcome]:
    """Train several seeds as one program; without dropout each is what it would be alone.

    Weights and order of dialogues are those of the seed alone; dropout is drawn from the stack's own generator. A seed
    that has stopped early is carried along, and ignored, until all have.

    Args:
        task, protocol, options, checkpoints: as of `train`.
        progress: as of `train`; hears of every seed that has not stopped.
        seeds: at least one.

    Raises:
        MerZooError: a part or the balancing cannot be stacked, or a loss or a weight is not finite.
    """
    if (reason := why_not_stacked(task)) is not None:
        raise MerZooError(f"{task.name}: {reason}. Train its seeds one by one.")
    return _Run(StackedSeeds, task, seeds, protocol, options or ComputeOptions(), checkpoints).train(progress)


@dataclass
class Best:
    """The weights of the epoch with the best value so far, the highest score or lowest loss; the earlier on a tie."""

    value: float = -np.inf
    epoch: int = -1
    weights: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, Any] | None = None

    def offer(self, epoch: int, scores: dict[str, Any], select: str, weights: Callable[[], dict[str, Tensor]]) -> None:
        """Keep this epoch if it is the first, or the best by what selects."""
        value = -scores[LOSS] if select == LOSS else scores[select]
        if value > self.value or self.epoch < 0:
            self.value, self.epoch, self.scores, self.weights = value, epoch, scores, weights()


@dataclass
class SeedRecord:
    """What is kept of one seed while it trains."""

    seed: int
    best: Best = field(default_factory=Best)
    lowest: Best = field(default_factory=Best)
    best_on_test: Best = field(default_factory=Best)
    history: list[dict[str, Any]] = field(default_factory=list)
    stopped: bool = False


@dataclass
class Past:
    """What is kept of all seeds: all of it is in a checkpoint.

    Attributes:
        records: by seed.
        seconds: of every epoch.
        watched: what the schedules watched in every epoch, by seed.
        rates: learning rates of the next epoch, by seed.
        spent: seconds from the beginning.
    """

    records: list[SeedRecord]
    seconds: list[float] = field(default_factory=list)
    watched: list[list[float]] = field(default_factory=list)
    rates: list[float] | None = None
    spent: float = 0.0


class _Run:
    """The training of all seeds that go together, from the first batch to the result."""

    def __init__(
        self,
        engine: type[Engine],
        task: Task,
        seeds: Sequence[int],
        protocol: Protocol,
        options: ComputeOptions,
        checkpoints: Checkpoints | None,
    ) -> None:
        self.task, self.seeds, self.protocol, self.options, self.engine_class = task, seeds, protocol, options, engine
        self.checkpoints = checkpoints
        self.anew = partial(_Run, engine, task, seeds, protocol, options, checkpoints)
        self.training = task.plan.training
        self.names = task.dataset.label_names
        used = (self.training.select, self.training.watched, LOSS if self.training.stop_on == "both" else None)
        self.criteria = tuple(dict.fromkeys(name for name in used if name not in (None, "weighted_f1", "accuracy")))
        self.past = Past([SeedRecord(seed) for seed in seeds])
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
            judge = partial(Evaluator, engine=engine, dialogues_per_batch=size, loss=LOSS in self.criteria)
            validation = judge(task.validation, without=task.validation_without if self.options.contributions else None)
            test = judge(task.test) if self.protocol == "test-oracle" else None
            keeper = self._keeper(engine, self.checkpoints) if self.checkpoints is not None else None
            try:
                if keeper is not None and keeper.resumed():
                    self._go_on(engine)
            except Damaged as error:
                assert keeper is not None
                keeper.set_aside(error)
                return self.anew().train(progress)  # what was put back already is left behind
            for epoch in range(len(self.past.seconds), self.training.epochs):
                began = time.perf_counter()
                self._epoch(epoch, engine, validation, test, progress)
                self.past.seconds.append(time.perf_counter() - began)
                if all(record.stopped for record in self.past.records):
                    break
                if keeper is not None and epoch + 1 < self.training.epochs:
                    self.past.spent = time.perf_counter() - self.started
                    keeper.offer()
            engine.load([record.best.weights for record in self.past.records])
            test = test or judge(task.test)
            confusions = validation.judge().confusion, test.judge().confusion
            predictions = test.predictions(task.dataset.select(task.split.test))
        return [
            Outcome(
                model,
                self._result(record, [of_split[number] for of_split in confusions], predicted, model),
                task.normaliser,
            )
            for number, (record, predicted, model) in enumerate(
                zip(self.past.records, predictions, engine.models, strict=True)
            )
        ]

    def _keeper(self, engine: Engine, checkpoints: Checkpoints) -> Keeper:
        """Return what keeps the run: under the name of its last seed, whose result is the last to be written."""
        task, seed = self.task, self.seeds[-1]
        data, rule = task.dataset, task.split_rule
        how: dict[str, Any] = {"fold": task.fold, "protocol": self.protocol, "precision": self.options.precision}
        what = identity(task.plan, data.fingerprint, rule, seed=seed, **how)
        path = checkpoints.folder / f"{file_stem(task.name, data.name, seed, task.fold, what.run)}{SUFFIX}"
        run = bound(what, self.seeds, self.options, task.device)
        roots = {**engine.roots(), "past": self.past, "generators": shared_generators(task.device)}
        return Keeper(path, run, roots, task.device, checkpoints)

    def _go_on(self, engine: Engine) -> None:
        """Show the schedules what they watched, and the clock what was spent."""
        for watched in self.past.watched:
            engine.descent.after_epoch(watched)
        if engine.descent.rates() != self.past.rates:
            raise MerZooError(
                f"{self.task.name}: '{self.training.schedule.name}' gives other learning rates than it gave for the "
                "same values, so the run cannot be resumed. Train it anew."
            )
        self.started -= self.past.spent

    def _epoch(
        self, epoch: int, engine: Engine, validation: Evaluator, test: Evaluator | None, progress: Progress | None
    ) -> None:
        """Train and judge one epoch, and note it for every seed that has not stopped."""
        losses, learning_rates = engine.epoch(epoch).tolist(), engine.descent.rates()
        rates, finite, judged = engine.rates(), engine.finite(), validation.judge()
        lambdas = engine.lambdas()
        on_test = test.judge() if test is not None else None
        watched = []
        for number, record in enumerate(self.past.records):
            if record.stopped:
                watched.append(0.0)  # its learning rate no longer matters
                continue
            self._refuse_diverged(record.seed, epoch, losses[number], finite[number])
            scores = self._scores(judged, number)
            watched.append(scores[self.training.watched] if self.training.watched else 0.0)
            noted: dict[str, Any] = {"epoch": epoch, "seed": record.seed, "train_loss": losses[number]}
            noted |= {"stacked_seeds": len(self.seeds)} if len(self.seeds) > 1 else {}
            noted |= {"learning_rate": learning_rates[number]} if learning_rates else {}
            noted |= {"rates": rates[number]} if rates[number] else {}
            noted |= {"lambda": lambdas[number]} if lambdas[number] else {}
            noted |= {"contributions": judged.contributions[number]} if judged.contributions[number] else {}
            noted |= {f"validation_{name}": scores[name] for name in ("weighted_f1", "accuracy", *self.criteria)}
            record.best.offer(epoch, scores, self.training.select, partial(engine.weights, number))
            if self.training.stop_on == "both":
                record.lowest.offer(epoch, scores, LOSS, dict)
            if on_test is not None:
                scores = self._scores(on_test, number)
                noted["test_weighted_f1"] = scores["weighted_f1"]
                record.best_on_test.offer(epoch, scores, self.training.select, dict)
            record.history.append(noted)
            if progress is not None:
                progress(noted)
            patience = self.training.patience
            better = max(record.best.epoch, record.lowest.epoch)
            record.stopped = patience is not None and epoch - better >= patience
        engine.descent.after_epoch(watched)
        self.past.watched.append(watched)
        self.past.rates = engine.descent.rates()

    def _scores(self, judged: Judged, number: int) -> dict[str, Any]:
        """Return the scores of one seed, with all that selects, stops or is watched."""
        confusion = judged.confusion[number]
        scores = score_confusion(confusion, self.names)
        for name in self.criteria:
            if name == LOSS and judged.loss is not None:
                scores[LOSS] = judged.loss[number]
            elif name not in scores:
                scores[name] = value_of(name, confusion)
        return scores

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
        validation, test = (self._metrics(confusion) for confusion in confusions)
        oracle = record.best_on_test.scores
        return described(
            self.task,
            record.seed,
            self.protocol,
            self.options.precision,
            chosen_epoch=record.best.epoch,
            epochs_run=len(record.history),
            metrics={"validation": validation, "test": test},
            oracle_metrics=oracle and self._metrics(np.array(oracle["confusion"])),
            history=record.history,
            predictions=predictions,
            parameters=sum(p.numel() for p in model.parameters()),
            seconds={
                "total": (time.perf_counter() - self.started) * share,
                "first_epoch": self.past.seconds[0] * share,
                "per_epoch": float(np.median(self.past.seconds)) * share,
            },
        )

    def _metrics(self, confusion: np.ndarray) -> dict[str, Any]:
        """Return all scores of a confusion matrix, those that the recipe names by path apart."""
        others = {name: value_of(name, confusion) for name in self.criteria if ":" in name}
        return score_confusion(confusion, self.names) | ({"others": others} if others else {})
