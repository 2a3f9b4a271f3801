"""The adaptive modality balancing of AMB-DSGDN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mer_zoo.parts.balancing.base import Balanced, Balancing, Flow
from mer_zoo.parts.balancing.dropping import drop_modalities
from mer_zoo.results.device_metrics import confusion, weighted_f1

if TYPE_CHECKING:
    from mer_zoo.batch.output import Output


class AdaptiveDropout(Balancing):
    r"""Drop whole dialogues of a modality the more often, the further it is ahead of the others (AMB-DSGDN, §3).

    With $P_m$ the weighted F1 of modality m alone on the batch and $r_{mj} = P_m/(P_j + 10^{-5}) - 1$ for the other
    modalities with $P_j \ge 10^{-5}$, $n$ of them:
    $$\bar r_m = \frac{1}{n}\sum_j \mathrm{softmax}_j(r^+)\, r^+_{mj},\qquad
      q_m = q_0 (1 + \lambda \bar r_m)\ \text{if } \bar r_m > 0 \text{ else } 0$$
    A step takes part with probability `probability`; then each (dialogue, modality) is kept with $1 - q_m$, and all
    features are divided by $1 - \theta$, $\theta$ the mean of $q$.

    $r^+ = \max(r, 0)$ in both places: the published code means `softmax(relu(r)) * r`, but its ReLU works in place.
    `clamp_in_place: false` is the formula as meant.

    Inputs:
        features: modality -> `[N, width]`; batch: its labels and dialogues.
    Outputs:
        features of the same shapes.

    Args:
        modalities, classes: facts.
        base: $q_0$, 0 to 1.
        sensitivity: $\lambda$, at least 0.
        probability: share of the steps that take part, 0 to 1.
        warm_up: epochs without balancing.
        clamp_in_place: compute what the published code computes.

    Raises:
        MerZooError: fewer than two modalities.

    Example:
        >>> part = AdaptiveDropout(("text", "audio", "visual"), 6, base=0.3, sensitivity=0.9)
        >>> part.drop_rates(torch.tensor([0.6, 0.5, 0.4])).round(decimals=3)
        tensor([0.3500, 0.3190, 0.0000])
    """

    def __init__(
        self,
        modalities: Sequence[str],
        classes: int,
        *,
        base: float = 0.3,
        sensitivity: float = 0.9,
        probability: float = 0.5,
        warm_up: int = 0,
        clamp_in_place: bool = True,
    ) -> None:
        super().__init__(modalities, classes)
        self.base, self.sensitivity, self.probability, self.warm_up = base, sensitivity, probability, warm_up
        self.clamp_in_place = clamp_in_place

    def drop_rates(self, performance: Tensor) -> Tensor:
        """Return the dropout probability of every modality from its weighted F1, both `[modalities]`."""
        others = 1 - torch.eye(len(performance), device=performance.device)
        ratio = performance.unsqueeze(1) / (performance + 1e-5) - 1  # [modality, other]
        counted = others * (performance >= 1e-5)
        positive = ratio.relu()
        share = positive.masked_fill(counted == 0, -torch.inf).softmax(-1).nan_to_num()
        value = positive if self.clamp_in_place else ratio
        average = (share * value * counted).sum(-1) / counted.sum(-1).clamp(min=1)
        rates = torch.where(average > 0, self.base * (1 + self.sensitivity * average), 0.0)
        return rates.clamp(0, 1)

    def on_features(self, model: Balanced, flow: Flow) -> Flow:
        """Drop modalities of whole dialogues."""
        labels = flow.batch.labels
        if self.epoch < self.warm_up:
            return flow.with_states(flow.states, rates=torch.zeros(len(self.modalities), device=labels.device))
        with torch.no_grad():
            logits = model.unimodal(flow)
            scores = [weighted_f1(confusion(logits[m], labels, self.classes)) for m in self.modalities]
            rates = self.drop_rates(torch.stack(scores))
        return flow.with_states(drop_modalities(flow.states, rates, flow.batch.layout, self.probability), rates=rates)

    def rates(self, output: Output) -> dict[str, Tensor]:
        """Dropout probabilities."""
        return dict(zip(self.modalities, output.notes["rates"].unbind(), strict=True))
