"""Judging dialogues that a model is not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mer_zoo.corpus import ConversationBatch, Corpus
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
        contributions: by seed, modality -> its contribution, the mean over all utterances; empty where not wanted.
    """

    confusion: np.ndarray
    loss: list[float] | None
    contributions: list[dict[str, float]]


def contribution(together: np.ndarray, without: np.ndarray) -> np.ndarray:
    r"""What a modality contributes: the probability that the decided class would lose without it.

    $$c_{im} = p_{i\hat y}(\text{all}) - p_{i\hat y}(\text{all but } m),\qquad \hat y = \arg\max p_i(\text{all})$$

    Args:
        together: `[..., utt, classes]`, probabilities from all modalities.
        without: `[..., utt, classes]`, from all but one.

    Returns:
        `[..., utt]`, from -1 to 1.

    Example:
        >>> contribution(np.array([[0.75, 0.25]]), np.array([[0.5, 0.5]])).tolist()
        [0.25]
    """
    decided = together.argmax(-1)[..., None]
    return np.take_along_axis(together - without, decided, -1)[..., 0]


class Evaluator:
    """Judges one corpus by an engine's models; batches are made once, and what comes back each epoch is captured.

    Args:
        corpus: the dialogues.
        engine: judges in evaluation mode.
        dialogues_per_batch: dialogues at a time.
        loss: compute the loss too.
        without: modality -> the same dialogues as if it were absent, where contributions are wanted.
    """

    def __init__(
        self,
        corpus: Corpus,
        engine: Engine,
        dialogues_per_batch: int,
        *,
        loss: bool = False,
        without: Mapping[str, Corpus] | None = None,
    ) -> None:
        self.engine, self.corpus, self.loss, without = engine, corpus, loss, without or {}
        chosen = np.array_split(np.arange(len(corpus)), -(-len(corpus) // dialogues_per_batch))
        self.batches, *hidden = ([one.batch(c) for c in chosen] for one in (corpus, *without.values()))
        self._without = dict(zip(without, hidden, strict=True))
        device = str(corpus.device)
        self._counted = Replayed(self._count, device) if engine.captures else self._count
        self._hidden = Replayed(self._hide, device) if engine.captures else self._hide

    def _count(self) -> tuple[Tensor, Tensor, Tensor | None]:
        confusions, losses, every = [], [], []
        with torch.no_grad():
            for batch in self.batches:
                logits, loss = self.engine.judge(batch, loss=self.loss)
                confusions.append(confusion(logits, batch.labels, logits.shape[-1]))
                losses.append(loss * (batch.labels >= 0).sum())
                every.append(logits)
        total = torch.stack(confusions).sum(0)
        together = torch.cat(every, 1).softmax(-1) if self._without else None  # for contributions alone
        return total, torch.stack(losses).sum(0) / total.sum((1, 2)), together

    def judge(self) -> Judged:
        """Count, and take the loss and the contributions."""
        total, loss, together = self._counted()
        return Judged(total.cpu().numpy(), loss.tolist() if self.loss else None, self._contributions(together))

    def _contributions(self, together: Tensor | None) -> list[dict[str, float]]:
        """What each modality contributes, by seed; what is drawn meanwhile, training does not miss."""
        if together is None:
            return [{} for _ in self.engine.models]
        device = self.corpus.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            each = [contribution(_on_host(together), _on_host(x)).mean(-1) for x in self._hidden()]
        return [dict(zip(self._without, row, strict=True)) for row in np.transpose(each).tolist()]

    def _hide(self) -> list[Tensor]:
        return [self._probabilities(batches) for batches in self._without.values()]

    def _probabilities(self, batches: Sequence[ConversationBatch]) -> Tensor:
        """Probabilities of the classes, `[seeds, utt, classes]`."""
        with torch.no_grad():
            return torch.cat([self.engine.judge(batch)[0] for batch in batches], 1).softmax(-1)

    def predictions(self, conversations: Sequence[Conversation]) -> list[dict[str, Any]]:
        """Return, of every seed, labels, predicted classes and probabilities of every dialogue."""
        probabilities = _on_host(self._probabilities(self.batches))
        starts = np.cumsum([len(dialogue) for dialogue in conversations])[:-1]
        return [
            {
                dialogue.id: predictions_of(dialogue, rows)
                for dialogue, rows in zip(conversations, np.split(probability, starts), strict=True)
            }
            for probability in probabilities
        ]


def _on_host(x: Tensor) -> np.ndarray:
    return x.cpu().double().numpy()
