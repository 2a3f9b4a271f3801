"""Any convolution of DGL."""

from __future__ import annotations

import functools
import importlib
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from mer_zoo.kernel.base import Kernel
from mer_zoo.parts.ops.convolution import Convolution


class DGL(Convolution):
    """A convolution of DGL by its name, with the settings of its own signature.

    Widths and numbers of relations are filled in. `edge_weight` is given the weights, `etypes` the relations, and edge
    features are the relation as a one-hot, times the weight. Nodes without edges are allowed. The result of several
    heads has `out_width` together; the page of convolutions in the reference lists them all.

    DGL's operations are its own: seeds are trained one by one, no step is captured, and a GPU takes a CUDA build of
    DGL. The layer `pyg` has a convolution for most of DGL's without these limits.

    Inputs:
        x: float `[nodes, width]`; edges: kernel; weights: masked edge tensor `[*edges]`, or None.
    Outputs:
        float `[nodes, out_width]`.

    Args:
        width: width of x (a fact).
        relations: names of all relations of the graph (a fact).
        conv: name of the convolution in `dgl.nn.pytorch`.
        out_width: width of the result, heads together; null: that of x.
        settings: those of the convolution.

    Raises:
        MerZooError: no such convolution; one that wants what a conversation's graph does not have; an `out_width` that
            it cannot give; weights that it does not take; a GPU, where this DGL is built for CPUs.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> DGL(6, edges.names, conv="SAGEConv", out_width=8, aggregator_type="mean")(
        ...     batch.features["text"], edges, None
        ... ).shape
        torch.Size([10, 8])
    """

    library = "DGL"
    mappable = False
    fills = {  # noqa: RUF012
        **dict.fromkeys(("in_feats", "in_feat", "in_size", "in_node_feats", "node_in_feats", "input_d", "d"), "width"),
        **dict.fromkeys(("out_feats", "out_feat", "out_size", "out_node_feats", "out_edge_feats", "output_d"), "out"),
        **dict.fromkeys(("input_feats",), "width"),
        **dict.fromkeys(("output_feats", "head_size"), "out"),
        **dict.fromkeys(("num_rels", "n_etypes", "num_etypes"), "relations"),
        **dict.fromkeys(("edge_in_feats", "in_edge_feats", "edge_feats", "edge_feat_size", "dim"), "relations"),
        "num_ntypes": "one",
        "allow_zero_in_degree": "yes",
        "edge_func": "network",
    }
    gives = {  # noqa: RUF012
        **dict.fromkeys(("graph", "g"), "edges"),
        **dict.fromkeys(("feat", "node_feat", "nfeats", "node_feats", "x", "X", "feat_0"), "x"),
        "edge_weight": "weight",
        **dict.fromkeys(("efeat", "efeats", "edge_feat", "edge_feats", "pseudo"), "attributes"),
        **dict.fromkeys(("etypes", "etype"), "type"),
        "ntype": "node_type",
    }

    def __init__(
        self,
        width: int,
        relations: tuple[str, ...],
        *,
        conv: str = "RelGraphConv",
        out_width: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(width, relations, conv=conv, out_width=out_width, **settings)

    @classmethod
    def convolutions(cls) -> dict[str, type]:
        """Return the convolutions of `dgl.nn.pytorch.conv` by name."""
        return dict(_convolutions())

    def structure(self, edge_index: Tensor, nodes: int) -> Any:
        """Return a `dgl.DGLGraph`."""
        from mer_zoo.graph.dgl_import import graph_of

        return graph_of(edge_index, torch.zeros(nodes, dtype=torch.int64))

    def convolve(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Convolve without padding edges."""
        graph = edges.dgl_graph()
        if weights is not None:
            weights = weights[graph.edata["number"]]
        return self.convolved(x, graph, graph.edata["relation"], weights, edges.dialogue)


@functools.cache
def _convolutions() -> dict[str, type]:
    from mer_zoo.graph.dgl_import import dgl

    conv = importlib.import_module(f"{dgl.__name__}.nn.pytorch.conv")
    return {n: c for n, c in vars(conv).items() if inspect.isclass(c) and issubclass(c, nn.Module)}
