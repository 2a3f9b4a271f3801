"""Normalisation by the statistics of the batch, over all nodes of its graphs."""

from __future__ import annotations

from torch import Tensor, nn

from mer_zoo.kernel.base import Kernel
from mer_zoo.parts.ops.running_norm import RunningNorm


class BatchNorm(nn.Module):
    r"""As the encoder `batch_norm`, over the nodes of all modalities together that the graph connects (CORECT §3.3).

    $$y = \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta$$

    Inputs:
        x: float `[nodes, width]`; edges: kernel; weights: ignored.
    Outputs:
        float `[nodes, width]`.

    Args:
        width: width of x (a fact).

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> BatchNorm(6)(batch.features["text"], next(iter(batch.views.values())), None).shape
        torch.Size([10, 6])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_width = width
        self.norm = RunningNorm(width)

    def forward(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Normalise."""
        return self.norm(x, edges.is_node.to(x.dtype))
