"""The training loop, read from top to bottom: what is trained, what chooses the epoch, what is reported.

Data flows through `Task` (a recipe filled for a dataset's split) into `train`, which returns a model and a `Result`.
The test split is not even uploaded before the epoch is chosen on validation; only the protocol `test-oracle`, which
replays the literature and is marked everywhere, looks at it while training.
"""

from __future__ import annotations

import datetime
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mer_zoo.corpus import Corpus
from mer_zoo.data.conversation import Conversation, Dataset
from mer_zoo.data.splits import Split
from mer_zoo.errors import MerZooError
from mer_zoo.kernel.base import Kernel
from mer_zoo.model.model import Facts, Model, assemble
from mer_zoo.results.device_metrics import confusion
from mer_zoo.results.metrics import score_confusion
from mer_zoo.results.result import Environment, Result, run_id
from mer_zoo.training.capturing import Replayed
from mer_zoo.training.engines import Alone, Engine, Stacked, batches_of, why_not_stacked
from mer_zoo.training.options import Speed

Protocol = Literal["validation", "test-oracle"]
Progress = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Task:
    """One cell of a comparison without its seed: a recipe filled for the dialogues of one split.

    Corpora are made on first use and shared by all seeds, so graphs are built once.

    Attributes:
        name: what tables call the model.
        filled: what `recipe.fill` returns.
        dataset, split, fold: the dialogues, and which fold of a cross-validation this is (None: the data's own splits).
        device: where to compute.
        kernels: kernel class to force, or None.
    """

    name: str
    filled: Mapping[str, Any]
    dataset: Dataset
    split: Split
    fold: int | None = None
    device: str = "cpu"
    kernels: type[Kernel] | None = None

    @cached_property
    def facts(self) -> Facts:
        """What parts may know of the data: never anything of the test labels."""
        classes = len(self.dataset.label_names)
        labels = np.concatenate([dialogue.labels for dialogue in self.dataset.select(self.split.train)])
        counts = np.bincount(labels[labels >= 0], minlength=classes)
        if not counts.sum():
            raise MerZooError(f"dataset '{self.dataset.name}': no training utterance has a label.")
        return Facts(self.filled["modalities"], self.dataset.max_speakers, classes, tuple(counts.tolist()))

    @cached_property
    def _probe(self) -> Model:
        return assemble(self.filled, self.facts)

    def _corpus(self, ids: Sequence[str]) -> Corpus:
        dialogues = self.dataset.select(ids)
        return Corpus(dialogues, self._probe.builder, self._probe.specs, kernels=self.kernels, device=self.device)

    @cached_property
    def train(self) -> Corpus:
        """Training dialogues on the device."""
        return self._corpus(self.split.train)

    @cached_property
    def validation(self) -> Corpus:
        """Validation dialogues on the device."""
        return self._corpus(self.split.validation)

    @cached_property
    def test(self) -> Corpus:
        """Test dialogues on the device."""
        return self._corpus(self.split.test)

    def run(self, seed: int) -> str:
        """Identity of the run with this seed: hash of what decides it."""
        return run_id(dict(self.filled), self.dataset.fingerprint, seed, self.fold)


@dataclass
class Outcome:
    """A trained model and its result."""

    model: Model
    result: Result


def train(
    task: Task,
    seed: int,
    *,
    protocol: Protocol = "validation",
    progress: Progress | None = None,
    speed: Speed | None = None,
) -> Outcome:
    """Train one seed of a task, choose the epoch, and only then look at the test split.

    Args:
        task: recipe and dialogues.
        seed: decides weights, order of dialogues and dropout.
        protocol: `validation`, or `test-oracle` to also report the best epoch on test (marked as such).
        progress: called after every epoch with its record.
        speed: how to compute.

    Raises:
        MerZooError: the loss is not finite.
    """
    return _train(Alone, task, [seed], protocol, progress, speed or Speed())[0]


def train_stacked(
    task: Task,
    seeds: Sequence[int],
    *,
    protocol: Protocol = "validation",
    progress: Progress | None = None,
    speed: Speed | None = None,
) -> list[Outcome]:
    """Train several seeds as one program; without dropout each is what it would be alone.

    Weights and order of dialogues are those of the seed alone; dropout is drawn from the stack's own generator. A seed
    that has stopped early is carried along, and ignored, until all have.

    Args:
        task, protocol, progress, speed: as of `train`; progress hears of every seed that has not stopped.
        seeds: at least one.

    Raises:
        MerZooError: a part or the balancing cannot be stacked, or a loss is not finite.
    """
    if (reason := why_not_stacked(task)) is not None:
        raise MerZooError(f"{task.name}: {reason}. Train its seeds one by one.")
    return _train(Stacked, task, seeds, protocol, progress, speed or Speed())


@dataclass
class Lane:
    """What is kept of one seed while it trains."""

    seed: int
    best: Best = field(default_factory=lambda: Best())
    oracle_best: Best = field(default_factory=lambda: Best())
    history: list[dict[str, Any]] = field(default_factory=list)
    stopped: bool = False


def _train(
    engine_class: type[Engine],
    task: Task,
    seeds: Sequence[int],
    protocol: Protocol,
    progress: Progress | None,
    speed: Speed,
) -> list[Outcome]:
    started = time.perf_counter()
    _reset_peak_memory(task.device)
    settings = task.filled["training"]
    size, names = settings["dialogues_per_batch"], task.dataset.label_names
    with speed.computing():
        torch.manual_seed(seeds[0])
        plan = [batches_of(task.train, seed, settings["epochs"], size) for seed in seeds]
        engine = engine_class(task, seeds, plan, speed)
        judge = Judge(task.validation, engine, size)
        oracle = Judge(task.test, engine, size) if protocol == "test-oracle" else None
        lanes = [Lane(seed) for seed in seeds]
        seconds: list[float] = []
        for epoch in range(settings["epochs"]):
            began = time.perf_counter()
            losses = engine.epoch(epoch).tolist()
            rates, confusions = engine.rates(), judge.confusion()
            test_confusions = oracle.confusion() if oracle is not None else None
            for number, lane in enumerate(lanes):
                if lane.stopped:
                    continue
                record: dict[str, Any] = {"epoch": epoch, "train_loss": losses[number]}
                if not np.isfinite(losses[number]):
                    raise MerZooError(
                        f"{task.name}, seed {lane.seed}, epoch {epoch}: the training loss is {losses[number]}. "
                        "Lower `training.learning_rate`, or set `training.clip`."
                    )
                if len(seeds) > 1:
                    record["stacked_seeds"] = len(seeds)
                if rates[number]:
                    record["rates"] = rates[number]
                scores = score_confusion(confusions[number], names)
                record |= {f"validation_{name}": scores[name] for name in ("weighted_f1", "accuracy")}
                lane.best.offer(scores[settings["select"]], epoch, partial(engine.weights, number))
                if test_confusions is not None:
                    scores = score_confusion(test_confusions[number], names)
                    record["test_weighted_f1"] = scores["weighted_f1"]
                    lane.oracle_best.offer(scores[settings["select"]], epoch, dict, scores)
                lane.history.append(record)
                if progress is not None:
                    progress(record)
                lane.stopped = settings["patience"] is not None and epoch - lane.best.epoch >= settings["patience"]
            seconds.append(time.perf_counter() - began)
            if all(lane.stopped for lane in lanes):
                break
        engine.load([lane.best.weights for lane in lanes])
        final = oracle or Judge(task.test, engine, size)
        validation, test = judge.confusion(), final.confusion()
        predictions = final.predictions(task.dataset.select(task.split.test))
    share = 1 / len(seeds)  # what one of several stacked seeds costs
    outcomes = []
    for number, lane in enumerate(lanes):
        described = {
            "run": task.run(lane.seed),
            "recipe_name": task.name,
            "recipe": task.filled,
            "dataset": {
                "name": task.dataset.name,
                "fingerprint": task.dataset.fingerprint,
                "warnings": task.dataset.warnings,
                "ceiling": task.dataset.ceiling,
                "label_names": names,
                "modalities": task.dataset.widths,
            },
            "seed": lane.seed,
            "fold": task.fold,
            "protocol": protocol,
            "split": task.split._asdict(),
            "chosen_epoch": lane.best.epoch,
            "epochs_run": len(lane.history),
            "metrics": {
                "validation": score_confusion(validation[number], names),
                "test": score_confusion(test[number], names),
            },
            "oracle_metrics": lane.oracle_best.scores,
            "history": lane.history,
            "predictions": predictions[number],
            "parameters": sum(p.numel() for p in engine.models[number].parameters()),
            "seconds": {
                "total": (time.perf_counter() - started) * share,
                "first_epoch": seconds[0] * share,
                "per_epoch": float(np.median(seconds)) * share,
            },
            "peak_memory_mb": _peak_memory(task.device),
            "environment": Environment.here(task.device + (f", {speed.precision}" * (speed.precision != "float32"))),
            "finished": datetime.datetime.now(datetime.timezone.utc),
        }
        outcomes.append(Outcome(engine.models[number], Result.model_validate(described)))
    return outcomes


@dataclass
class Best:
    """The weights of the epoch with the highest score so far; the earlier one on a tie."""

    score: float = -1.0
    epoch: int = -1
    weights: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, Any] | None = None

    def offer(
        self,
        score: float,
        epoch: int,
        weights: Callable[[], dict[str, Tensor]],
        scores: dict[str, Any] | None = None,
    ) -> None:
        """Keep this epoch if it is the best."""
        if score > self.score:
            self.score, self.epoch, self.scores = score, epoch, scores
            self.weights = weights()


class Judge:
    """An engine's verdict on dialogues it is not trained on; batches are made once, and the counting is captured.

    Args:
        corpus: the dialogues.
        engine: judges in evaluation mode.
        dialogues_per_batch: dialogues at a time.
    """

    def __init__(self, corpus: Corpus, engine: Engine, dialogues_per_batch: int) -> None:
        self.engine, self.corpus = engine, corpus
        steps = -(-len(corpus) // dialogues_per_batch)
        self.batches = [corpus.batch(chosen) for chosen in np.array_split(np.arange(len(corpus)), steps)]
        self._counted = Replayed(self._count, str(corpus.device)) if engine.captures else self._count

    def _logits(self) -> list[Tensor]:
        with torch.no_grad():
            return [self.engine.logits(batch) for batch in self.batches]

    def _count(self) -> Tensor:
        pairs = zip(self._logits(), self.batches, strict=True)
        return torch.stack([confusion(logits, batch.labels, logits.shape[-1]) for logits, batch in pairs]).sum(0)

    def confusion(self) -> np.ndarray:
        """Confusion matrix of every seed over all labelled utterances, int64 `[seeds, classes, classes]`."""
        return self._counted().cpu().numpy()

    def predictions(self, conversations: Sequence[Conversation]) -> list[dict[str, Any]]:
        """Return, of every seed, labels, predicted classes and probabilities of every dialogue."""
        probabilities = torch.cat(self._logits(), 1).softmax(-1).cpu().double().numpy()
        starts = np.cumsum([len(dialogue) for dialogue in conversations])[:-1]
        return [
            {
                dialogue.id: {
                    "label": dialogue.labels.tolist(),
                    "predicted": p.argmax(-1).tolist(),
                    "probability": p.tolist(),
                }
                for dialogue, p in zip(conversations, np.split(probability, starts), strict=True)
            }
            for probability in probabilities
        ]


def _reset_peak_memory(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # not permitted in some containers: the peak is then that of the whole process so far
            return


def _peak_memory(device: str) -> float:
    """Peak memory in MB: of the device, or of this process since the run began (where Linux tells)."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 1e6
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
