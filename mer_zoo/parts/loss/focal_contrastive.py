"""The loss of MultiEMO."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from mer_zoo.errors import MerZooError
from mer_zoo.parts.loss.nll import NLL, ClassWeights, negative_log_likelihood, weigh_classes

if TYPE_CHECKING:
    from mer_zoo.batch.output import Output


class FocalContrastive(NLL):
    r"""Draw utterances of one class together, rare ones most, and correlate the modalities (MultiEMO §3.5).

    $$L = \alpha L_{\text{SWFC}} + \beta L_{\text{HGR}} + (1 - \alpha - \beta) L_{\text{nll}}$$

    Sample-weighted focal contrast, with $z_i$ the judged state at unit length, $P_i$ the other utterances of i's class
    and $v_i = (N / N_{y_i})^\rho$ from the training labels:
    $$L_{\text{SWFC}} = -\sum_i \frac{v_i}{\sum_j v_j} \frac{1}{|P_i|} \sum_{j \in P_i} (1 - p_{ij})^\gamma \log p_{ij},
      \qquad p_{ij} = \mathrm{softmax}_{j \ne i}(z_i \cdot z_j / \tau)$$

    Soft-HGR correlation (Wang et al. 2019), with $f_m$ the centred states of modality m, d wide, and $C_m$ their
    covariance; we divide by the width, as otherwise wide states leave the verdict no say:
    $$L_{\text{HGR}} = -\frac1d \sum_{m<n} \big(\mathrm{E}[f_m \cdot f_n] - \tfrac12 \mathrm{tr}(C_m C_n)\big)$$

    Inputs:
        output: `Output` with `judged`, and with `features` of one width; labels: int64 `[N]`, -1 where unlabelled.
    Outputs:
        scalar.

    Args:
        class_counts: training labels of each class (a fact).
        contrast: the share $\alpha$.
        correlation: the share $\beta$; together below 1.
        temperature: $\tau$, above 0.
        focus: $\gamma$; the larger, the less an easy pair counts; 0, or at least 1.
        rarity: $\rho$; the larger, the more a rare class counts.
        class_weights: as of `nll`.

    Raises:
        MerZooError: shares that leave nothing to the verdict; a temperature or focus out of range; each modality has a
            head of its own, so that there is no judged state.

    Example:
        >>> from mer_zoo.batch.output import Output
        >>> output = Output(torch.zeros(2, 2), {}, {}, judged=torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> round(float(FocalContrastive((5, 5))(output, torch.tensor([0, 1]))), 4)
        0.1386
    """

    def __init__(
        self,
        class_counts: Sequence[int],
        *,
        contrast: float = 0.4,
        correlation: float = 0.4,
        temperature: float = 0.8,
        focus: float = 2.0,
        rarity: float = 0.8,
        class_weights: ClassWeights = "none",
    ) -> None:
        super().__init__(class_counts, class_weights=class_weights)
        if min(contrast, correlation) < 0 or contrast + correlation >= 1:
            raise MerZooError(
                f"`contrast` {contrast} and `correlation` {correlation} are shares of the loss. Take two that are not "
                "below 0 and together below 1."
            )
        if temperature <= 0 or 0 < focus < 1 or focus < 0:
            raise MerZooError(
                f"`temperature` {temperature} must be above 0, and `focus` {focus} either 0 or at least 1: between, "
                "its slope has no bound."
            )
        self.contrast, self.correlation, self.temperature, self.focus = contrast, correlation, temperature, focus
        rarities = weigh_classes(class_counts, "balanced")
        assert rarities is not None
        self.rarity: Tensor
        self.register_buffer("rarity", rarities**rarity, persistent=False)

    def forward(self, output: Output, labels: Tensor) -> Tensor:
        """Compute the loss."""
        if output.judged is None:
            raise MerZooError(
                "loss/focal_contrastive: each modality is judged on its own, so there is no state to contrast. Put the "
                "`head` behind the fusion, or use `loss: nll`."
            )
        verdict = negative_log_likelihood(output.logits, labels, self.weights)
        total = (1 - self.contrast - self.correlation) * verdict
        total = total + self.contrast * self._contrast(output.judged.to(verdict.dtype), labels)
        known = (labels >= 0).to(verdict.dtype).unsqueeze(1)
        for a, b in combinations(output.features.values(), 2):
            total = total - self.correlation * _correlation(a.to(known.dtype), b.to(known.dtype), known)
        return total

    def _contrast(self, states: Tensor, labels: Tensor) -> Tensor:
        """Sample-weighted focal contrast; 0 where no two utterances share a class."""
        z = F.normalize(states, dim=-1)
        known = labels >= 0
        others = known & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        logs = (z @ z.t() / self.temperature).masked_fill(~others, torch.finfo(z.dtype).min / 2).log_softmax(-1)
        pairs = (others & (labels.unsqueeze(1) == labels) & known.unsqueeze(1)).to(z.dtype)
        p = logs.exp()
        focal = ((1 - p) ** self.focus * logs).masked_fill(pairs == 0, 0.0)
        found = pairs.sum(1)
        weight = self.rarity.to(z.dtype)[labels.clamp(min=0)] * (found > 0)
        smallest = torch.finfo(z.dtype).tiny
        return -(weight * focal.sum(1) / found.clamp(min=1)).sum() / weight.sum().clamp(min=smallest)


def _correlation(a: Tensor, b: Tensor, known: Tensor) -> Tensor:
    """Soft-HGR of two modalities over the known utterances, `[N, 1]`."""
    count = known.sum().clamp(min=1)
    f, g = (known * (x - (known * x).sum(0) / count) for x in (a, b))
    spread = (f.t() @ f / count * (g.t() @ g / count)).sum()
    return ((f * g).sum() / count - spread / 2) / a.shape[-1]
