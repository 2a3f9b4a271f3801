"""Every dialogue as one full block: the layout of complete graphs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from mer_zoo.kernels.base import BatchIndex
from mer_zoo.kernels.blocks import Blocks

if TYPE_CHECKING:
    from mer_zoo.graph.lowering import View


class Dense(Blocks):
    """A block is a dialogue, padded to the longest of the batch; cost grows with the square of its length.

    Example:
        >>> from mer_zoo.kernels.testing import tiny
        >>> edges = tiny(Dense)
        >>> edges.sum(edges.ones).tolist()
        [1.0, 2.0, 2.0]
    """

    def __init__(self, view: View, tables: Mapping[str, Tensor], index: BatchIndex, plan: Mapping[str, Tensor]) -> None:
        super().__init__(view, tables, index, plan)
        count = view.nodes_per_utterance
        size = index.rows.shape[1] * count
        slots = torch.arange(count, device=index.rows.device)
        # a place without an utterance has row N, so its nodes lie at N·M and beyond: clipped to one row of zeros
        self._node = (index.rows.unsqueeze(-1) * count + slots).flatten(-2).clamp(max=self.nodes)
        self._cell = (index.cells.unsqueeze(-1) * count + slots).flatten(-2)
        self._relation = tables["relation"][index.dialogues][:, :size, :size]

    @classmethod
    def tables(cls, view: View) -> dict[str, Tensor]:
        """Relation ids of every dialogue, padded to the longest, and an empty dialogue at the end."""
        size = int(view.lengths.max(initial=0)) * view.nodes_per_utterance
        block = np.zeros((len(view.lengths) + 1, size, size), np.int16 if len(view.relations) > 254 else np.uint8)
        dialogue = np.repeat(np.arange(len(view.lengths)), np.diff(view.pointer))
        block[dialogue, view.target, view.source] = view.relation + 1
        return {"relation": torch.from_numpy(block)}

    def _sources(self, x: Tensor) -> Tensor:
        padded = torch.nn.functional.pad(x, (0, 0, 0, 1))
        return padded.index_select(-2, self._node.flatten()).unflatten(-2, self._node.shape)

    _targets = _sources

    def _back(self, x: Tensor) -> Tensor:
        flat = torch.nn.functional.pad(x.flatten(-3, -2), (0, 0, 0, self.nodes_per_utterance))
        return flat.index_select(-2, self._cell)
