"""A linear map of every utterance."""

from __future__ import annotations

from torch import Tensor, nn

from mer_zoo.batch.index import Layout


class Linear(nn.Module):
    r"""Project every utterance on its own: $y = W x + b$.

    Inputs:
        x: float `[N, width]`; layout: unused.
    Outputs:
        float `[N, out_width]`.

    Args:
        width: width of x (a fact).
        out_width: width of the result.

    Example:
        >>> import torch
        >>> Linear(3, out_width=5)(torch.ones(2, 3), None).shape
        torch.Size([2, 5])
    """

    def __init__(self, width: int, *, out_width: int = 128) -> None:
        super().__init__()
        self.out_width = out_width
        self.map = nn.Linear(width, out_width)

    def forward(self, x: Tensor, layout: Layout | None) -> Tensor:
        """Project."""
        return self.map(x)
