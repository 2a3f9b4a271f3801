"""The loss of SDT."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from mer_zoo.errors import MerZooError
from mer_zoo.parts.loss.base import heads_of
from mer_zoo.parts.loss.nll import NLL, ClassWeights, negative_log_likelihood

if TYPE_CHECKING:
    from mer_zoo.batch.output import Output


class SelfDistillation(NLL):
    r"""Let every modality learn from the labels and from the fused verdict (SDT; Ma et al. 2024).

    $$L = L_{\text{fused}} + \sum_m L_m + \sum_m \frac{1}{N} \sum_i \mathrm{KL}\big(
      \mathrm{softmax}(z_i / T) \,\Vert\, \mathrm{softmax}(z_i^m / T)\big)$$
    with z the fused logits, $z^m$ those of modality m and L the loss `nll`. As published, the fused verdict is not
    detached and the divergence is not scaled by $T^2$. It counts over labelled utterances only.

    Inputs:
        output: `Output` with one head per modality; labels: int64 `[N]`, -1 where unlabelled.
    Outputs:
        scalar.

    Args:
        class_counts: training labels of each class (a fact).
        temperature: T, above 0; published: 1 for IEMOCAP, 8 for MELD.
        class_weights: as of `nll`.

    Raises:
        MerZooError: the model has no head per modality, or the temperature is not above 0.

    Example:
        >>> import torch
        >>> from mer_zoo.batch.output import Output
        >>> flat = torch.zeros(2, 2)
        >>> loss = SelfDistillation((5, 5))(Output(flat, {"text": flat}, {}), torch.tensor([0, 1]))
        >>> round(float(loss), 4)
        1.3863
    """

    def __init__(
        self, class_counts: Sequence[int], *, temperature: float = 1.0, class_weights: ClassWeights = "none"
    ) -> None:
        super().__init__(class_counts, class_weights=class_weights)
        if temperature <= 0:
            raise MerZooError(f"`temperature` is {temperature}, but must be above 0.")
        self.temperature = temperature

    def forward(self, output: Output, labels: Tensor) -> Tensor:
        """Compute the loss."""
        heads = heads_of(output, "self_distillation")
        known = (labels >= 0).to(output.logits.dtype)
        teacher = (output.logits / self.temperature).log_softmax(-1)
        total = negative_log_likelihood(output.logits, labels, self.weights)
        for logits in heads.values():
            student = (logits / self.temperature).log_softmax(-1)
            apart = (teacher.exp() * (teacher - student)).sum(-1)
            total = total + negative_log_likelihood(logits, labels, self.weights)
            total = total + (apart * known).sum() / known.sum().clamp(min=1)
        return total
