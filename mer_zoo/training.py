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
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mer_zoo import registry
from mer_zoo.balancing.base import Balancing, Features
from mer_zoo.comparison.metrics import score_confusion
from mer_zoo.comparison.results import Environment, Result, run_id
from mer_zoo.data.batch import ConversationBatch, Corpus
from mer_zoo.data.conversation import Conversation, Dataset
from mer_zoo.data.splits import Split
from mer_zoo.device_metrics import confusion
from mer_zoo.errors import MerZooError
from mer_zoo.kernels.base import Kernel
from mer_zoo.model import Facts, Model, Output, assemble

Protocol = Literal["validation", "test-oracle"]
Progress = Callable[[dict[str, Any]], None]
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


@dataclass(frozen=True)
class Task:
    """One cell of a comparison without its seed: a recipe filled for the dialogues of one split.

    Corpora are made on first use and shared by all seeds, so graphs are built once.

    Inputs:
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
        labels = np.concatenate([talk.labels for talk in self.dataset.select(self.split.train)])
        counts = np.bincount(labels[labels >= 0], minlength=classes)
        if not counts.sum():
            raise MerZooError(f"dataset '{self.dataset.name}': no training utterance has a label.")
        return Facts(self.filled["modalities"], self.dataset.max_speakers, classes, tuple(counts.tolist()))

    @cached_property
    def _probe(self) -> Model:
        return assemble(self.filled, self.facts)

    def _corpus(self, ids: Sequence[str]) -> Corpus:
        talks = self.dataset.select(ids)
        return Corpus(talks, self._probe.builder, self._probe.specs, kernels=self.kernels, device=self.device)

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


def train(task: Task, seed: int, *, protocol: Protocol = "validation", progress: Progress | None = None) -> Outcome:
    """Train one seed of a task, choose the epoch, and only then look at the test split.

    Args:
        task: recipe and dialogues.
        seed: decides weights, order of dialogues and dropout.
        protocol: `validation`, or `test-oracle` to also report the best epoch on test (marked as such).
        progress: called after every epoch with its record.

    Raises:
        MerZooError: the loss is not finite.
    """
    started = time.perf_counter()
    _reset_peak_memory(task.device)
    settings = task.filled["training"]
    torch.manual_seed(seed)
    order = np.random.default_rng(seed)
    model = assemble(task.filled, task.facts, seed).to(task.device)
    balancing = _part("balancing", task, {"modalities": model.modalities, "classes": task.facts.classes})
    loss = _part("loss", task, {"class_counts": task.facts.class_counts, "modalities": model.modalities})
    optimizer = OPTIMIZERS[settings["optimizer"]](
        model.parameters(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"], fused=True
    )
    judge = Judge(task.validation, model, settings["dialogues_per_batch"])
    oracle = Judge(task.test, model, settings["dialogues_per_batch"]) if protocol == "test-oracle" else None
    best, oracle_best = Best(), Best()
    history: list[dict[str, Any]] = []
    seconds: list[float] = []
    for epoch in range(settings["epochs"]):
        began = time.perf_counter()
        model.train()
        batches = np.array_split(order.permutation(len(task.train)), _steps(task))
        balancing.on_epoch_start(epoch, lambda count: _collect(task, model, count))
        losses = [
            _step(model, balancing, loss, optimizer, task.train.batch(chosen), settings["clip"]) for chosen in batches
        ]
        record: dict[str, Any] = {"epoch": epoch, "train_loss": float(torch.stack(losses).mean())}
        if not np.isfinite(record["train_loss"]):
            raise MerZooError(
                f"{task.name}, seed {seed}, epoch {epoch}: the training loss is {record['train_loss']}. "
                "Lower `training.learning_rate`, or set `training.clip`."
            )
        if rates := balancing.rates():
            record["rates"] = {m: float(rate) for m, rate in rates.items()}
        scores = score_confusion(judge.confusion(), task.dataset.label_names)
        record |= {f"validation_{name}": scores[name] for name in ("weighted_f1", "accuracy")}
        best.offer(scores[settings["select"]], epoch, model)
        if oracle is not None:
            test_scores = score_confusion(oracle.confusion(), task.dataset.label_names)
            record["test_weighted_f1"] = test_scores["weighted_f1"]
            oracle_best.offer(test_scores[settings["select"]], epoch, model, test_scores)
        seconds.append(time.perf_counter() - began)
        history.append(record)
        if progress is not None:
            progress(record)
        if settings["patience"] is not None and epoch - best.epoch >= settings["patience"]:
            break
    model.load_state_dict(best.weights)
    validation = score_confusion(judge.confusion(), task.dataset.label_names)
    final = oracle or Judge(task.test, model, settings["dialogues_per_batch"])
    predictions = final.predictions(task.dataset.select(task.split.test))
    test = score_confusion(final.confusion(), task.dataset.label_names)
    described = {
        "run": task.run(seed),
        "recipe_name": task.name,
        "recipe": task.filled,
        "dataset": {
            "name": task.dataset.name,
            "fingerprint": task.dataset.fingerprint,
            "warnings": task.dataset.warnings,
            "ceiling": task.dataset.ceiling,
            "label_names": task.dataset.label_names,
            "modalities": task.dataset.widths,
        },
        "seed": seed,
        "fold": task.fold,
        "protocol": protocol,
        "split": task.split._asdict(),
        "chosen_epoch": best.epoch,
        "epochs_run": len(history),
        "metrics": {"validation": validation, "test": test},
        "oracle_metrics": oracle_best.scores,
        "history": history,
        "predictions": predictions,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": {
            "total": time.perf_counter() - started,
            "first_epoch": seconds[0],
            "per_epoch": float(np.median(seconds)),
        },
        "peak_memory_mb": _peak_memory(task.device),
        "environment": Environment.here(task.device),
        "finished": datetime.datetime.now(datetime.timezone.utc),
    }
    return Outcome(model, Result.model_validate(described))


def _part(kind: str, task: Task, facts: Mapping[str, Any]) -> Any:
    settings = dict(task.filled[kind])
    return registry.build(registry.find(kind, settings.pop("name")), settings, facts, kind).to(task.device)


def _steps(task: Task) -> int:
    return -(-len(task.train) // task.filled["training"]["dialogues_per_batch"])


def _step(
    model: Model, balancing: Balancing, loss: Any, optimizer: Any, batch: ConversationBatch, clip: float | None
) -> Tensor:
    """One optimiser step; returns the loss, still on the device."""
    optimizer.zero_grad(set_to_none=True)
    output = balancing.forward(model.run(balancing), batch)
    labels = balancing.on_labels(batch.labels)
    total = balancing.total_loss(loss(output, labels), output, labels)
    parameters = model.modality_parameters()
    balancing.backward(total, output, labels, parameters)
    balancing.after_backward(parameters)
    if clip is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return total.detach()


def _collect(task: Task, model: Model, count: int) -> list[tuple[Features, Tensor]]:
    """Features and labels of the first `count` training batches, without gradient and dropout."""
    batches = np.array_split(np.arange(len(task.train)), _steps(task))[:count]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        found = []
        for chosen in batches:
            batch = task.train.batch(chosen)
            states = model.encode(batch).states
            found.append(({m: states[m] for m in model.modalities}, batch.labels))
    model.train(was_training)
    return found


@dataclass
class Best:
    """The weights of the epoch with the highest score so far; the earlier one on a tie."""

    score: float = -1.0
    epoch: int = -1
    weights: dict[str, Tensor] = field(default_factory=dict)
    scores: dict[str, Any] | None = None

    def offer(self, score: float, epoch: int, model: Model, scores: dict[str, Any] | None = None) -> None:
        """Keep this epoch if it is the best."""
        if score > self.score:
            self.score, self.epoch, self.scores = score, epoch, scores
            self.weights = {name: value.detach().clone() for name, value in model.state_dict().items()}


class Judge:
    """A model's verdict on dialogues it is not trained on; batches are made once.

    Args:
        corpus: the dialogues.
        model: judged in evaluation mode.
        dialogues_per_batch: dialogues at a time.
    """

    def __init__(self, corpus: Corpus, model: Model, dialogues_per_batch: int) -> None:
        self.model, self.corpus = model, corpus
        steps = -(-len(corpus) // dialogues_per_batch)
        self.batches = [corpus.batch(chosen) for chosen in np.array_split(np.arange(len(corpus)), steps)]

    def _outputs(self) -> list[Output]:
        self.model.eval()
        with torch.no_grad():
            return [self.model(batch) for batch in self.batches]

    def confusion(self) -> np.ndarray:
        """Confusion matrix over all labelled utterances, int64 `[classes, classes]`."""
        pairs = zip(self._outputs(), self.batches, strict=True)
        counts = [confusion(output.logits, batch.labels, output.logits.shape[-1]) for output, batch in pairs]
        return torch.stack(counts).sum(0).cpu().numpy()

    def predictions(self, conversations: Sequence[Conversation]) -> dict[str, Any]:
        """Return labels, predicted classes and probabilities of every dialogue."""
        probability = torch.cat([output.logits for output in self._outputs()]).softmax(-1).cpu().double().numpy()
        starts = np.cumsum([len(talk) for talk in conversations])[:-1]
        return {
            talk.id: {"label": talk.labels.tolist(), "predicted": p.argmax(-1).tolist(), "probability": p.tolist()}
            for talk, p in zip(conversations, np.split(probability, starts), strict=True)
        }


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
