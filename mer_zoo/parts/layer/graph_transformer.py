"""Dot-product attention over the edges of a graph."""

from __future__ import annotations

from torch import Tensor, nn

from mer_zoo.kernel.base import Kernel
from mer_zoo.parts.layer.gat import combine_heads, head_width


class GraphTransformer(nn.Module):
    r"""Multi-head dot-product attention and a root term (Shi et al. 2021, eq. 3, 4; COGMEN §3.3; CORECT §3.3).

    $$a_{ij} = \mathrm{softmax}_j\big((W_q x_i + b_q)\cdot(W_k x_j + b_k) / \sqrt{d}\big),\quad
      y_i = W_0 x_i + b_0 + \textstyle\sum_j a_{ij} (W_v x_j + b_v)$$

    Inputs:
        x: float `[nodes, width]`; edges: kernel; weights: ignored, attention makes its own.
    Outputs:
        float `[nodes, out_width]`, heads concatenated.

    Args:
        width: width of x (a fact).
        out_width: width of the result, divisible by `heads`.
        heads: number of attention heads, each of width d.
        dropout: probability, on attention.

    Raises:
        MerZooError: `heads` does not divide `out_width`.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> GraphTransformer(6, out_width=8, heads=2)(batch.features["text"], edges, None).shape
        torch.Size([10, 8])
    """

    def __init__(self, width: int, *, out_width: int = 100, heads: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.out_width, self.heads = out_width, heads
        self.scale = head_width(out_width, heads) ** -0.5
        self.query, self.key, self.value, self.root = (nn.Linear(width, out_width) for _ in range(4))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Attend once."""
        query, key, value = (
            m(x).unflatten(-1, (self.heads, -1)).transpose(0, 1) for m in (self.query, self.key, self.value)
        )
        attention = edges.softmax(edges.dot(query * self.scale, key))
        return combine_heads(edges.aggregate(self.drop(attention), value), "concat") + self.root(x)
