"""Graph convolution that may subtract a neighbour, and so keep high frequencies."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer_zoo.kernel.base import Kernel


class SignedFrequency(nn.Module):
    r"""Add neighbours with a learned sign, layer by layer (Bo et al. 2021, eq. 5, 7, in M3Net's form, §3.4).

    $$x_i \leftarrow x_i + \sum_j \frac{\tanh(g_t\cdot x_i + g_s\cdot x_j + b)}{\sqrt{d_i d_j}}\, x_j$$

    $d_i$ is the number of edges that enter i, and at least 1. A positive coefficient smooths (low frequencies), a
    negative one sharpens.

    Inputs:
        x: float `[nodes, width]`; edges: kernel, usually without self-loops; weights: ignored.
    Outputs:
        float `[nodes, width]`.

    Args:
        width: width of x (a fact).
        depth: number of convolutions.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> SignedFrequency(6, depth=2)(batch.features["text"], edges, None).shape
        torch.Size([10, 6])
    """

    def __init__(self, width: int, *, depth: int = 4) -> None:
        super().__init__()
        self.out_width = width
        self.gates = nn.ModuleList(nn.Linear(2 * width, 1) for _ in range(depth))

    def forward(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Pass messages `depth` times."""
        ones = edges.ones.to(x.dtype)
        scale = edges.sum(ones).clamp(min=1).rsqrt()
        norm = ones * edges.target(scale) * edges.source(scale)
        for gate in self.gates:
            target, source = (x @ gate.weight.view(2, -1).t()).unbind(-1)  # type: ignore[operator]
            sign = torch.tanh(edges.target(target) + edges.source(source) + gate.bias)  # type: ignore[operator]
            x = x + edges.aggregate((sign * norm).unsqueeze(0), x.unsqueeze(0)).squeeze(0)
        return x
