"""A linear map of every utterance and a fixed function behind it."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.encoder.activation import FUNCTIONS

Function = Literal["none", "relu", "leaky_relu", "gelu", "silu", "tanh"]


class Dense(nn.Module):
    r"""Map every utterance on its own: $y = f(W x + b)$; with `repeat`, a multilayer perceptron.

    Inputs:
        x: float `[N, width]`; layout: unused.
    Outputs:
        float `[N, out_width]`.

    Args:
        width: width of x (a fact).
        out_width: width of the result.
        function: f, one of those of `activation`, or `none`.
        bias: add b.

    Example:
        >>> import torch
        >>> Dense(3, out_width=5)(torch.ones(2, 3), None).shape
        torch.Size([2, 5])
    """

    def __init__(self, width: int, *, out_width: int = 128, function: Function = "relu", bias: bool = True) -> None:
        super().__init__()
        self.out_width, self.function = out_width, FUNCTIONS.get(function)
        self.map = nn.Linear(width, out_width, bias=bias)

    def forward(self, x: Tensor, layout: Layout | None) -> Tensor:
        """Map."""
        y = self.map(x)
        return y if self.function is None else self.function(y)
