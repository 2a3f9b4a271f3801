"""Judging dialogues that a model is not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mer_zoo.corpus import Corpus
from mer_zoo.data.conversation import Conversation
from mer_zoo.results.device_metrics import confusion
from mer_zoo.training.capturing import Replayed
from mer_zoo.training.describing import predictions_of
from mer_zoo.training.engines import Engine


class Evaluator:
    """Judges one corpus by an engine's models; batches are made once, and the counting is captured.

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
        """Return the confusion matrix of every seed over all labelled utterances, int64 `[seeds, classes, classes]`."""
        return self._counted().cpu().numpy()

    def predictions(self, conversations: Sequence[Conversation]) -> list[dict[str, Any]]:
        """Return, of every seed, labels, predicted classes and probabilities of every dialogue."""
        probabilities = torch.cat(self._logits(), 1).softmax(-1).cpu().double().numpy()
        starts = np.cumsum([len(dialogue) for dialogue in conversations])[:-1]
        return [
            {
                dialogue.id: predictions_of(dialogue, rows)
                for dialogue, rows in zip(conversations, np.split(probability, starts), strict=True)
            }
            for probability in probabilities
        ]
