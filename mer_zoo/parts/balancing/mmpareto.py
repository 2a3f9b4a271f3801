"""Pareto integration of multimodal and unimodal gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mer_zoo.parts.balancing.base import Balancing
from mer_zoo.parts.balancing.unimodal import modality_losses

if TYPE_CHECKING:
    from mer_zoo.batch.output import Output


class MMPareto(Balancing):
    r"""Train every modality by its own loss too, without conflict with the fused one (MMPareto; Wei and Hu 2024).

    For each modality, over all parameters that belong to it alone, with g the gradient of the loss and u that of the
    cross entropy of its own head:
    $$(k_0, k_1) = (\tfrac12, \tfrac12)\ \text{if } \langle g, u \rangle > 0, \text{ else }
      \arg\min_{k_0 + k_1 = 1} \lVert k_0 g + k_1 u \rVert,\qquad h = 2 k_0 g + 2 k_1 u$$
    $$h \leftarrow \gamma\, h\, \max(\lVert t \rVert / \lVert h \rVert, 1)\ \text{per parameter}$$
    with t the gradient of the loss plus all modalities' cross entropies, which is what every other parameter gets.
    So the loss of the recipe should not hold those of the modalities already: use `nll` or another on the fused logits.

    Inputs:
        loss: scalar; output: `Output` with a head per modality; labels: int64 `[N]`, -1 where unlabelled.
    Outputs:
        gradients, in place.

    Args:
        modalities, classes: facts.
        gamma: strength of the modalities' gradients, above 0.

    Raises:
        MerZooError: fewer than two modalities, a modality without a head or without parameters of its own.

    Example:
        >>> weights = MMPareto(("text", "audio"), 6).weights(torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0]))
        >>> [round(float(k), 2) for k in weights]
        [0.6, 0.4]
    """

    def __init__(self, modalities: Sequence[str], classes: int, *, gamma: float = 1.5) -> None:
        super().__init__(modalities, classes)
        self.gamma = gamma
        self._weights: Tensor
        self.register_buffer("_weights", torch.full((len(self.modalities),), 0.5), persistent=False)

    def weights(self, multimodal: Tensor, unimodal: Tensor) -> tuple[Tensor, Tensor]:
        """Return $k_0$ and $k_1$ of two gradients, both `[parameters]`."""
        inner, first, second = multimodal @ unimodal, multimodal @ multimodal, unimodal @ unimodal
        apart = (first + second - 2 * inner).clamp(min=torch.finfo(inner.dtype).tiny)
        # A gradient that is zero conflicts with nothing; the smallest norm would choose it and stop the modality.
        agree = (inner > 0) | (first == 0) | (second == 0)
        weight = torch.where(agree, 0.5, ((second - inner) / apart).clamp(0, 1))
        return weight, 1 - weight

    def backward(
        self, loss: Tensor, output: Output, labels: Tensor, parameters: Mapping[str, Sequence[nn.Parameter]]
    ) -> None:
        """Compute all gradients apart and integrate them."""
        owned = self.own(parameters)
        alone = modality_losses(output, labels, self.modalities)
        together = {m: _gradients(loss, owned[m]) for m in self.modalities}
        apart = {m: _gradients(alone[m], owned[m]) for m in self.modalities}
        (loss + torch.stack(list(alone.values())).sum()).backward()
        weights = []
        with torch.no_grad():
            for m in self.modalities:
                for_loss, for_itself = self.weights(_flat(together[m]), _flat(apart[m]))
                weights.append(for_loss)
                for p, g, u in zip(owned[m], together[m], apart[m], strict=True):
                    if p.grad is not None:
                        mixed = 2 * (for_loss * g + for_itself * u)
                        shortest = mixed.norm().clamp(min=torch.finfo(mixed.dtype).tiny)
                        p.grad.copy_(self.gamma * mixed * (p.grad.norm() / shortest).clamp(min=1))
            self._weights = torch.stack(weights)

    def rates(self, output: Output) -> dict[str, Tensor]:
        """Weight $k_0$ of the fused loss's gradient in the last step, 0 to 1; 0.5 where the gradients agree."""
        return dict(zip(self.modalities, self._weights.unbind(), strict=True))


def _gradients(loss: Tensor, parameters: Sequence[nn.Parameter]) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, list(parameters), retain_graph=True, allow_unused=True, materialize_grads=True)


def _flat(gradients: Sequence[Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in gradients])
