"""What the dense and the band kernel share: edges as blocks of targets × candidate sources, and matrix products."""

from __future__ import annotations

import abc
from functools import cached_property

import torch
from torch import Tensor

from mer_zoo.kernel.base import Kernel
from mer_zoo.kernel.masked_softmax import masked_softmax


class Blocks(Kernel):
    """Edge tensors are `[..., blocks, targets, sources]`; subclasses say which nodes a block holds."""

    _relation: Tensor  # [blocks, targets, sources], id + 1 of the relation, 0 where there is no edge
    _kinds: Tensor  # [selected relations], their ids + 1

    @abc.abstractmethod
    def _sources(self, x: Tensor) -> Tensor:
        """`[..., nodes, d]` → `[..., blocks, sources, d]`."""

    @abc.abstractmethod
    def _targets(self, x: Tensor) -> Tensor:
        """`[..., nodes, d]` → `[..., blocks, targets, d]`."""

    @abc.abstractmethod
    def _back(self, x: Tensor) -> Tensor:
        """`[..., blocks, targets, d]` → `[..., nodes, d]`."""

    def source(self, x: Tensor) -> Tensor:
        """`[..., blocks, 1, sources]`: broadcasts over targets."""
        return self._sources(x.unsqueeze(-1)).squeeze(-1).unsqueeze(-2)

    def target(self, x: Tensor) -> Tensor:
        """`[..., blocks, targets, 1]`: broadcasts over sources."""
        return self._targets(x.unsqueeze(-1))

    @cached_property
    def one_hot(self) -> Tensor:
        """`[selected relations, blocks, targets, sources]`."""
        return (self._relation == self._kinds.view(-1, 1, 1, 1)).float()

    @cached_property
    def ones(self) -> Tensor:
        """`[blocks, targets, sources]`."""
        return (self._relation > 0).float()

    @cached_property
    def _no_edge(self) -> Tensor:
        return self._relation == 0

    def dot(self, query: Tensor, key: Tensor) -> Tensor:
        """One matrix product per block."""
        return self._targets(query) @ self._sources(key).transpose(-1, -2)

    def _softmax(self, scores: Tensor) -> Tensor:
        """Softmax over sources; a target without edges gets zeros."""
        return masked_softmax(scores, self.ones)

    def _softmax_outgoing(self, scores: Tensor) -> Tensor:
        """A source may stand in several blocks: largest scores and sums are collected node by node."""
        number = torch.arange(1, self.nodes + 1, device=scores.device).unsqueeze(-1)
        node = self._sources(number).squeeze(-1).sub(1).remainder(self.nodes + 1)  # places without a node: the last
        lowest = scores.masked_fill(self._no_edge, torch.finfo(scores.dtype).min)
        empty = scores.new_zeros(self.nodes + 1)
        top = empty.scatter_reduce(0, node.flatten(), lowest.detach().amax(-2).flatten(), "amax", include_self=False)
        weight = self.mask((lowest - top[node].unsqueeze(-2)).exp())
        sums = weight.sum(-2)
        total = sums.new_zeros(self.nodes + 1).index_add(0, node.flatten(), sums.flatten())
        return weight / total[node].unsqueeze(-2).clamp(min=torch.finfo(scores.dtype).tiny)

    def sum(self, edges: Tensor) -> Tensor:
        """Sum over sources."""
        return self._back(edges.sum(-1, keepdim=True)).squeeze(-1)

    def aggregate(self, weights: Tensor, values: Tensor) -> Tensor:
        """One matrix product per block."""
        return self._back(weights @ self._sources(values))

    def aggregate_by_relation(self, weights: Tensor, values: Tensor) -> Tensor:
        """All relations of a block as rows of one matrix product."""
        apart = (weights * self.one_hot.to(weights.dtype)).movedim(0, -3)  # [blocks, relations, targets, sources]
        summed = apart.flatten(-3, -2) @ self._sources(values)
        return self._back(summed.unflatten(-2, apart.shape[-3:-1]).movedim(-3, 0))

    def edge_values(self, edges: Tensor) -> Tensor:
        """Columns of the edges, targets first."""
        return edges.expand(*edges.shape[:-3], *self._relation.shape)[..., self._relation > 0]


def diagonals(block: Tensor) -> Tensor:
    """Return row i of the last two dimensions from column i on: `[..., n, n + m - 1]` → `[..., n, m]`."""
    count = block.shape[-2]
    return block.unfold(-1, block.shape[-1] - count + 1, 1).diagonal(dim1=-3, dim2=-2).transpose(-1, -2)
