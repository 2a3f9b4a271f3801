"""A classifier with one hidden layer."""

from __future__ import annotations

from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.ops.dropout import Dropout


class MLP(nn.Module):
    r"""Classify via a hidden layer (DialogueGCN §3.3.3): $y = W_2\,\mathrm{drop}(\mathrm{relu}(W_1 x + b_1)) + b_2$.

    Inputs:
        x: float `[N, width]`; layout: unused.
    Outputs:
        logits, float `[N, classes]`.

    Args:
        width: width of x (a fact).
        classes: number of emotions (a fact).
        hidden: width of the hidden layer.
        dropout: probability behind the hidden layer.

    Example:
        >>> import torch
        >>> MLP(3, 6, hidden=4)(torch.ones(2, 3), None).shape
        torch.Size([2, 6])
    """

    def __init__(self, width: int, classes: int, *, hidden: int = 100, dropout: float = 0.4) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(width, hidden), nn.Linear(hidden, classes)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, layout: Layout | None) -> Tensor:
        """Classify."""
        return self.last(self.drop(self.first(x).relu()))
