"""Graph attention whose ranking of sources depends on the target."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.kernel.base import Kernel
from mer_zoo.parts.layer.gat import Combine, combine_heads, head_width


class GATv2(nn.Module):
    r"""Attention whose nonlinearity stands between the map and the score vector (Brody et al. 2022, eq. 7).

    $$e_{ij} = a\cdot\mathrm{LeakyReLU}_{0.2}(W_L x_i + W_R x_j),\quad
      y_i = b + \textstyle\sum_j \mathrm{softmax}_j(e_{ij})\, W_R x_j$$

    Needs one vector of width `out_width` per edge, so memory grows with edges × width: give it a windowed graph.

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
        >>> GATv2(6, out_width=8, heads=2)(batch.features["text"], edges, None).shape
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
        self.source_map = nn.Linear(width, heads * inner)
        self.target_map = nn.Linear(width, heads * inner)
        self.score = nn.Parameter(torch.empty(heads, inner))
        self.bias = nn.Parameter(torch.zeros(out_width))
        self.drop = nn.Dropout(dropout)
        for weight in (self.source_map.weight, self.target_map.weight, self.score):
            nn.init.xavier_uniform_(weight)

    def forward(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Attend once."""
        values = self.source_map(x).unflatten(-1, (self.heads, -1)).transpose(0, 1)  # [heads, nodes, inner]
        asked = self.target_map(x).unflatten(-1, (self.heads, -1)).transpose(0, 1)
        pair = edges.target(asked.transpose(1, 2)) + edges.source(values.transpose(1, 2))  # [heads, inner, *edges]
        scores = torch.einsum("hk...,hk->h...", F.leaky_relu(self.beside(pair, edges), 0.2), self.score)
        summed = edges.aggregate(self.drop(edges.softmax(scores)), values)
        return combine_heads(summed, self.combine) + self.bias

    def beside(self, pair: Tensor, edges: Kernel) -> Tensor:
        """Add to the vectors `[heads, inner, *edges]` what else an edge is known by."""
        return pair
