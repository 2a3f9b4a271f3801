"""Every dialogue as one full block: the layout of complete graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mer_zoo.batch.index import BatchIndex
from mer_zoo.kernel.base import Propagation
from mer_zoo.kernel.blocks import Blocks, diagonals

if TYPE_CHECKING:
    from mer_zoo.graph.lowering import View


class Dense(Blocks):
    """A block is a dialogue, padded to the longest of the batch; cost grows with the square of its length.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_edges
        >>> edges = tiny_edges(Dense)
        >>> edges.sum(edges.ones).tolist()
        [1.0, 2.0, 2.0]
    """

    def __init__(self, view: View, tables: Mapping[str, Tensor], index: BatchIndex, plan: Mapping[str, Tensor]) -> None:
        super().__init__(view, tables, index, plan)
        self._kinds = tables["kinds"]
        size = index.rows.shape[1] * view.nodes_per_utterance
        relation = tables["relation"][index.dialogues][:, :size, :size]
        self._relation = torch.nn.functional.pad(relation, (0, size - relation.shape[2], 0, size - relation.shape[1]))

    @classmethod
    def tables(cls, view: View) -> dict[str, Tensor]:
        """Relation ids of every dialogue, padded to the longest, and an empty dialogue at the end."""
        cls._refuse_parallel_edges(view)
        size = int(view.lengths.max(initial=0)) * view.nodes_per_utterance
        block = np.zeros((len(view.lengths) + 1, size, size), np.int16 if len(view.relations) > 254 else np.uint8)
        dialogue = np.repeat(np.arange(len(view.lengths)), np.diff(view.pointer))
        block[dialogue, view.target, view.source] = view.relation + 1
        return {"relation": torch.from_numpy(block), "kinds": torch.tensor(view.selected) + 1}

    def _sources(self, x: Tensor) -> Tensor:
        return self.pad(x)

    _targets = _sources

    def _back(self, x: Tensor) -> Tensor:
        return self.unpad(x)

    def propagation(self, weights: Tensor) -> Propagation:
        """One matrix product."""
        return self._laid(self.pad, lambda values: weights @ values, self.unpad)

    def by_distance(self, edges: Tensor) -> Tensor:
        """Move each row of a block to the left by one more than the row above."""
        return diagonals(F.pad(edges.expand(*edges.shape[:-3], *self._relation.shape), (self.reach, self.reach)))
