"""Every modality of a dialogue as a block of its own: the layout of multimodal graphs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mer_zoo.batch.index import BatchIndex
from mer_zoo.batch.rearranging import rearranged
from mer_zoo.errors import MerZooError
from mer_zoo.kernel.base import Kernel, Propagation, Step
from mer_zoo.kernel.blocks import diagonals
from mer_zoo.kernel.masked_softmax import masked_softmax

if TYPE_CHECKING:
    from mer_zoo.graph.lowering import View


class Planes(Kernel):
    """A target's candidate sources: the L nodes of its modality in its dialogue, then the M nodes of its utterance.

    For graphs whose edges stay within a modality or within an utterance. Holds and multiplies a third of what `Dense`
    does for three modalities. Edge tensors are `[..., B, M, L, L + M]`.

    Raises:
        MerZooError: an edge joins different modalities of different utterances.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_edges
        >>> edges = tiny_edges(Planes)
        >>> edges.sum(edges.ones).tolist()
        [1.0, 2.0, 2.0]
    """

    def __init__(self, view: View, tables: Mapping[str, Tensor], index: BatchIndex, plan: Mapping[str, Tensor]) -> None:
        super().__init__(view, tables, index, plan)
        count, size = view.nodes_per_utterance, index.rows.shape[1]
        within = tables["within"][index.dialogues][..., :size, :size]
        across = tables["across"][index.dialogues][..., :size, :]
        more = (0, size - within.shape[-1], 0, size - within.shape[-2])
        across = F.pad(across, (0, 0, 0, size - across.shape[-2]))
        self._relation = torch.cat([F.pad(within, more), across], -1)  # [B, M, L, L + M], id + 1, 0 where there is none
        self._kinds, self._count, self._size = tables["kinds"], count, size

    @classmethod
    def holds(cls, view: View) -> bool:
        """Whether every edge stays within a modality or within an utterance."""
        count = view.nodes_per_utterance
        utterance = view.source // count == view.target // count
        return bool((utterance | (view.source % count == view.target % count)).all())

    @classmethod
    def tables(cls, view: View) -> dict[str, Tensor]:
        """Relation ids within modalities and across them, and an empty dialogue at the end."""
        cls._refuse_parallel_edges(view)
        if not cls.holds(view):
            raise MerZooError("kernel Planes cannot hold edges between modalities of different utterances. Use dense.")
        count, size = view.nodes_per_utterance, int(view.lengths.max(initial=0))
        kind = np.int16 if len(view.relations) > 254 else np.uint8
        within = np.zeros((len(view.lengths) + 1, count, size, size), kind)
        across = np.zeros((len(view.lengths) + 1, count, size, count), kind)
        dialogue = np.repeat(np.arange(len(view.lengths)), np.diff(view.pointer))
        (i, m), (j, n) = np.divmod(view.target, count), np.divmod(view.source, count)
        same = m == n
        within[dialogue[same], m[same], i[same], j[same]] = view.relation[same] + 1
        across[dialogue[~same], m[~same], i[~same], n[~same]] = view.relation[~same] + 1
        kinds = torch.tensor(view.selected) + 1
        return {"within": torch.from_numpy(within), "across": torch.from_numpy(across), "kinds": kinds}

    @cached_property
    def _there(self) -> Tensor:
        """Node at every place, `[B * M * L]`; one beyond the last where there is none."""
        number = torch.arange(self._count, device=self.index.rows.device).unsqueeze(-1)
        return (self.index.rows.unsqueeze(1) * self._count + number).clamp(max=self.nodes).flatten()

    @cached_property
    def _home(self) -> Tensor:
        """The inverse: place of every node, `[nodes]`."""
        cells, size, count = self.index.cells, self._size, self._count
        dialogue = torch.div(cells, size, rounding_mode="floor")
        number = torch.arange(count, device=cells.device)
        place = (dialogue.unsqueeze(-1) * count + number) * size + (cells - dialogue * size).unsqueeze(-1)
        return place.flatten().clamp(max=self._there.shape[0])

    def _planes(self, x: Tensor) -> Tensor:
        """`[..., nodes, d]` → `[..., B, M, L, d]`."""
        return rearranged(x, self._there, self._home).unflatten(-2, (-1, self._count, self._size))

    def _flat(self, x: Tensor) -> Tensor:
        """The inverse of `_planes`."""
        return rearranged(x.flatten(-4, -2), self._home, self._there)

    def source(self, x: Tensor) -> Tensor:
        """Values of the modality, the same for every target, then those of the utterance."""
        return self._spread(self._planes(x.unsqueeze(-1)).squeeze(-1))

    def _spread(self, planes: Tensor) -> Tensor:
        """`[..., B, M, L]` → `[..., B, M, L, L + M]`."""
        within = planes.unsqueeze(-2).expand(*planes.shape, self._size)
        across = planes.transpose(-1, -2).unsqueeze(-3).expand(*planes.shape, self._count)
        return torch.cat([within, across], -1)

    def target(self, x: Tensor) -> Tensor:
        """`[..., B, M, L, 1]`: broadcasts over sources."""
        return self._planes(x.unsqueeze(-1))

    @cached_property
    def one_hot(self) -> Tensor:
        """`[selected relations, B, M, L, L + M]`."""
        return (self._relation == self._kinds.view(-1, 1, 1, 1, 1)).float()

    @cached_property
    def ones(self) -> Tensor:
        """`[B, M, L, L + M]`."""
        return (self._relation > 0).float()

    @cached_property
    def _no_edge(self) -> Tensor:
        return self._relation == 0

    def dot(self, query: Tensor, key: Tensor) -> Tensor:
        """A product per modality, and a small one per utterance."""
        query, key = self._planes(query), self._planes(key)
        across = query.transpose(-2, -3) @ key.transpose(-2, -3).transpose(-1, -2)  # [..., B, L, M, M]
        return torch.cat([query @ key.transpose(-1, -2), across.transpose(-2, -3)], -1)

    def _softmax(self, scores: Tensor) -> Tensor:
        """Softmax over sources; a target without edges gets zeros."""
        return masked_softmax(scores, self.ones)

    def _softmax_outgoing(self, scores: Tensor) -> Tensor:
        """Largest scores and sums of a source are those of its column in its modality and of its utterance's places."""
        lowest = scores.masked_fill(self._no_edge, torch.finfo(scores.dtype).min)
        within, across = lowest.split([self._size, self._count], -1)
        top = torch.maximum(within.detach().amax(-2), across.detach().amax(-3).transpose(-1, -2))  # [B, M, L]
        weight = self.mask((lowest - self._spread(top)).exp())
        within, across = weight.split([self._size, self._count], -1)
        total = within.sum(-2) + across.sum(-3).transpose(-1, -2)
        return weight / self._spread(total).clamp(min=torch.finfo(scores.dtype).tiny)

    def sum(self, edges: Tensor) -> Tensor:
        """Sum over sources."""
        return self._flat(edges.sum(-1, keepdim=True)).squeeze(-1)

    def aggregate(self, weights: Tensor, values: Tensor) -> Tensor:
        """A product per modality, and a sum over the modalities of an utterance."""
        return self._flat(self._mix(weights)(self._planes(values)))

    def propagation(self, weights: Tensor) -> Propagation:
        """Part the weights once."""
        return self._laid(self._planes, self._mix(weights), self._flat)

    def _mix(self, weights: Tensor) -> Step:
        # contiguous parts: the gradient of a part is a copy of the whole
        within, across = (part.contiguous() for part in weights.split([self._size, self._count], -1))
        beside = across.unsqueeze(-1)  # [..., B, M, L, M, 1]
        return lambda x: within @ x + (beside * x.transpose(-2, -3).unsqueeze(-4)).sum(-2)

    def by_distance(self, edges: Tensor) -> Tensor:
        """Lay the edges out as `Dense` does, then move each row of a block to the left by one more than the last."""
        every = edges.expand(*edges.shape[:-4], *self._relation.shape)
        within, across = every.split([self._size, self._count], -1)
        block = within.movedim(-3, -1).diag_embed() + across.movedim(-2, -1).diag_embed().movedim((-4, -3), (-2, -1))
        block = block.transpose(-2, -3).flatten(-2).flatten(-3, -2)  # [..., B, L * M, L * M]
        return diagonals(F.pad(block, (self.reach, self.reach)))

    def edge_values(self, edges: Tensor) -> Tensor:
        """Columns of the edges, in the order of (dialogue, target, source)."""
        count, size = self._count, self._size
        every = edges.expand(*edges.shape[:-4], *self._relation.shape)
        within, across = every.split([size, count], -1)
        b, m, i, j = (self._relation[..., :size] > 0).nonzero().unbind(-1)
        columns, keys = [within[..., b, m, i, j]], [((b * size + i) * count + m) * size * count + j * count + m]
        b, m, i, n = (self._relation[..., size:] > 0).nonzero().unbind(-1)
        columns.append(across[..., b, m, i, n])
        keys.append(((b * size + i) * count + m) * size * count + i * count + n)
        return torch.cat(columns, -1)[..., torch.cat(keys).argsort()]
