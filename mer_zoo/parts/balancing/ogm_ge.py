"""On-the-fly gradient modulation with generalisation enhancement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mer_zoo.errors import MerZooError
from mer_zoo.parts.balancing.base import Balanced, Balancing, Flow
from mer_zoo.parts.balancing.unimodal import confidence

if TYPE_CHECKING:
    from mer_zoo.batch.output import Output


class OGMGE(Balancing):
    r"""Slow down the modalities that are ahead, and add noise to the gradients (OGM-GE; Peng et al. 2022).

    With $s_m$ the summed probability of the true class by modality m alone:
    $$\rho_m = s_m / \min_n s_n,\qquad k_m = 1 - \tanh(\alpha \rho_m)\ \text{if } \rho_m > 1 \text{ else } 1,\qquad
      g \leftarrow k_m g + \mathcal{N}(0, \mathrm{std}(g)^2)$$
    for the gradient g of every parameter of at least two dimensions that belongs to modality m alone. Published for two
    modalities and for convolutions; the others are compared with the weakest. Among equals the first is slowed down,
    as published.

    Inputs:
        features: modality -> `[N, width]`; batch: its labels.
    Outputs:
        the features as they are.

    Args:
        modalities, classes: facts.
        alpha: strength, above 0.
        noise: add noise (GE).
        epochs: balance in the first so many epochs only; null: in all. Published: 51.

    Raises:
        MerZooError: fewer than two modalities, `alpha` not above 0, or a modality without parameters of its own.

    Example:
        >>> OGMGE(("text", "audio"), 6, alpha=0.3).factors(torch.tensor([2.0, 1.0])).round(decimals=3)
        tensor([0.4630, 1.0000])
    """

    def __init__(
        self,
        modalities: Sequence[str],
        classes: int,
        *,
        alpha: float = 0.3,
        noise: bool = True,
        epochs: int | None = None,
    ) -> None:
        super().__init__(modalities, classes)
        if alpha <= 0:
            raise MerZooError(
                f"`alpha` is {alpha}, which slows nothing down. Choose one above 0, or `balancing: none`."
            )
        self.alpha, self.noise, self.epochs = alpha, noise, epochs
        self._factors: Tensor
        self.register_buffer("_factors", torch.ones(len(self.modalities)), persistent=False)

    def factors(self, scores: Tensor) -> Tensor:
        """Return what the gradients of every modality are multiplied by, from its confidence, both `[modalities]`."""
        ratio = scores / scores.min().clamp(min=torch.finfo(scores.dtype).tiny)
        ahead = (ratio > 1) | (torch.arange(len(scores), device=scores.device) == scores.argmax())
        return torch.where(ahead, 1 - (self.alpha * ratio).tanh(), 1.0)

    @property
    def _idle(self) -> bool:
        return self.epochs is not None and self.epoch >= self.epochs

    def on_features(self, model: Balanced, flow: Flow) -> Flow:
        """Compare the modalities."""
        if not self._idle:
            with torch.no_grad():
                logits = model.unimodal(flow)
                scores = [confidence(logits[m], flow.batch.labels) for m in self.modalities]
                self._factors = self.factors(torch.stack(scores))
        return flow

    @torch.no_grad()
    def after_backward(self, parameters: Mapping[str, Sequence[nn.Parameter]]) -> None:
        """Slow down and add noise."""
        owned = self.own(parameters, dimensions=2)
        if self._idle:
            return
        for factor, m in zip(self._factors.unbind(), self.modalities, strict=True):
            for gradient in (p.grad for p in owned[m] if p.grad is not None):
                spread = gradient.std() + 1e-8 if self.noise and gradient.numel() > 1 else None
                gradient.mul_(factor.to(gradient.dtype))
                if spread is not None:
                    gradient.add_(torch.randn_like(gradient) * spread)

    def rates(self, output: Output) -> dict[str, Tensor]:
        """By how much each modality was slowed down in the last step, 0 to 1."""
        held = torch.zeros_like(self._factors) if self._idle else 1 - self._factors
        return dict(zip(self.modalities, held.unbind(), strict=True))
