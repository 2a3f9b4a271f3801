"""A fixed function of every number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.batch.index import Layout

Function = Literal["relu", "leaky_relu", "gelu", "silu", "tanh"]
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


class Activation(nn.Module):
    r"""Apply a fixed function: $y = f(x)$; `leaky_relu` has the slope 0.01.

    Inputs:
        x: float `[N, width]`; layout: unused.
    Outputs:
        float `[N, width]`.

    Args:
        width: width of x (a fact).
        function: `relu`, `leaky_relu`, `gelu`, `silu` or `tanh`.

    Example:
        >>> import torch
        >>> Activation(2)(torch.tensor([[-1.0, 1.0]]), None)
        tensor([[0., 1.]])
    """

    def __init__(self, width: int, *, function: Function = "relu") -> None:
        super().__init__()
        self.out_width = width
        self.function = function

    def forward(self, x: Tensor, layout: Layout | None) -> Tensor:
        """Apply it."""
        return FUNCTIONS[self.function](x)
