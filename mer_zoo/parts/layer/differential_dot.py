"""Differential dot-product attention, the layer of the Differential Transformer."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.batch.looking import looked
from mer_zoo.errors import MerZooError
from mer_zoo.kernel.base import Kernel
from mer_zoo.parts.layer.gat import combine_heads


class DifferentialDot(nn.Module):
    r"""Dot-product attention minus a second map of its own, over the edges of a graph (Ye et al. 2025, eq. 1 to 3).

    $$A_h = \mathrm{softmax}_j\Big(\frac{q_{2h}\cdot k_{2h}}{\sqrt{d}}\Big)
          - \lambda\,\mathrm{softmax}_j\Big(\frac{q_{2h+1}\cdot k_{2h+1}}{\sqrt{d}}\Big),\quad
      y = W_o\big[(1-\lambda_0)\,\mathrm{RMSNorm}(A_h v_h)\big]_h$$
    $$\lambda = e^{\lambda_1\cdot\lambda_2} - e^{\lambda_3\cdot\lambda_4} + \lambda_0,\quad
      \lambda_0 = 0.8 - 0.6 e^{-0.3\,l}$$

    The two maps of a head are neighbours in the list of maps. One $\lambda$ and one norm weight serve all heads; no map
    has a bias. With $\lambda=0$ this is plain attention, normed. On a complete graph it is the published full
    attention, on a graph of past and present the causal one.

    Inputs:
        x: float `[nodes, width]`; edges: kernel; weights: ignored, attention makes its own.
    Outputs:
        float `[nodes, width]`.

    Args:
        width: width of x, divisible by `2 * heads` (a fact).
        heads: number of pairs of maps, each map of width $d$ = width / (2 heads).
        key_heads: pairs of key maps and values, shared by groups of heads; null: as many as `heads`.
        depth: number l of the layer in its stack, from 0; sets $\lambda_0$.
        dropout: probability, on attention.

    Raises:
        MerZooError: heads do not divide the width, or key heads the heads.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch(); edges = next(iter(batch.views.values()))
        >>> DifferentialDot(8, heads=2)(batch.features["visual"], edges, None).shape
        torch.Size([10, 8])
    """

    def __init__(
        self, width: int, *, heads: int = 4, key_heads: int | None = None, depth: int = 0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        key_heads = key_heads or heads
        if width % (2 * heads):
            raise MerZooError(f"width {width} is not divisible by {2 * heads}, twice the heads. Change one of the two.")
        if heads % key_heads:
            raise MerZooError(f"{key_heads} key heads do not divide {heads} heads. Change one of the two.")
        self.out_width, self.heads, self.group = width, heads, heads // key_heads
        inner = width // (2 * heads)
        self.scale = inner**-0.5
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width // self.group, bias=False)
        self.value = nn.Linear(width, width // self.group, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.damping = nn.Parameter(torch.randn(4, inner) * 0.1)
        self.damping_start = 0.8 - 0.6 * math.exp(-0.3 * depth)
        self.norm = nn.Parameter(torch.ones(2 * inner))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Attend, norm every head, map."""
        normed = F.rms_norm(self.attend(x, edges), self.norm.shape, eps=1e-5) * self.norm
        return self.out(combine_heads(normed * (1 - self.damping_start), "concat"))

    def lambdas(self) -> Tensor:
        """Return lambda, a scalar; it is noted after every epoch."""
        one, two, three, four = self.damping.unbind(0)
        return (one * two).sum().exp() - (three * four).sum().exp() + self.damping_start

    def attend(self, x: Tensor, edges: Kernel) -> Tensor:
        """Return $A_h v_h$, `[heads, nodes, 2 d]`."""
        query = self.query(x).unflatten(-1, (2 * self.heads, -1)).transpose(0, 1)
        key = self.key(x).unflatten(-1, (2 * self.heads // self.group, -1)).transpose(0, 1)
        value = self.value(x).unflatten(-1, (self.heads // self.group, -1)).transpose(0, 1)
        key, value = (y.repeat_interleave(self.group, 0) for y in (key, value))
        both = edges.softmax(edges.dot(query * self.scale, key).unflatten(0, (self.heads, 2)))
        first, second = both.unbind(1)
        difference = looked(first - self.lambdas() * second, edges, "difference")
        return edges.aggregate(self.drop(difference), value)
