"""Relational graph convolution."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from mer_zoo.kernel.base import Kernel

Norm = Literal["none", "mean"]


class RGCN(nn.Module):
    r"""One matrix per relation, mixed from shared bases (Schlichtkrull et al. 2018, eq. 2, 3; DialogueGCN §3.3.2).

    $$y_i = W_0 x_i + b + \sum_r \frac{1}{c_{ir}} \sum_{j \in N_r(i)} a_{ij} W_r x_j,\; W_r = \sum_b \alpha_{rb} V_b$$

    With `normalise: none` (PyG 1.3 to 1.5, DialogueGCN) $c_{ir}=1$ and $a$ are the edge weights; with `mean` (PyG since
    1.6) $c_{ir}$ is the number of edges of relation r that enter i.

    Inputs:
        x: float `[nodes, width]`; edges: kernel; weights: masked edge tensor `[*edges]`, or None for 1.
    Outputs:
        float `[nodes, out_width]`.

    Args:
        width: width of x (a fact).
        relations: names of all relations of the graph (a fact).
        out_width: width of the result.
        bases: number of bases; null: one free matrix per relation.
        normalise: `none` or `mean` over the edges of each relation.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> RGCN(6, edges.names, out_width=4)(batch.features["text"], edges, None).shape
        torch.Size([10, 4])
    """

    def __init__(
        self,
        width: int,
        relations: tuple[str, ...],
        *,
        out_width: int = 100,
        bases: int | None = 30,
        normalise: Norm = "none",
    ) -> None:
        super().__init__()
        self.out_width, self.normalise = out_width, normalise
        bound = (width * (bases or len(relations))) ** -0.5
        self.basis = nn.Parameter(torch.empty(bases or len(relations), width, out_width).uniform_(-bound, bound))
        self.mixture = nn.Parameter(torch.empty(len(relations), bases).uniform_(-bound, bound)) if bases else None
        self.root = nn.Parameter(torch.empty(width, out_width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_width).uniform_(-bound, bound))

    def forward(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Sum messages, each relation (or each basis, if these are fewer) apart, then map."""
        if weights is None:
            weights = edges.ones.to(x.dtype)
        if self.normalise == "mean":
            count = edges.sum(edges.one_hot.to(x.dtype)).clamp(min=1)
            weights = weights * (edges.target(1 / count) * edges.one_hot.to(x.dtype)).sum(0)
        if self.mixture is not None and self.basis.shape[0] < len(edges.selected):
            # fewer bases than relations: weigh each edge by its relation's share of a basis
            summed = edges.aggregate(edges.relation(self.mixture.t()) * weights, x.unsqueeze(0))
            matrices: Tensor = self.basis
        else:
            summed = edges.aggregate_by_relation(weights, x)
            every = self.basis if self.mixture is None else torch.einsum("rb,bio->rio", self.mixture, self.basis)
            matrices = edges.pick(every, 0)
        return torch.einsum("rni,rio->no", summed, matrices) + x @ self.root + self.bias
