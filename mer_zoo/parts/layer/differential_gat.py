"""Differential graph attention, the layer of AMB-DSGDN."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.batch.looking import looked
from mer_zoo.kernel.base import Kernel
from mer_zoo.parts.ops.dropout import Dropout


class DifferentialGAT(nn.Module):
    r"""Two differential graph attentions, one behind the other, with residual and norm (AMB-DSGDN, §3).

    $$y = \mathrm{LN}\big(x + W\,\mathrm{gelu}(\mathrm{DiffAtt}_1(\mathrm{DiffAtt}_H(x)))\big)$$

    $\mathrm{DiffAtt}_H$ has H heads of full width, concatenated; $\mathrm{DiffAtt}_1$ maps them back. Its own GELU is
    followed by a second one, as published.

    Inputs:
        x: float `[nodes, width]`; edges: kernel; weights: ignored, attention makes its own.
    Outputs:
        float `[nodes, width]`.

    Args:
        width: width of x, even (a fact).
        relations: names of all relations of the graph (a fact).
        heads: heads of the first attention.
        dropout: probability, on states and attention maps.
        embedding: width of the relation embedding.
        fixed_lambda: hold $\lambda$ at this value instead of learning it; 0 is graph attention without a difference.
        depth: number l of the layer in its stack, sets $\lambda_0$; the published code has 1 everywhere.
        second_gain: the second map's scores start at this times those published; at 0 it starts as the mean over all
            neighbours, so that what they share is taken away from the first step on.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> DifferentialGAT(6, edges.names)(batch.features["text"], edges, None).shape
        torch.Size([10, 6])
    """

    def __init__(
        self,
        width: int,
        relations: tuple[str, ...],
        *,
        heads: int = 2,
        dropout: float = 0.2,
        embedding: int = 10,
        fixed_lambda: float | None = None,
        depth: int = 1,
        second_gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.out_width = width
        self.drop = Dropout(dropout)
        rest = (len(relations), embedding, dropout, fixed_lambda, depth, second_gain)
        self.first = DifferentialAttention(width, width, heads, *rest)
        self.second = DifferentialAttention(heads * width, width, 1, *rest)
        self.map = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Pass messages twice."""
        h = self.drop(self.first(self.drop(x), edges))
        return self.norm(x + self.map(F.gelu(self.second(h, edges))))


class DifferentialAttention(nn.Module):
    r"""Graph attention that subtracts a second attention map from the first, to cancel what both have in common.

    $$[h^+; h^-] = x W,\quad
      e^\pm_{ij} = \mathrm{LeakyReLU}_{0.2}(a_L^\pm h^\pm_i + a_R^\pm h^\pm_j + r^\pm E_{\rho(ij)}),\quad
      A = \mathrm{softmax}_j(e^+) - \lambda\,\mathrm{softmax}_j(e^-)$$
    $$\lambda = e^{\lambda_1\cdot\lambda_2} - e^{\lambda_3\cdot\lambda_4} + \lambda_0,\quad
      \lambda_0 = 0.8 - 0.6 e^{-0.3\,l},\quad
      y = \mathrm{gelu}\big((1-\lambda_0)\,\mathrm{LN}(A[h^+;h^-])\big)$$

    All heads are one product. A relation's score is one number per head and sign; row 0 of its embedding stands for
    "no edge" in the published code and is never used.

    Inputs:
        x: float `[nodes, width]`; edges: kernel.
    Outputs:
        float `[nodes, heads * out_width]`.
    """

    def __init__(
        self,
        width: int,
        out_width: int,
        heads: int,
        relations: int,
        embedding: int,
        dropout: float,
        fixed_lambda: float | None,
        depth: int,
        second_gain: float,
    ) -> None:
        super().__init__()
        if out_width % 2:
            raise ValueError(f"width {out_width} must be even, for the two halves of differential attention")
        half = out_width // 2
        self.heads, self.out_width = heads, out_width
        self.weight = nn.Parameter(torch.empty(width, heads * out_width))
        self.target_score = nn.Parameter(torch.empty(heads, 2, half))
        self.source_score = nn.Parameter(torch.empty(heads, 2, half))
        self.relation_embedding = nn.Parameter(torch.randn(heads, 1 + relations, embedding))
        self.relation_score = nn.Parameter(torch.empty(heads, 2, embedding))
        self.damping = nn.Parameter(torch.randn(heads, 4, half) * 0.1) if fixed_lambda is None else None
        self.fixed: Tensor
        self.register_buffer("fixed", torch.full((heads,), fixed_lambda or 0.0), persistent=False)
        self.norm_weight = nn.Parameter(torch.ones(heads, out_width))
        self.norm_bias = nn.Parameter(torch.zeros(heads, out_width))
        self.damping_start = 0.8 - 0.6 * math.exp(-0.3 * depth)
        self.drop = Dropout(dropout)
        for head in self.weight.data.split(out_width, 1):
            nn.init.xavier_uniform_(head)
        for scores in (self.target_score, self.source_score, self.relation_score):
            nn.init.uniform_(scores, -(scores.shape[-1] ** -0.5), scores.shape[-1] ** -0.5)
            scores.data[:, 1] *= second_gain

    def forward(self, x: Tensor, edges: Kernel) -> Tensor:
        """Attend twice, subtract, sum up."""
        values = (x @ self.weight).unflatten(-1, (self.heads, -1)).transpose(0, 1)  # [heads, nodes, out_width]
        # a (x W) = x (W a), and W a is small
        ends = torch.stack([self.target_score, self.source_score], -1)  # [heads, 2, half, 2]
        folded = torch.einsum("ihpk,hpke->ihpe", self.weight.unflatten(1, ends.shape[:3]), ends)
        target, source = (x @ folded.flatten(1)).t().contiguous().unflatten(0, (self.heads, 2, 2)).unbind(2)
        relation = torch.einsum("hre,hpe->hpr", self.relation_embedding[:, 1:], self.relation_score)
        scores = edges.target(target) + edges.source(source) + edges.relation(relation)
        both = edges.softmax(F.leaky_relu(scores, 0.2))  # [heads, 2, *edges]
        damped = (self._damping() @ both.flatten(2)).view(self.heads, *both.shape[2:])
        summed = edges.aggregate(self.drop(looked(damped, edges, "difference")), values).transpose(0, 1)
        normed, kept = F.layer_norm(summed, (self.out_width,)), 1 - self.damping_start
        return F.gelu(torch.addcmul(self.norm_bias * kept, normed, self.norm_weight * kept)).flatten(-2)

    def lambdas(self) -> Tensor:
        """Return lambda of every head, `[heads]`; it is noted after every epoch."""
        if self.damping is None:
            return self.fixed
        one, other = self.damping.unflatten(1, (2, 2)).unbind(2)
        first, second = (one * other).sum(-1).exp().unbind(1)
        return first - second + self.damping_start

    def _damping(self) -> Tensor:
        """What each of both maps counts: 1 and -lambda, `[heads, 1, 2]`."""
        damping = self.lambdas()
        return torch.stack([torch.ones_like(damping), -damping], -1).unsqueeze(1)
