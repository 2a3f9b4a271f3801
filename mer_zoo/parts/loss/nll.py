"""Negative log-likelihood, optionally weighted by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from mer_zoo.errors import MerZooError

if TYPE_CHECKING:
    from mer_zoo.batch.output import Output

ClassWeights = Literal["none", "balanced"] | list[float]


class NLL(nn.Module):
    r"""Mean negative log-likelihood of the labels, each utterance weighted by its class.

    $$L = -\sum_i w_{y_i} \log p_i(y_i) \Big/ \sum_i w_{y_i}$$

    Inputs:
        output: `Output` with logits `[N, classes]`; labels: int64 `[N]`, -1 where unlabelled.
    Outputs:
        scalar.

    Args:
        class_counts: training labels of each class (a fact).
        class_weights: `none`; `balanced`, the inverse of the class's share of the training labels; or one per class.

    Raises:
        MerZooError: the number of weights is not the number of classes.

    Example:
        >>> from mer_zoo.batch.output import Output
        >>> loss = NLL((5, 5))(Output(torch.zeros(3, 2), {}, {}), torch.tensor([0, 1, -1]))
        >>> round(float(loss), 4)
        0.6931
    """

    def __init__(self, class_counts: Sequence[int], *, class_weights: ClassWeights = "none") -> None:
        super().__init__()
        self.weights: Tensor | None
        self.register_buffer("weights", weigh_classes(class_counts, class_weights), persistent=False)

    def forward(self, output: Output, labels: Tensor) -> Tensor:
        """Compute the loss."""
        return negative_log_likelihood(output.logits, labels, self.weights)


def weigh_classes(class_counts: Sequence[int], class_weights: ClassWeights) -> Tensor | None:
    """Return one weight per class, or None for equal weights."""
    if class_weights == "none":
        return None
    if class_weights == "balanced":
        counts = torch.tensor(class_counts, dtype=torch.float32)
        return counts.sum() / counts.clamp(min=1)
    if len(class_weights) != len(class_counts):
        raise MerZooError(
            f"{len(class_weights)} class weights for {len(class_counts)} classes. Give one per class, in their order, "
            "or `class_weights: balanced`."
        )
    return torch.tensor(class_weights)


def negative_log_likelihood(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted mean over labelled utterances; 0 where there is none."""
    known = labels.clamp(min=0)
    picked = -logits.log_softmax(-1).gather(-1, known.unsqueeze(-1)).squeeze(-1)
    scale = (labels >= 0).to(logits.dtype)
    if weights is not None:
        scale = scale * weights.to(logits.dtype)[known]
    return (picked * scale).sum() / scale.sum().clamp(min=torch.finfo(logits.dtype).tiny)
