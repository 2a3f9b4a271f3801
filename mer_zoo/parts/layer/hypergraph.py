"""Convolution on hyperedges, seen as cliques."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.errors import MerZooError
from mer_zoo.kernel.base import Kernel

Normalise = Literal["mean", "batch_position"]


class Hypergraph(nn.Module):
    r"""Mean over a node's hyperedges of the mean over their members, without a map (M3Net §3.3).

    $$x_v \leftarrow \mathrm{LeakyReLU}_{0.01}\Big(b + \frac{\sum_{e\ni v} m_e}{\sum_{e\ni v} w_e}\Big),\quad
      m_e = \frac{\sum_{u\in e} x_u}{\sum_{u\in e}\gamma_u}$$

    Every relation is a family of disjoint hyperedges, given as cliques without self-loops (graph `hypergraph`): a
    node's hyperedge is the node and its neighbours. With `mean`, all $w$ and $\gamma$ are 1. The published code learns
    them, but by order in the batch, so a dialogue's output depends on the dialogues before it; `batch_position` does
    the same, for comparison only.

    Inputs:
        x: float `[nodes, width]`; edges: kernel; weights: ignored.
    Outputs:
        float `[nodes, width]`.

    Args:
        width: width of x (a fact).
        relations: names of all relations of the graph (a fact).
        depth: number of convolutions.
        normalise: `mean`, or `batch_position` as published.

    Raises:
        MerZooError: `batch_position` on another graph than `hypergraph`.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> Hypergraph(6, edges.names)(batch.features["text"], edges, None).shape
        torch.Size([10, 6])
    """

    def __init__(
        self, width: int, relations: tuple[str, ...], *, depth: int = 3, normalise: Normalise = "mean"
    ) -> None:
        super().__init__()
        self.out_width = width
        self.biases = nn.ParameterList(torch.zeros(width) for _ in range(depth))
        self.normalise = normalise
        if normalise == "batch_position":
            if relations != ("same_modality", "same_utterance"):
                raise MerZooError("normalise: batch_position numbers the hyperedges of `graph: hypergraph`. Use that.")
            self.edge_weight = nn.Parameter(torch.ones(1000))
            self.node_weight = nn.Parameter(torch.ones(5200))

    def forward(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Pass messages `depth` times."""
        ones = edges.ones.to(x.dtype)
        if self.normalise == "mean":
            members = 1 + edges.sum(edges.one_hot.to(x.dtype))  # [relations, nodes]
            scale = 1 / (members * members.shape[0])
        else:
            scale = self._published(edges, ones)
        for bias in self.biases:
            summed = x + edges.aggregate_by_relation(ones, x)  # [relations, nodes, width]
            x = F.leaky_relu((summed * scale.unsqueeze(-1)).sum(0) + bias, 0.01)
        return x

    def _published(self, edges: Kernel, ones: Tensor) -> Tensor:
        r"""Return $1 / (\sum w \sum\gamma)$, `[relations, nodes]`, by the published numbering of the batch."""
        count, cells, rows = edges.nodes_per_utterance, edges.index.cells, edges.index.rows
        lengths = F.pad((rows < cells.shape[0]).sum(1), (0, 1))  # the last: rows that belong to no dialogue
        dialogue = cells // rows.shape[1]
        place = cells - dialogue * rows.shape[1]  # a remainder, which torch cannot write as ONNX
        start, length = (lengths.cumsum(0) - lengths)[dialogue], lengths[dialogue]
        slot = torch.arange(count, device=cells.device).unsqueeze(1)
        gamma = _look_up(self.node_weight, start * count + slot * length + place)  # node by modality, then by place
        by_modality = _look_up(self.edge_weight, start + dialogue * count + slot)
        by_utterance = _look_up(self.edge_weight, (start + (dialogue + 1) * count + place).expand(count, -1))
        members = gamma + edges.aggregate_by_relation(ones, gamma.unsqueeze(-1)).squeeze(-1)
        return 1 / (members * (by_modality + by_utterance))


def _look_up(table: Tensor, index: Tensor) -> Tensor:
    """`[M, N]` → `[N * M]`, utterance by utterance; numbers beyond the table share its last entry."""
    return table.index_select(0, index.t().flatten().clamp(max=table.shape[0] - 1))
