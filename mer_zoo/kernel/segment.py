"""Edges as a list: gather, scatter and add. Any graph, linear memory."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mer_zoo.batch.index import BatchIndex
from mer_zoo.kernel.base import Kernel

if TYPE_CHECKING:
    from mer_zoo.graph.lowering import View


class Segment(Kernel):
    """One column per edge, sorted by target: edge tensors are `[..., edges]`.

    The only layout that allows several edges between the same two nodes. Costs one gathered row per edge and head.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_edges
        >>> edges = tiny_edges(Segment)
        >>> edges.sum(edges.ones).tolist()
        [1.0, 2.0, 2.0]
    """

    def __init__(self, view: View, tables: Mapping[str, Tensor], index: BatchIndex, plan: Mapping[str, Tensor]) -> None:
        super().__init__(view, tables, index, plan)
        edge, offset = plan["edge"], plan["offset"]
        self._source = tables["source"][edge] + offset
        self._into = tables["target"][edge] + offset  # padding edges enter a node beyond the last, which is cut off
        self._target = self._into.clamp(max=self.nodes - 1)
        self._source = self._source.clamp(max=self.nodes - 1)
        self._relation = tables["relation"][edge]

    @classmethod
    def tables(cls, view: View) -> dict[str, Tensor]:
        """Edge list of the corpus with one padding edge at its end."""
        slot = np.full(len(view.relations), -1)
        slot[list(view.selected)] = np.arange(len(view.selected))
        return {
            "source": torch.from_numpy(np.append(view.source, 0).astype(np.int64)),
            "target": torch.from_numpy(np.append(view.target, 0).astype(np.int64)),
            "relation": torch.from_numpy(np.append(slot[view.relation], -1).astype(np.int64)),
        }

    @classmethod
    def plan(
        cls, view: View, dialogues: np.ndarray, starts: np.ndarray, utterances: int, edges: int = 0
    ) -> dict[str, np.ndarray]:
        """Numbers of the batch's edges in the corpus, and the node each one's dialogue begins at."""
        real = dialogues < len(view.lengths)
        chosen = dialogues[real]
        first, count = view.pointer[chosen], np.diff(view.pointer)[chosen]
        before = np.cumsum(count) - count
        edge = np.arange(count.sum()) - np.repeat(before - first, count)
        offset = np.repeat(starts[real] * view.nodes_per_utterance, count)
        padding = max(0, edges - len(edge))
        beyond = np.full(
            padding, utterances * view.nodes_per_utterance
        )  # the padding edge: from 0 to 0, and so shifted
        return {"edge": np.append(edge, np.full(padding, view.pointer[-1])), "offset": np.append(offset, beyond)}

    @classmethod
    def count(cls, view: View, dialogues: np.ndarray) -> int:
        """Every edge is listed."""
        return int(np.diff(view.pointer)[dialogues].sum())

    @cached_property
    def edge_index(self) -> Tensor:
        """The list itself: its length is known without looking at it, so a step with it can be captured."""
        return torch.stack([torch.where(self._into == self.nodes, self._into, self._source), self._into])

    def source(self, x: Tensor) -> Tensor:
        """Gather by source."""
        return x.index_select(-1, self._source)

    def target(self, x: Tensor) -> Tensor:
        """Gather by target."""
        return x.index_select(-1, self._target)

    @cached_property
    def one_hot(self) -> Tensor:
        """`[selected relations, edges]`."""
        kinds = torch.arange(len(self.selected), device=self._relation.device)
        return (self._relation == kinds.unsqueeze(1)).float()

    def dot(self, query: Tensor, key: Tensor) -> Tensor:
        """Gather both ends and multiply."""
        return (query.index_select(-2, self._target) * key.index_select(-2, self._source)).sum(-1)

    def _softmax(self, scores: Tensor) -> Tensor:
        """Exponentials, shifted by each target's largest score."""
        return self._normalised(scores, self._into)

    def _softmax_outgoing(self, scores: Tensor) -> Tensor:
        """Exponentials, shifted by each source's largest score."""
        padding = self._into == self.nodes
        return self._normalised(scores, torch.where(padding, self._into, self._source))

    def _normalised(self, scores: Tensor, node: Tensor) -> Tensor:
        index = node.expand(scores.shape)
        shape = (*scores.shape[:-1], self.nodes + 1)
        top = scores.new_full(shape, -torch.inf).scatter_reduce(-1, index, scores.detach(), "amax")
        weight = (scores - top.gather(-1, index)).exp()
        total = weight.new_zeros(shape).scatter_add(-1, index, weight)
        return weight / total.gather(-1, index)

    def sum(self, edges: Tensor) -> Tensor:
        """Scatter-add."""
        total = edges.new_zeros((*edges.shape[:-1], self.nodes + 1))
        return total.index_add(-1, self._into, edges)[..., :-1]

    def aggregate(self, weights: Tensor, values: Tensor) -> Tensor:
        """Gather rows, weigh them, scatter-add."""
        message = weights.unsqueeze(-1) * values.index_select(-2, self._source)
        total = message.new_zeros((*message.shape[:-2], self.nodes + 1, message.shape[-1]))
        return total.index_add(-2, self._into, message)[..., :-1, :]

    def aggregate_by_relation(self, weights: Tensor, values: Tensor) -> Tensor:
        """One scatter into (relation, target), so that no edge is copied once per relation."""
        count = len(self.selected)
        message = weights.unsqueeze(-1) * values.index_select(-2, self._source)
        into = self._relation.clamp(min=0) * (self.nodes + 1) + self._into
        total = message.new_zeros((count * (self.nodes + 1), message.shape[-1])).index_add(0, into, message)
        return total.unflatten(0, (count, self.nodes + 1))[:, :-1]

    def by_distance(self, edges: Tensor) -> Tensor:
        """Scatter every edge into the row of its target."""
        cells, width = self._node.numel(), 2 * self.reach + 1
        row = torch.where(self._into == self.nodes, cells, self._cell[self._target])
        total = edges.new_zeros((*edges.shape[:-1], (cells + self.nodes_per_utterance) * width))
        column = self._source - self._target + self.reach
        flat = total.index_add(-1, row * width + column, edges.expand(*edges.shape[:-1], self._into.shape[0]))
        return flat[..., : cells * width].unflatten(-1, (*self._node.shape, width))

    def edge_values(self, edges: Tensor) -> Tensor:
        """Already one column per edge."""
        return edges.expand(*edges.shape[:-1], self._into.shape[0])
