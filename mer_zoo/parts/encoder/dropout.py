"""Dropout as a stage of its own."""

from __future__ import annotations

from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.ops import dropout as dropping


class Dropout(nn.Module):
    """Zero features at random in training, so that all later stages see the same thinned states.

    Inputs:
        x: float `[N, width]`; layout: unused.
    Outputs:
        float `[N, width]`.

    Args:
        width: width of x (a fact).
        dropout: probability.

    Example:
        >>> import torch
        >>> Dropout(3, dropout=0.5).eval()(torch.ones(1, 3), None)
        tensor([[1., 1., 1.]])
    """

    def __init__(self, width: int, *, dropout: float = 0.5) -> None:
        super().__init__()
        self.out_width = width
        self.drop = dropping.Dropout(dropout)

    def forward(self, x: Tensor, layout: Layout | None) -> Tensor:
        """Drop."""
        return self.drop(x)
