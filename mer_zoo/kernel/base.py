"""Message passing as layers see it: a few operations on the edges of a batch, whatever their layout in memory."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mer_zoo.batch import launch_cost
from mer_zoo.batch.index import BatchIndex
from mer_zoo.batch.looking import looked
from mer_zoo.batch.rearranging import rearranged
from mer_zoo.errors import MerZooError

if TYPE_CHECKING:
    from mer_zoo.graph.lowering import View

Step = Callable[[Tensor], Tensor]


@dataclass
class Propagation:
    """Messages passed many times with the same weights.

    Attributes:
        enter: `[heads, nodes, d]` → states as the kernel computes with them, `[heads, *rows, d]`, zeros where there is
            no node.
        send: passes messages, from such states to such states.
        leave: the inverse of `enter`.
    """

    enter: Step
    send: Step
    leave: Step


def _as_is(x: Tensor) -> Tensor:
    return x


class Kernel(abc.ABC):
    """Base of all kernels: the edges of one view in one batch.

    *Edge tensors* have shape `[..., *edges]`, where `*edges` is the kernel's own layout; leading dimensions are heads
    or channels. They add, multiply and drop out element by element like any tensor, and dimensions of size one
    broadcast. Off the edges their content is arbitrary until `mask` or `softmax` sets it to zero.

    Args:
        view: the lowered edges of the whole corpus.
        tables: what `tables(view)` made, on the device.
        index: the batch.
        plan: what `plan(view, ...)` made for this batch, on the device.
    """

    foreign = False
    """Whether operations are not torch's, and so are neither mapped by `torch.func.vmap` nor captured."""

    def __init__(self, view: View, tables: Mapping[str, Tensor], index: BatchIndex, plan: Mapping[str, Tensor]) -> None:
        self.names = view.relations
        self.selected = view.selected
        self.relations = len(view.relations)
        self.nodes_per_utterance = view.nodes_per_utterance
        self.nodes = index.utterances.shape[0] * view.nodes_per_utterance
        self.reach = view.reach
        self.index = index
        self.own = tuple(view.own.max(0, initial=1).tolist())  # places for nodes of each type, in every dialogue
        self._joins, self._parts = plan.get("there"), plan.get("back")

    @classmethod
    @abc.abstractmethod
    def tables(cls, view: View) -> dict[str, Tensor]:
        """Return the tensors that the whole corpus needs, made once and uploaded once.

        Raises:
            MerZooError: the layout cannot hold the view's edges.
        """

    @classmethod
    def _refuse_parallel_edges(cls, view: View) -> None:
        if not view.is_simple:
            raise MerZooError(
                f"kernel {cls.__name__} cannot hold several edges between the same two nodes. Use segment."
            )

    @classmethod
    def plan(
        cls, view: View, dialogues: np.ndarray, starts: np.ndarray, utterances: int, edges: int = 0
    ) -> dict[str, np.ndarray]:
        """Return the index arrays one batch needs beyond `BatchIndex` (host side, no loop over utterances).

        Args:
            view: the lowered edges.
            dialogues: numbers of the dialogues; beyond the last for a place holder.
            starts: first utterance of each in the batch.
            utterances: utterances in the batch, padding included.
            edges: pad a list of edges to this many.
        """
        return {}

    @classmethod
    def count(cls, view: View, dialogues: np.ndarray) -> int:
        """Return how many edges a batch lists; 0 for layouts whose size follows from the utterances."""
        return 0

    @abc.abstractmethod
    def source(self, x: Tensor) -> Tensor:
        """Give every edge its source's value: `[..., nodes]` → `[..., *edges]`."""

    @abc.abstractmethod
    def target(self, x: Tensor) -> Tensor:
        """Give every edge its target's value: `[..., nodes]` → `[..., *edges]`."""

    @property
    @abc.abstractmethod
    def one_hot(self) -> Tensor:
        """1 where an edge has the relation, float32 `[selected relations, *edges]`."""

    @cached_property
    def ones(self) -> Tensor:
        """1 on every edge, 0 elsewhere, float32 `[*edges]`."""
        return self.one_hot.sum(0)

    def mask(self, edges: Tensor) -> Tensor:
        """Set an edge tensor to zero off the edges."""
        return edges * self.ones.to(edges.dtype)

    def relation(self, table: Tensor) -> Tensor:
        """Give every edge its relation's value: `[..., relations]` → `[..., *edges]`; zero off the edges.

        A product with a one-hot: its gradient is a product too, where that of a look-up is a scatter.
        """
        one_hot = self.one_hot
        flat = self.pick(table) @ one_hot.to(table.dtype).flatten(1)
        return flat.unflatten(-1, one_hot.shape[1:])

    def pick(self, table: Tensor, dim: int = -1) -> Tensor:
        """Keep the entries of the selected relations along a dimension of size `relations`."""
        if len(self.selected) == self.relations:
            return table
        return torch.stack([table.select(dim, number) for number in self.selected], dim)

    @abc.abstractmethod
    def dot(self, query: Tensor, key: Tensor) -> Tensor:
        """Scalar product of the target's query with the source's key: two `[heads, nodes, d]` → `[heads, *edges]`."""

    def softmax(self, scores: Tensor) -> Tensor:
        """Softmax over the edges that enter a node, `[..., *edges]`; zero off the edges. It is attention, and told."""
        return looked(self._softmax(scores), self)

    def softmax_outgoing(self, scores: Tensor) -> Tensor:
        """Softmax over the edges that leave a node, `[*edges]`; zero off the edges. It is attention, and told."""
        return looked(self._softmax_outgoing(scores), self, "outgoing")

    @abc.abstractmethod
    def _softmax(self, scores: Tensor) -> Tensor:
        """What `softmax` says."""

    @abc.abstractmethod
    def _softmax_outgoing(self, scores: Tensor) -> Tensor:
        """What `softmax_outgoing` says."""

    @abc.abstractmethod
    def sum(self, edges: Tensor) -> Tensor:
        """Sum a masked edge tensor over the edges that enter a node: `[..., *edges]` → `[..., nodes]`."""

    @abc.abstractmethod
    def aggregate(self, weights: Tensor, values: Tensor) -> Tensor:
        """Weighted sum over incoming edges: masked `[heads, *edges]`, `[heads, nodes, d]` → `[heads, nodes, d]`."""

    def propagation(self, weights: Tensor) -> Propagation:
        """Return `aggregate` with these weights, prepared once for a layer that passes messages many times."""
        return Propagation(_as_is, lambda values: self.aggregate(weights, values), _as_is)

    def _laid(self, enter: Step, send: Step, leave: Step) -> Propagation:
        """Stay in a padded layout where launches cost more than padding; else leave it after every step."""
        if launch_cost.is_costly(self.index.rows.device):
            return Propagation(enter, send, leave)
        return Propagation(_as_is, lambda values: leave(send(enter(values))), _as_is)

    def aggregate_by_relation(self, weights: Tensor, values: Tensor) -> Tensor:
        """Weighted sum, each relation apart: masked `[*edges]`, `[nodes, d]` → `[selected relations, nodes, d]`."""
        return self.aggregate(weights * self.one_hot.to(weights.dtype), values.unsqueeze(0))

    def join(self, states: Sequence[Tensor]) -> Tensor:
        """Lay the states of its node types out as nodes: `[N, d]` each, those of its own last → `[nodes, d]`."""
        count = self.nodes_per_utterance
        x = states[0] if count == 1 else torch.stack(list(states[:count]), 1).flatten(0, 1)
        if self._joins is None or self._parts is None:
            return x
        return rearranged(torch.cat([x, *states[count:]]), self._joins, self._parts)

    def part(self, x: Tensor) -> Sequence[Tensor]:
        """The inverse of `join`."""
        count, own = self.nodes_per_utterance, []
        if self._joins is not None and self._parts is not None:
            sizes = [self.index.dialogues.shape[0] * places for places in self.own]
            x, *own = rearranged(x, self._parts, self._joins).split([self._parts.shape[0] - sum(sizes), *sizes])
        return [*([x] if count == 1 else x.unflatten(0, (-1, count)).unbind(1)), *own]

    @cached_property
    def is_node(self) -> Tensor:
        """Whether there is a node, bool `[nodes]`: not in rows that belong to no dialogue."""
        if self._joins is not None and self._parts is not None:
            return self._joins < self._parts.shape[0]
        real = self.index.cells < self.index.rows.numel()
        return real if self.nodes_per_utterance == 1 else real.repeat_interleave(self.nodes_per_utterance)

    @cached_property
    def is_own(self) -> Tensor:
        """Whether a node is one of the builder's own, bool `[nodes]`."""
        if self._joins is None or self._parts is None:
            return torch.zeros_like(self.is_node)
        return self.is_node & (self._joins >= self._parts.shape[0] - self.index.dialogues.shape[0] * sum(self.own))

    @cached_property
    def edge_index(self) -> Tensor:
        """Sources and targets as PyTorch Geometric has them, int64 `[2, edges]`, in the order of `edge_values`.

        A batch of a fixed shape may list padding edges: they run from and to a node one beyond the last. So give what
        takes this index one row more, `F.pad(x, (0, 0, 0, 1))`, and take it off its result.
        """
        number = torch.arange(self.nodes, device=self.index.rows.device, dtype=torch.float64)
        return torch.stack([self.edge_values(self.source(number)), self.edge_values(self.target(number))]).long()

    @cached_property
    def edge_type(self) -> Tensor:
        """Number of every edge's relation among `names`, int64 `[edges]`; 0 for padding edges."""
        number = torch.arange(self.relations, device=self.index.rows.device, dtype=torch.float32)
        return self.edge_values(self.relation(number)).long()

    @cached_property
    def dialogue(self) -> Tensor:
        """Which dialogue of the batch a node belongs to, int64 `[nodes]`; beyond the last for rows of none."""
        cells = torch.div(self.index.cells, self.index.rows.shape[1], rounding_mode="floor")
        return cells if self.nodes_per_utterance == 1 else cells.repeat_interleave(self.nodes_per_utterance)

    def dgl_graph(self) -> Any:
        """Return the edges as a `dgl.DGLGraph`, a batch of dialogues, without padding edges.

        `edata["relation"]` is `edge_type`, `edata["number"]` the place in `edge_index` and in `edge_values(weights)`.

        Raises:
            MerZooError: the batch is on a GPU, and this DGL is built for CPUs.
        """
        if "_dgl_graph" not in self.__dict__:
            from mer_zoo.graph.dgl_import import graph_of

            number = (self.edge_index[0] < self.nodes).nonzero().squeeze(-1)
            edges, relation = self.edge_index[:, number], self.edge_type[number]
            self._dgl_graph = graph_of(edges, self.dialogue, relation=relation, number=number)
        return self._dgl_graph

    @cached_property
    def _node(self) -> Tensor:
        """Node at every place of the padded layout, `[B, L * M]`; one beyond the last where there is none."""
        count, rows = self.nodes_per_utterance, self.index.rows
        if count == 1:
            return rows
        return (rows.unsqueeze(-1) * count + torch.arange(count, device=rows.device)).flatten(-2).clamp(max=self.nodes)

    @cached_property
    def _cell(self) -> Tensor:
        """The inverse: place of every node, `[nodes]`; `B * L * M` for padding."""
        count, cells = self.nodes_per_utterance, self.index.cells
        if count == 1:
            return cells
        places = (cells.unsqueeze(-1) * count + torch.arange(count, device=cells.device)).flatten(-2)
        return places.clamp(max=self.index.rows.numel() * count)

    def pad(self, x: Tensor) -> Tensor:
        """Lay nodes out by dialogue: `[..., nodes, d]` → `[..., B, L * M, d]`, zeros where there is none."""
        return rearranged(x, self._node.flatten(), self._cell).unflatten(-2, self._node.shape)

    def unpad(self, x: Tensor) -> Tensor:
        """The inverse of `pad`: `[..., B, L * M, d]` → `[..., nodes, d]`."""
        return rearranged(x.flatten(-3, -2), self._cell, self._node.flatten())

    @abc.abstractmethod
    def by_distance(self, edges: Tensor) -> Tensor:
        """Lay a masked edge tensor out by dialogue, target and distance, for layers that walk along a dialogue.

        `[..., *edges]` → `[..., B, L * M, 2 reach + 1]`; the last index is `source - target + reach`.
        """

    @abc.abstractmethod
    def edge_values(self, edges: Tensor) -> Tensor:
        """Return one column per edge in the order of (target, source): `[..., *edges]` → `[..., edges]` (for tests)."""
