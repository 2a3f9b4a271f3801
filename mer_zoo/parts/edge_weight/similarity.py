"""Edge weights by a learned similarity."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.kernel.base import Kernel

Normalise = Literal["softmax", "sigmoid"]


class Similarity(nn.Module):
    r"""Scaled dot product of two learned projections: $a_{ij} = \sigma\big((W_q x_i)\cdot(W_k x_j)/\sqrt{d}\big)$.

    Turns the candidates of a static graph into learned edges. $\sigma$ is a softmax over the edges that enter i, or a
    sigmoid, which lets a node have none or many neighbours.

    Inputs:
        x: float `[nodes, width]`; edges: kernel; layout: unused.
    Outputs:
        masked `[*edges]`.

    Args:
        width: width of x (a fact).
        inner: width d of the projections.
        normalise: `softmax` or `sigmoid`.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> weights = Similarity(6)(batch.features["text"], edges, batch.layout)
        >>> edges.sum(weights).round(decimals=3).tolist()[:3]
        [1.0, 1.0, 1.0]
    """

    def __init__(self, width: int, *, inner: int = 64, normalise: Normalise = "softmax") -> None:
        super().__init__()
        self.normalise, self.scale = normalise, inner**-0.5
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(width, inner, bias=False)

    def forward(self, x: Tensor, edges: Kernel, layout: Layout) -> Tensor:
        """Weigh all edges."""
        query, key = self.query(x) * self.scale, self.key(x)
        scores = edges.dot(query.unsqueeze(0), key.unsqueeze(0)).squeeze(0)
        return edges.softmax(scores) if self.normalise == "softmax" else edges.mask(scores.sigmoid())
