"""Edge weights by a bilinear form of both ends."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.kernel.base import Kernel


class Bilinear(nn.Module):
    r"""Softmax over the window of a bilinear form (DialogueGCN eq. 2): $a_{ij} = \mathrm{softmax}_j(h_i^\top W h_j)$.

    Normalised over the edges i→j that leave the window centre i.

    Inputs:
        x: float `[nodes, width]`; edges: kernel with edges that leave window centres; layout: unused.
    Outputs:
        masked `[*edges]`.

    Args:
        width: width of x (a fact).

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> Bilinear(6)(batch.features["text"], edges, batch.layout).dim() > 0
        True
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width) / width)

    def forward(self, x: Tensor, edges: Kernel, layout: Layout) -> Tensor:
        """Weigh all edges."""
        # scores[target j, source i] = (h_i W) · h_j
        scores = edges.dot(x.unsqueeze(0), (x @ self.weight).unsqueeze(0)).squeeze(0)
        return edges.softmax_outgoing(scores)
