"""The focal loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mer_zoo.parts.loss.nll import ClassWeights, weigh_classes

if TYPE_CHECKING:
    from mer_zoo.batch.output import Output


class Focal(nn.Module):
    r"""Care less about what is already known (Lin et al. 2017, eq. 5, in the form of MM-DFN and DialogueCRN).

    $$L = -\frac{1}{N} \sum_i w_{y_i} (1 - p_i(y_i))^\gamma \log p_i(y_i)$$

    As published there, no gradient flows through the factor, and the mean is over utterances, not over their weights.

    Inputs:
        output: `Output` with logits `[N, classes]`; labels: int64 `[N]`, -1 where unlabelled.
    Outputs:
        scalar.

    Args:
        class_counts: training labels of each class (a fact).
        gamma: exponent, at least 0.
        class_weights: as of `nll`.

    Raises:
        MerZooError: the number of weights is not the number of classes.

    Example:
        >>> from mer_zoo.batch.output import Output
        >>> loss = Focal((5, 5), gamma=1)(Output(torch.zeros(3, 2), {}, {}), torch.tensor([0, 1, -1]))
        >>> round(float(loss), 4)
        0.3466
    """

    def __init__(
        self, class_counts: Sequence[int], *, gamma: float = 1.0, class_weights: ClassWeights = "none"
    ) -> None:
        super().__init__()
        self.gamma = gamma
        weights = weigh_classes(class_counts, class_weights)
        self.weights: Tensor
        self.register_buffer("weights", torch.ones(len(class_counts)) if weights is None else weights, persistent=False)

    def forward(self, output: Output, labels: Tensor) -> Tensor:
        """Compute the loss."""
        logs = output.logits.log_softmax(-1)
        known = (labels >= 0).to(logs.dtype)
        labels = labels.clamp(min=0)
        logs = logs.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        factor = (1 - logs.detach().exp()) ** self.gamma * self.weights.to(logs.dtype)[labels]
        return -(factor * logs * known).sum() / known.sum().clamp(min=1)
