"""Judging dialogues that a model is not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mer_zoo.corpus import Corpus
from mer_zoo.data.conversation import Conversation
from mer_zoo.results.device_metrics import confusion
from mer_zoo.training.capturing import Replayed
from mer_zoo.training.describing import predictions_of
from mer_zoo.training.engines import Engine


class Judged(NamedTuple):
    """What the models of all seeds make of a split.

    Attributes:
        confusion: int64 `[seeds, classes, classes]` over all labelled utterances.
        loss: `[seeds]`, the mean over batches, weighted by their labelled utterances; None where it was not wanted.
    """

    confusion: np.ndarray
    loss: list[float] | None


class Evaluator:
    """Judges one corpus by an engine's models; batches are made once, and the counting is captured.

    Args:
        corpus: the dialogues.
        engine: judges in evaluation mode.
        dialogues_per_batch: dialogues at a time.
        loss: compute the loss too.
    """

    def __init__(self, corpus: Corpus, engine: Engine, dialogues_per_batch: int, *, loss: bool = False) -> None:
        self.engine, self.corpus, self.loss = engine, corpus, loss
        steps = -(-len(corpus) // dialogues_per_batch)
        self.batches = [corpus.batch(chosen) for chosen in np.array_split(np.arange(len(corpus)), steps)]
        self._counted = Replayed(self._count, str(corpus.device)) if engine.captures else self._count

    def _count(self) -> tuple[Tensor, Tensor]:
        confusions, losses = [], []
        with torch.no_grad():
            for batch in self.batches:
                logits, loss = self.engine.judge(batch, loss=self.loss)
                confusions.append(confusion(logits, batch.labels, logits.shape[-1]))
                losses.append(loss * (batch.labels >= 0).sum())
        total = torch.stack(confusions).sum(0)
        return total, torch.stack(losses).sum(0) / total.sum((1, 2))

    def judge(self) -> Judged:
        """Count, and take the loss."""
        total, loss = self._counted()
        return Judged(total.cpu().numpy(), loss.tolist() if self.loss else None)

    def predictions(self, conversations: Sequence[Conversation]) -> list[dict[str, Any]]:
        """Return, of every seed, labels, predicted classes and probabilities of every dialogue."""
        with torch.no_grad():
            logits = [self.engine.judge(batch)[0] for batch in self.batches]
        probabilities = torch.cat(logits, 1).softmax(-1).cpu().double().numpy()
        starts = np.cumsum([len(dialogue) for dialogue in conversations])[:-1]
        return [
            {
                dialogue.id: predictions_of(dialogue, rows)
                for dialogue, rows in zip(conversations, np.split(probability, starts), strict=True)
            }
            for probability in probabilities
        ]
