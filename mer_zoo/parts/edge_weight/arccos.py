"""Edge weights by the angle between two nodes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.kernel.base import Kernel


class Arccos(nn.Module):
    r"""Angular similarity of source and target (MMGCN §3.3): $a_{ij} = 1 - \arccos(c \cdot \cos(x_i, x_j)) / \pi$.

    $c = 0.99999$ keeps the derivative finite where the angle is zero, on every self-loop.

    Inputs:
        x: float `[nodes, width]`; edges: kernel; layout: unused.
    Outputs:
        masked `[*edges]`.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> float(Arccos()(batch.features["text"], edges, batch.layout).max()) <= 1
        True
    """

    def forward(self, x: Tensor, edges: Kernel, layout: Layout) -> Tensor:
        """Weigh all edges."""
        unit = (x / x.norm(dim=-1, keepdim=True).clamp(min=1e-8)).unsqueeze(0)
        cosine = edges.mask(edges.dot(unit, unit).squeeze(0)).to(torch.promote_types(x.dtype, torch.float32))
        cosine = cosine.clamp(-1.00001, 1.00001)  # bfloat16 overshoots
        return edges.mask(1 - (0.99999 * cosine).arccos() / math.pi).to(x.dtype)
