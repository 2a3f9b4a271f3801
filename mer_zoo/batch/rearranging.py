"""Moving rows to other places and back, both ways by reading alone."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class _Rearranged(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, there: Tensor, back: Tensor) -> Tensor:
        return F.pad(x, (0, 0, 0, 1)).index_select(-2, there)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(inputs[1], inputs[2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        there, back = ctx.saved_tensors
        return rearranged(gradient, back, there), None, None


def rearranged(x: Tensor, there: Tensor, back: Tensor) -> Tensor:
    """Read rows at other places: `[..., n, d]` → `[..., m, d]`, zeros where `there` is n.

    The gradient reads by `back`: the general one of a look-up adds up, which is slow on CPU and in no fixed order on a
    GPU.

    Args:
        x: float `[..., n, d]`; there: int64 `[m]`, rows of x, each at most once, or n; back: int64 `[n]`, the inverse.

    Example:
        >>> x = torch.tensor([[5.0], [6.0]])
        >>> rearranged(x, torch.tensor([1, 2, 0]), torch.tensor([2, 0])).flatten().tolist()
        [6.0, 0.0, 5.0]
    """
    return _Rearranged.apply(x, there, back)
