"""A residual feed-forward layer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.ops.dropout import Dropout


class FeedForward(nn.Module):
    r"""Work on every utterance alone and keep what came in: $y = \mathrm{LN}(x + W_2\,\mathrm{gelu}(W_1 x))$.

    The subspace extractor of GraphCFC, and the second half of its layers (Li et al. 2023).

    Inputs:
        x: float `[N, width]`; layout: unused.
    Outputs:
        float `[N, width]`.

    Args:
        width: width of x (a fact).
        inner: width between the maps; null: twice the width.
        dropout: probability, behind each map.

    Example:
        >>> import torch
        >>> FeedForward(6)(torch.ones(2, 6), None).shape
        torch.Size([2, 6])
    """

    def __init__(self, width: int, *, inner: int | None = None, dropout: float = 0.1) -> None:
        super().__init__()
        self.out_width = width
        self.widen, self.narrow = nn.Linear(width, inner or 2 * width), nn.Linear(inner or 2 * width, width)
        self.norm = nn.LayerNorm(width)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, layout: Layout | None) -> Tensor:
        """Run the layer."""
        return self.norm(x + self.drop(self.narrow(self.drop(F.gelu(self.widen(x))))))
