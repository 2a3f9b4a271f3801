"""DGL's own message passing: the oracle on CPU, and a choice on GPU for those with a CUDA build of DGL."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mer_zoo.batch.index import BatchIndex
from mer_zoo.kernel.segment import Segment

if TYPE_CHECKING:
    from mer_zoo.graph.lowering import View


class DGL(Segment):
    """Edge tensors are `[..., edges]` as in `Segment`; softmax, products and sums are `dgl.ops`.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_edges
        >>> edges = tiny_edges(DGL)
        >>> edges.sum(edges.ones).tolist()
        [1.0, 2.0, 2.0]
    """

    foreign = True

    def __init__(self, view: View, tables: Mapping[str, Tensor], index: BatchIndex, plan: Mapping[str, Tensor]) -> None:
        super().__init__(view, tables, index, plan)
        self._device = index.utterances.device

    @cached_property
    def _ops(self) -> Any:
        from mer_zoo.graph.dgl_import import dgl

        return dgl.ops

    @cached_property
    def _graph(self) -> Any:
        from mer_zoo.graph.dgl_import import dgl

        return dgl.graph((self._source, self._into), num_nodes=self.nodes, device=self._device)

    def dot(self, query: Tensor, key: Tensor) -> Tensor:
        """`u_dot_v`."""
        out = self._ops.gsddmm(
            self._graph, "dot", key.movedim(-2, 0).contiguous(), query.movedim(-2, 0).contiguous(), "u", "v"
        )
        return out.squeeze(-1).movedim(0, -1)

    def _softmax(self, scores: Tensor) -> Tensor:
        """`edge_softmax`."""
        columns = scores.expand(*scores.shape[:-1], self._into.shape[0])
        return self._ops.edge_softmax(self._graph, columns.movedim(-1, 0).contiguous()).movedim(0, -1)

    def _softmax_outgoing(self, scores: Tensor) -> Tensor:
        """`edge_softmax`, normalised by source."""
        return self._ops.edge_softmax(self._graph, scores, norm_by="src")

    def sum(self, edges: Tensor) -> Tensor:
        """`copy_e_sum`."""
        return self._ops.copy_e_sum(self._graph, edges.movedim(-1, 0).contiguous()).movedim(0, -1)

    def aggregate(self, weights: Tensor, values: Tensor) -> Tensor:
        """`u_mul_e_sum`."""
        heads = max(weights.shape[0], values.shape[0])
        w = weights.expand(heads, *weights.shape[1:]).movedim(-1, 0).unsqueeze(-1).contiguous()
        v = values.expand(heads, *values.shape[1:]).movedim(-2, 0).contiguous()
        return self._ops.u_mul_e_sum(self._graph, v, w).movedim(0, -2)

    def aggregate_by_relation(self, weights: Tensor, values: Tensor) -> Tensor:
        """One head per relation."""
        return self.aggregate(weights * self.one_hot.to(weights.dtype), values.unsqueeze(0))
