"""The mean of several feature vectors that lie side by side."""

from __future__ import annotations

from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.errors import MerZooError


class ChunkMean(nn.Module):
    r"""Average K equal chunks of the features, such as layers of a language model: $y = \frac{1}{K}\sum_k x^k$ (M3Net).

    Inputs:
        x: float `[N, width]`; layout: unused.
    Outputs:
        float `[N, width / chunks]`.

    Args:
        width: width of x, divisible by `chunks` (a fact).
        chunks: how many.

    Raises:
        MerZooError: `chunks` does not divide the width.

    Example:
        >>> import torch
        >>> ChunkMean(4, chunks=2)(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), None)
        tensor([[2., 3.]])
    """

    def __init__(self, width: int, *, chunks: int = 1) -> None:
        super().__init__()
        if chunks < 1 or width % chunks:
            raise MerZooError(f"`chunks`: width {width} is not divisible by {chunks}.")
        self.out_width, self.chunks = width // chunks, chunks

    def forward(self, x: Tensor, layout: Layout | None) -> Tensor:
        """Average."""
        return x.unflatten(-1, (self.chunks, -1)).mean(-2)
