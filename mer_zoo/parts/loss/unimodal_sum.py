"""The fused loss and those of all heads before the fusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from mer_zoo.errors import MerZooError
from mer_zoo.parts.loss.base import heads_of
from mer_zoo.parts.loss.nll import NLL, ClassWeights, negative_log_likelihood

if TYPE_CHECKING:
    from mer_zoo.batch.output import Output


class UnimodalSum(NLL):
    r"""Let every modality learn from the labels on its own, too (GraphCFC; Li et al. 2023): $L + \lambda \sum_m L_m$.

    Inputs:
        output: `Output` with one head per modality; labels: int64 `[N]`, -1 where unlabelled.
    Outputs:
        scalar.

    Args:
        class_counts: training labels of each class (a fact).
        share: $\lambda$, at least 0.
        class_weights: as of `nll`.

    Raises:
        MerZooError: the model has no head per modality, or the share is below 0.

    Example:
        >>> import torch
        >>> from mer_zoo.batch.output import Output
        >>> flat = torch.zeros(2, 2)
        >>> loss = UnimodalSum((5, 5), share=0.5)(Output(flat, {"text": flat}, {}), torch.tensor([0, 1]))
        >>> round(float(loss), 4)
        1.0397
    """

    def __init__(
        self, class_counts: Sequence[int], *, share: float = 1.0, class_weights: ClassWeights = "none"
    ) -> None:
        super().__init__(class_counts, class_weights=class_weights)
        if share < 0:
            raise MerZooError(f"`share` is {share}, but must be at least 0.")
        self.share = share

    def forward(self, output: Output, labels: Tensor) -> Tensor:
        """Compute the loss."""
        heads = heads_of(output, "unimodal_sum")
        alone = [negative_log_likelihood(x, labels, self.weights) for x in heads.values()]
        return super().forward(output, labels) + self.share * sum(alone)
