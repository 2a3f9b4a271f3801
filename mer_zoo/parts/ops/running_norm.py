"""Normalisation by the statistics of a batch, over the rows that count."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MOMENTUM = 0.1
"""Share of a new batch in the running means, as everywhere in the literature."""


class RunningNorm(nn.Module):
    r"""Bring every feature to unit scale over the rows that count (Ioffe and Szegedy 2015, algorithms 1 and 2).

    $$y = \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta$$
    with mean and variance of the batch in training, and running means of them in evaluation.

    Inputs:
        x: float `[rows, width]`; counts: float `[rows]`, 1 for the rows that count, else 0.
    Outputs:
        float `[rows, width]`.

    Args:
        width: width of x.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        """Normalise."""
        mean, variance = self.mean, self.variance
        if self.training:
            total = counts.sum().clamp(min=1)
            mean = counts @ x / total
            variance = counts @ (x - mean).square() / total
            with torch.no_grad():
                unbiased = variance * (total / (total - 1).clamp(min=1))
                self.mean.mul_(1 - MOMENTUM).add_(MOMENTUM * mean)
                self.variance.mul_(1 - MOMENTUM).add_(MOMENTUM * unbiased)
        return (x - mean) * (variance + 1e-5).rsqrt() * self.weight + self.bias
