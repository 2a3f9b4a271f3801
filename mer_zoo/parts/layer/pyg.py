"""Any convolution of PyTorch Geometric."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.errors import MerZooError
from mer_zoo.kernel.base import Kernel
from mer_zoo.parts.ops.convolution import Convolution


class PyG(Convolution):
    """A convolution of PyTorch Geometric by its name, with the settings of its own signature.

    Widths and numbers of relations are filled in. `edge_weight` is given the weights, `edge_type` the relations, and
    edge attributes are the relation as a one-hot, times the weight. A convolution that wants a network is given one of
    two linear maps. The result of several heads has `out_width` together.

    Whether seeds can be stacked and steps captured depends on the convolution and its settings (`add_self_loops: false`
    often makes a step capturable) and is found out when the layer is made; the reference has a page that lists
    them all.

    Inputs:
        x: float `[nodes, width]`; edges: kernel; weights: masked edge tensor `[*edges]`, or None.
    Outputs:
        float `[nodes, out_width]`.

    Args:
        width: width of x (a fact).
        relations: names of all relations of the graph (a fact).
        conv: name of the convolution in `torch_geometric.nn`.
        out_width: width of the result, heads together; null: that of x.
        settings: those of the convolution.

    Raises:
        MerZooError: no such convolution; one that wants what a conversation's graph does not have; an `out_width` that
            it cannot give; weights that it does not take.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> PyG(6, edges.names, conv="GATv2Conv", out_width=8, heads=4)(batch.features["text"], edges, None).shape
        torch.Size([10, 8])
    """

    library = "PyTorch Geometric"
    fills = {  # noqa: RUF012
        **dict.fromkeys(("in_channels", "channels"), "width"),
        "out_channels": "out",
        **dict.fromkeys(("num_relations", "num_edge_types", "edge_dim", "in_edge_channels", "dim"), "relations"),
        "num_node_types": "one",
        "nn": "network",
    }
    gives = {  # noqa: RUF012
        **dict.fromkeys(("x", "x_0"), "x"),
        "edge_index": "edges",
        "edge_weight": "weight",
        "edge_attr": "attributes",
        "edge_type": "type",
        "node_type": "node_type",
        "batch": "dialogue",
    }

    def __init__(
        self,
        width: int,
        relations: tuple[str, ...],
        *,
        conv: str = "GATv2Conv",
        out_width: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(width, relations, conv=conv, out_width=out_width, **settings)

    @classmethod
    def convolutions(cls) -> dict[str, type]:
        """Return the convolutions of `torch_geometric.nn.conv` by name."""
        return dict(_convolutions())

    def structure(self, edge_index: Tensor, nodes: int) -> Tensor:
        """Return edges as they are."""
        return edge_index

    def convolve(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Convolve, beside a node that only padding edges meet."""
        dialogue = F.pad(edges.dialogue, (0, 1), value=edges.index.rows.shape[0])
        return self.convolved(F.pad(x, (0, 0, 0, 1)), edges.edge_index, edges.edge_type, weights, dialogue)[:-1]


@functools.cache
def _convolutions() -> dict[str, type]:
    try:
        import torch_geometric.nn.conv as conv
        from torch_geometric.nn import MessagePassing
    except ImportError:
        raise MerZooError("PyTorch Geometric is not installed. Run `pip install 'mer-zoo[pyg]'`.") from None
    found = {name: getattr(conv, name) for name in conv.__all__}
    return {
        n: c for n, c in found.items() if inspect.isclass(c) and issubclass(c, nn.Module) and c is not MessagePassing
    }
