"""On-the-fly prediction modulation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mer_zoo.parts.balancing.base import Balanced, Balancing, Flow
from mer_zoo.parts.balancing.unimodal import confidence

if TYPE_CHECKING:
    from mer_zoo.batch.output import Output


class OPM(Balancing):
    r"""Drop a modality from utterances, the more often, the surer it is than the others (OPM; Wei et al. 2024).

    With $s_m$ the summed probability of the true class by modality m alone, $\bar s_m$ the mean over the others:
    $$r_m = \tanh\big(\mathrm{relu}(s_m / \bar s_m - 1)\big),\qquad
      q_m = q_0 (1 + \lambda r_m)\ \text{if } r_m > 0 \text{ else } 0$$
    A step takes part with probability `probability`; then each (utterance, modality) is kept with $1 - q_m$, features
    are divided by $1 - \theta$, $\theta$ the mean of q by width, and an utterance that lost everything is not judged.

    Inputs:
        features: modality -> `[N, width]`; batch: its labels.
    Outputs:
        features of the same shapes.

    Args:
        modalities, classes: facts.
        base: $q_0$, 0 to 1.
        sensitivity: $\lambda$, at least 0.
        probability: share of the steps that take part, 0 to 1.
        warm_up: epochs without balancing.
        detach: keep q out of the gradient. The published code leaves it in, which acts on the encoders as if
            $\theta^2/2$ were added to the loss; `false` does so too.

    Raises:
        MerZooError: fewer than two modalities.

    Example:
        >>> part = OPM(("text", "audio"), 6, base=0.5, sensitivity=0.5)
        >>> part.drop_rates(torch.tensor([1.5, 1.0])).round(decimals=3)
        tensor([0.6160, 0.0000])
    """

    def __init__(
        self,
        modalities: Sequence[str],
        classes: int,
        *,
        base: float = 0.5,
        sensitivity: float = 0.5,
        probability: float = 0.7,
        warm_up: int = 6,
        detach: bool = True,
    ) -> None:
        super().__init__(modalities, classes)
        self.base, self.sensitivity, self.probability, self.warm_up = base, sensitivity, probability, warm_up
        self.detach = detach

    @property
    def stackable(self) -> bool:
        """Unless the gradient through q is wanted, which is taken by hand."""
        return self.detach

    def drop_rates(self, scores: Tensor) -> Tensor:
        """Return the dropout probability of every modality from its confidence, both `[modalities]`."""
        others = (scores.sum() - scores) / (len(scores) - 1)
        ratio = (scores / others.clamp(min=torch.finfo(scores.dtype).tiny) - 1).relu().tanh()
        return torch.where(ratio > 0, self.base * (1 + self.sensitivity * ratio), 0.0).clamp(0, 1)

    def draw(self, rates: Tensor, utterances: int) -> tuple[Tensor, Tensor]:
        """Draw what is kept, bool `[N, modalities]`, and whether the step takes part, bool scalar."""
        kept = torch.rand(utterances, len(rates), device=rates.device) >= rates
        return kept, torch.rand((), device=rates.device) < self.probability

    def on_features(self, model: Balanced, flow: Flow) -> Flow:
        """Drop modalities of utterances."""
        features, labels = flow.states, flow.batch.labels
        if self.epoch < self.warm_up:
            nothing = torch.zeros(len(self.modalities), device=labels.device)
            return flow.with_states(features, rates=nothing, lost=labels.new_zeros(len(labels), dtype=torch.bool))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.detach):
            logits = model.unimodal(flow)
            rates = self.drop_rates(torch.stack([confidence(logits[m], labels) for m in self.modalities]))
        widths = [features[m].shape[-1] for m in self.modalities]
        theta = torch.stack([q * width for q, width in zip(rates.unbind(), widths, strict=True)]).sum() / sum(widths)
        kept, takes_part = self.draw(rates.detach(), len(labels))
        notes = {"rates": rates.detach(), "lost": takes_part & ~kept.any(-1)}
        if theta.requires_grad:
            notes["penalty"] = torch.where(takes_part, _first_order(theta**2 / 2, list(features.values())), 0.0)
        scale = torch.where(takes_part, kept / (1 - theta.detach()).clamp(min=1e-5), 1.0)
        dropped = {m: features[m] * scale[:, i : i + 1].to(features[m].dtype) for i, m in enumerate(self.modalities)}
        return flow.with_states(dropped, **notes)

    def on_labels(self, labels: Tensor, output: Output) -> Tensor:
        """Leave out utterances that lost every modality."""
        return labels.masked_fill(output.notes["lost"], -1)

    def total_loss(self, loss: Tensor, output: Output, labels: Tensor) -> Tensor:
        """Add the published gradient through q, if asked for; the value stays."""
        return loss + output.notes["penalty"] if "penalty" in output.notes else loss

    def rates(self, output: Output) -> dict[str, Tensor]:
        """Dropout probabilities."""
        return dict(zip(self.modalities, output.notes["rates"].unbind(), strict=True))


def _first_order(value: Tensor, features: list[Tensor]) -> Tensor:
    """Zero with the gradient of `value` by the features: it reaches the encoders, but not the heads behind."""
    slopes = torch.autograd.grad(value, features, allow_unused=True)
    pairs = [(x, slope) for x, slope in zip(features, slopes, strict=True) if slope is not None]
    return torch.stack([((x - x.detach()) * slope).sum() for x, slope in pairs]).sum()
