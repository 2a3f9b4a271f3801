"""Utterances of one emotion near each other, within a dialogue."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from mer_zoo.batch.index import Layout
from mer_zoo.errors import MerZooError
from mer_zoo.parts.loss.nll import NLL, ClassWeights

if TYPE_CHECKING:
    from mer_zoo.batch.output import Output


class DialogueContrastive(NLL):
    r"""The `nll`, and states of one emotion near each other in every dialogue (SupCon, Khosla et al. 2020, eq. 2).

    $$L + \lambda \frac{1}{M}\sum_m \frac{1}{|A|}\sum_{i \in A} \frac{-1}{|P(i)|} \sum_{p \in P(i)} \log
      \frac{\exp(z_i^m \cdot z_p^m / \tau)}{\sum_{a \ne i} \exp(z_i^m \cdot z_a^m / \tau)}$$
    with z the states before the decision, brought to length 1; a and p run over the labelled utterances of i's own
    dialogue, P(i) are those of i's emotion, and A are the utterances that have any. Other dialogues do not count: their
    topics and speakers would be told apart instead of their emotions.

    Inputs:
        output: `Output` with features modality -> `[N, width]`; labels: int64 `[N]`, -1 where unlabelled; layout.
    Outputs:
        scalar.

    Args:
        class_counts: training labels of each class (a fact).
        weight: λ, above 0.
        temperature: τ, above 0.
        class_weights: as of `nll`.

    Raises:
        MerZooError: weight or temperature is not above 0, or the states hold shown padding.

    Example:
        >>> from mer_zoo.batch.output import Output
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> loss = DialogueContrastive((5,) * 6, weight=0.5)
        >>> loss(Output(torch.zeros(10, 6), {}, batch.features), batch.labels, batch.layout) > 0
        tensor(True)
    """

    def __init__(
        self,
        class_counts: Sequence[int],
        *,
        weight: float = 0.1,
        temperature: float = 0.1,
        class_weights: ClassWeights = "none",
    ) -> None:
        super().__init__(class_counts, class_weights=class_weights)
        for name, value in (("weight", weight), ("temperature", temperature)):
            if value <= 0:
                raise MerZooError(f"`{name}` is {value}, but must be above 0.")
        self.weight, self.temperature = weight, temperature

    def forward(self, output: Output, labels: Tensor, layout: Layout) -> Tensor:  # type: ignore[override]
        """Compute the loss."""
        label = F.pad(labels, (0, 1), value=-1)[layout.rows]  # [B, L]
        size = label.shape[1]
        known = label >= 0
        other = known.unsqueeze(1) & ~torch.eye(size, dtype=torch.bool, device=label.device)
        same = other & known.unsqueeze(2) & (label.unsqueeze(1) == label.unsqueeze(2))
        count = same.sum(-1)
        total = super().forward(output, labels)
        for states in output.features.values():
            if states.shape[0] != labels.shape[0]:
                raise MerZooError(
                    "loss/dialogue_contrastive: padding is shown where the modalities meet. Hide it before, by a stage "
                    "`{padding: hidden}`."
                )
            z = F.normalize(layout.pad(states.to(total.dtype)), dim=-1)
            near = (z @ z.transpose(1, 2) / self.temperature).masked_fill(~other, torch.finfo(z.dtype).min)
            each = torch.where(same, near.log_softmax(-1), 0).sum(-1) / count.clamp(min=1)
            total = total - self.weight / len(output.features) * each.sum() / (count > 0).sum().clamp(min=1)
        return total
