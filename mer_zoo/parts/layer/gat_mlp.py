"""Graph attention that knows the relation, and a feed-forward half."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer_zoo.kernel.base import Kernel
from mer_zoo.parts.encoder.feed_forward import FeedForward
from mer_zoo.parts.layer.gatv2 import GATv2


class GATMLP(nn.Module):
    r"""A transformer layer whose attention runs along edges (GraphCFC §3.5; Li et al. 2023), `depth` times.

    $$e_{ij} = a\cdot\mathrm{LeakyReLU}_{0.2}(W_L x_i + W_R x_j + r_{\rho(ij)}),\quad
      h_i = \mathrm{LN}\big(x_i + b + \textstyle\sum_j \mathrm{softmax}_j(e_{ij})\, W_R x_j\big),\quad
      y = F(h)$$
    averaged over heads; F is `feed_forward`, and $r$ a vector per head and relation, which is what a map of an embedded
    relation comes to. As in the published code, all `depth` rounds have the same weights; `repeat` gives each its own.

    Inputs:
        x: float `[nodes, width]`; edges: kernel; weights: ignored, attention makes its own.
    Outputs:
        float `[nodes, width]`.

    Args:
        width: width of x (a fact).
        relations: names of all relations of the graph (a fact).
        heads: attention heads, each as wide as x.
        depth: rounds.
        dropout: probability, on attention and in F.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> GATMLP(6, edges.names)(batch.features["text"], edges, None).shape
        torch.Size([10, 6])
    """

    def __init__(
        self, width: int, relations: tuple[str, ...], *, heads: int = 4, depth: int = 5, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.out_width, self.depth = width, depth
        self.attention = RelationalGATv2(width, relations, heads=heads, dropout=dropout)
        self.norm = nn.LayerNorm(width)
        self.feed = FeedForward(width, dropout=dropout)

    def forward(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Attend and work, round by round."""
        for _ in range(self.depth):
            x = self.feed(self.norm(x + self.attention(x, edges, weights)), None)
        return x


class RelationalGATv2(GATv2):
    """As `GATv2`, with a vector per head and relation before the nonlinearity; it starts at zero.

    Inputs and outputs are those of `GATv2`.
    """

    def __init__(self, width: int, relations: tuple[str, ...], *, heads: int, dropout: float) -> None:
        super().__init__(width, out_width=width, heads=heads, combine="mean", dropout=dropout)
        self.relation = nn.Parameter(torch.zeros(heads, width, len(relations)))

    def beside(self, pair: Tensor, edges: Kernel) -> Tensor:
        """Add each relation's vector."""
        return pair + edges.relation(self.relation)
