"""A convolution of PyTorch Geometric as a layer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

from mer_zoo.errors import MerZooError
from mer_zoo.kernel.base import Kernel


class Sage(nn.Module):
    r"""GraphSAGE (Hamilton et al. 2017, algorithm 1): $y_i = W x_i + V \frac{1}{|N(i)|}\sum_{j \in N(i)} x_j$.

    Inputs:
        x: float `[nodes, width]`; edges: kernel; weights: None.
    Outputs:
        float `[nodes, out_width]`.

    Args:
        width: width of x (a fact).
        out_width: width of the result.

    Raises:
        MerZooError: there are edge weights, which it has no use for.
    """

    def __init__(self, width: int, *, out_width: int = 64) -> None:
        super().__init__()
        self.out_width = out_width
        self.conv = SAGEConv(width, out_width)

    def forward(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Convolve, beside a node that only padding edges meet."""
        if weights is not None:
            raise MerZooError("it has no use for edge weights. Take their stage away.")
        return self.conv(F.pad(x, (0, 0, 0, 1)), edges.edge_index)[:-1]
