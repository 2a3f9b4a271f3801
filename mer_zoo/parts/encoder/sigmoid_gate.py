"""A gate on every feature."""

from __future__ import annotations

from torch import Tensor, nn

from mer_zoo.batch.index import Layout


class SigmoidGate(nn.Module):
    r"""Let each utterance damp its own features: $y = x \odot \sigma(W x + b)$ (AMB-DSGDN; SDT eq. 9).

    Inputs:
        x: float `[N, width]`; layout: unused.
    Outputs:
        float `[N, width]`.

    Args:
        width: width of x (a fact).

    Example:
        >>> import torch
        >>> SigmoidGate(3)(torch.ones(2, 3), None).shape
        torch.Size([2, 3])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_width = width
        self.map = nn.Linear(width, width)

    def forward(self, x: Tensor, layout: Layout | None) -> Tensor:
        """Gate."""
        return x * self.map(x).sigmoid()
