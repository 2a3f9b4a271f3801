"""Graph attention."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.errors import MerZooError
from mer_zoo.kernel.base import Kernel

Combine = Literal["concat", "mean"]


class GAT(nn.Module):
    r"""Attention by a score of each end, several heads (Veličković et al. 2018, eq. 1 to 6).

    $$e_{ij} = \mathrm{LeakyReLU}_{0.2}(a_L\cdot W x_i + a_R\cdot W x_j),\quad
      y_i = b + \textstyle\sum_j \mathrm{softmax}_j(e_{ij})\, W x_j$$

    Inputs:
        x: float `[nodes, width]`; edges: kernel; weights: ignored, attention makes its own.
    Outputs:
        float `[nodes, out_width]`.

    Args:
        width: width of x (a fact).
        out_width: width of the result; divisible by `heads` if these are concatenated.
        heads: number of attention heads.
        combine: `concat` or `mean` of the heads.
        dropout: probability, on attention.

    Raises:
        MerZooError: heads to be concatenated do not divide `out_width`.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> GAT(6, out_width=8, heads=2)(batch.features["text"], edges, None).shape
        torch.Size([10, 8])
    """

    def __init__(
        self,
        width: int,
        *,
        out_width: int = 100,
        heads: int = 4,
        combine: Combine = "concat",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.out_width, self.heads, self.combine = out_width, heads, combine
        inner = head_width(out_width, heads, combine)
        self.map = nn.Linear(width, heads * inner, bias=False)
        self.target_score = nn.Parameter(torch.empty(heads, inner))
        self.source_score = nn.Parameter(torch.empty(heads, inner))
        self.bias = nn.Parameter(torch.zeros(out_width))
        self.drop = nn.Dropout(dropout)
        for weight in (self.map.weight, self.target_score, self.source_score):
            nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Attend once."""
        values = self.map(x).unflatten(-1, (self.heads, -1)).transpose(0, 1)  # [heads, nodes, inner]
        attention = edges.softmax(F.leaky_relu(self.scores(values, edges), 0.2))
        return combine_heads(edges.aggregate(self.drop(attention), values), self.combine) + self.bias

    def scores(self, values: Tensor, edges: Kernel) -> Tensor:
        """Return the scores `[heads, *edges]` of values `[heads, nodes, inner]`."""
        target = torch.einsum("hnk,hk->hn", values, self.target_score)
        source = torch.einsum("hnk,hk->hn", values, self.source_score)
        return edges.target(target) + edges.source(source)


def head_width(out_width: int, heads: int, combine: Combine = "concat") -> int:
    """Return the width of one head.

    Example:
        >>> head_width(100, 4), head_width(100, 4, "mean")
        (25, 100)
    """
    if combine == "mean":
        return out_width
    if heads < 1 or out_width % heads:
        raise MerZooError(f"out_width {out_width} is not divisible by {heads} heads. Change one of the two.")
    return out_width // heads


def combine_heads(x: Tensor, combine: Combine) -> Tensor:
    """`[heads, nodes, inner]` → `[nodes, out_width]`."""
    return x.mean(0) if combine == "mean" else x.transpose(0, 1).flatten(-2)
