"""Which kernel a view gets when the user names none."""

from __future__ import annotations

from mer_zoo.graph.lowering import View
from mer_zoo.kernel.band import Band, chunk_size
from mer_zoo.kernel.base import Kernel
from mer_zoo.kernel.dense import Dense
from mer_zoo.kernel.planes import Planes
from mer_zoo.kernel.segment import Segment

SEGMENT_COST = 16
"""A gathered and scattered edge costs as much as this many entries of a block (`benchmarks/test_kernels.py`)."""

PLANES_FROM = 150
"""Nodes of the longest dialogue from which the cells that planes save outweigh their larger number of operations."""


def cheapest(view: View) -> type[Kernel]:
    """Return the kernel with the least work for a view: entries of its blocks, or edges times `SEGMENT_COST`."""
    if not view.is_simple:
        return Segment
    nodes = view.lengths * view.nodes_per_utterance
    cost: dict[type[Kernel], int] = {
        Segment: SEGMENT_COST * len(view.source),
        Dense: int(nodes.max(initial=0)) * int(nodes.sum()),
        Band: int(nodes.sum()) * (chunk_size(view.reach) + 2 * view.reach),
    }
    if nodes.max(initial=0) >= PLANES_FROM and view.nodes_per_utterance > 1 and Planes.holds(view):
        cost[Planes] = int(nodes.sum()) * (int(view.lengths.max(initial=0)) + view.nodes_per_utterance)
    return min(cost, key=lambda kernel: cost[kernel])
