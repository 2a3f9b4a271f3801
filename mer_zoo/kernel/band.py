"""The whole batch as one ribbon of overlapping chunks: the layout of windowed graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mer_zoo.batch.index import BatchIndex
from mer_zoo.kernel.blocks import Blocks, diagonals

if TYPE_CHECKING:
    from mer_zoo.graph.lowering import View


class Band(Blocks):
    """Chunks of consecutive nodes, each with the nodes within reach on both sides as candidate sources.

    Dialogues lie end to end without padding; an edge never crosses from one to the next because its relation id is 0
    there. Cost and memory are linear in the number of utterances, however long a dialogue is.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_edges
        >>> edges = tiny_edges(Band)
        >>> edges.sum(edges.ones).tolist()
        [1.0, 2.0, 2.0]
    """

    def __init__(self, view: View, tables: Mapping[str, Tensor], index: BatchIndex, plan: Mapping[str, Tensor]) -> None:
        super().__init__(view, tables, index, plan)
        self._kinds = tables["kinds"]
        self._chunk = chunk_size(view.reach)
        self._chunks = -(-self.nodes // self._chunk)
        self._padding = self._chunks * self._chunk - self.nodes
        rows = tables["relation"][index.utterances].flatten(0, 1)  # [nodes, 2 reach + 1]
        rows = F.pad(rows, (0, self._chunk, 0, self._padding)).unflatten(0, (self._chunks, self._chunk))
        # each row moves one column further than the one above: read the padded rows with a width shorter by one
        flat = rows.flatten(1)[:, : self._chunk * (self._chunk + 2 * self.reach)]
        self._relation = flat.unflatten(1, (self._chunk, self._chunk + 2 * self.reach))

    @classmethod
    def tables(cls, view: View) -> dict[str, Tensor]:
        """Relation ids by utterance, node type and distance, and an utterance without edges at the end."""
        cls._refuse_parallel_edges(view)
        count, reach = view.nodes_per_utterance, view.reach
        starts = np.concatenate([[0], np.cumsum(view.lengths)])
        table = np.zeros(((starts[-1] + 1) * count, 2 * reach + 1), np.int16 if len(view.relations) > 254 else np.uint8)
        offset = np.repeat(starts[:-1] * count, np.diff(view.pointer))
        table[offset + view.target, view.source - view.target + reach] = view.relation + 1
        relation = torch.from_numpy(table).unflatten(0, (-1, count))
        return {"relation": relation, "kinds": torch.tensor(view.selected) + 1}

    def _sources(self, x: Tensor) -> Tensor:
        # a chunk and the beginning of the next, both shifted by the reach; a strided view's gradient would be a scatter
        shifted = F.pad(x, (0, 0, self.reach, self._padding + self._chunk - self.reach))
        chunks = shifted.unflatten(-2, (self._chunks + 1, self._chunk))
        return torch.cat([chunks[..., :-1, :, :], chunks[..., 1:, : 2 * self.reach, :]], -2)

    def _targets(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, self._padding)).unflatten(-2, (self._chunks, self._chunk))

    def _back(self, x: Tensor) -> Tensor:
        return x.flatten(-3, -2)[..., : self.nodes, :]

    def by_distance(self, edges: Tensor) -> Tensor:
        """Undo the skew of every chunk, then lay its targets out by dialogue."""
        rows = diagonals(edges.expand(*edges.shape[:-3], *self._relation.shape))
        return self.pad(self._back(rows))


def chunk_size(reach: int) -> int:
    """Return how many targets share a chunk: as many as there are sources within reach, and at least 16."""
    return max(16, 2 * reach)
