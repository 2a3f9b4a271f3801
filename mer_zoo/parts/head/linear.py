"""A linear classifier."""

from __future__ import annotations

from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.ops.dropout import Dropout


class Linear(nn.Module):
    r"""Classify by a linear map of the rectified, thinned state: $y = W\,\mathrm{drop}(\mathrm{relu}(x)) + b$.

    Inputs:
        x: float `[N, width]`; layout: unused.
    Outputs:
        logits, float `[N, classes]`.

    Args:
        width: width of x (a fact).
        classes: number of emotions (a fact).
        dropout: probability.
        relu: rectify before the map.

    Example:
        >>> import torch
        >>> Linear(3, 6)(torch.ones(2, 3), None).shape
        torch.Size([2, 6])
    """

    def __init__(self, width: int, classes: int, *, dropout: float = 0.5, relu: bool = True) -> None:
        super().__init__()
        self.relu = relu
        self.drop = Dropout(dropout)
        self.map = nn.Linear(width, classes)

    def forward(self, x: Tensor, layout: Layout | None) -> Tensor:
        """Classify."""
        return self.map(self.drop(x.relu() if self.relu else x))
