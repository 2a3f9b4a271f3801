"""The one file that imports dgl, with the remedy for its 2.1.0 wheel beside a current torch.

The wheel of dgl 2.1.0 fails on import three ways: it wants `setuptools.extern`, `torchdata.datapipes`, and a graphbolt
library tied to one torch version. None of the three is needed for graphs and message passing, so stubs take
their places before the import. dgl 1.1.3 needs nothing but `packaging`.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
import types
from typing import Any

from mer_zoo.errors import MerZooError


def _import() -> Any:
    os.environ.setdefault("DGLBACKEND", "pytorch")  # otherwise dgl writes a file into the user's home
    try:
        version = importlib.metadata.version("dgl")
    except importlib.metadata.PackageNotFoundError:
        raise MerZooError("dgl is not installed. `mer-zoo doctor` says which version to install, and how.") from None
    if version.startswith("2.1"):
        import packaging
        import packaging.version

        if "setuptools.extern" not in sys.modules:
            extern: Any = types.ModuleType("setuptools.extern")
            extern.packaging = packaging
            sys.modules["setuptools.extern"] = extern
            sys.modules["setuptools.extern.packaging"] = packaging
        sys.modules.setdefault("dgl.graphbolt", types.ModuleType("dgl.graphbolt"))
    try:
        import dgl
    except Exception as error:
        raise MerZooError(
            f"dgl {version} does not import: {type(error).__name__}: {error}. `mer-zoo doctor` says how to mend it."
        ) from error
    return dgl


dgl = _import()


def graph_of(edge_index: Any, dialogue: Any, **edge_data: Any) -> Any:
    """Return a batch of homogeneous `dgl.DGLGraph`s, one per dialogue, on the device of the edges.

    Args:
        edge_index: int64 `[2, edges]`, sources and targets, dialogue by dialogue.
        dialogue: int64 `[nodes]`, which each node belongs to.
        edge_data: a tensor `[edges, ...]` by name.

    Raises:
        MerZooError: the edges are on a GPU, and this DGL is built for CPUs.

    Example:
        >>> import torch
        >>> graph = graph_of(torch.tensor([[0, 1], [1, 1]]), torch.tensor([0, 0, 1]))
        >>> graph.in_degrees().tolist(), graph.batch_num_nodes().tolist()
        ([0, 2, 0], [2, 1])
    """
    device = edge_index.device
    if device.type == "cuda" and not is_for_cuda():
        raise MerZooError(
            f"this DGL ({dgl.__version__}) is built for CPUs alone and cannot hold a graph on {device}. Use "
            "`--device cpu`, a CUDA build of DGL, or the layer `pyg`, which has a convolution for most of DGL's."
        )
    graph = dgl.graph((edge_index[0], edge_index[1]), num_nodes=len(dialogue), device=device)
    sizes = dialogue.bincount()
    graph.set_batch_num_nodes(sizes)
    graph.set_batch_num_edges(dialogue[edge_index[1]].bincount(minlength=len(sizes)))
    graph.edata.update(edge_data)
    return graph


def is_for_cuda() -> bool:
    """Whether this DGL can hold graphs on a GPU.

    Example:
        >>> isinstance(is_for_cuda(), bool)
        True
    """
    try:
        return bool(dgl.ndarray.gpu(0).exist)
    except Exception:  # how it fails differs between builds
        return False
