"""Softmax over the edges among many cells, with few passes over memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _MaskedSoftmax(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(scores: Tensor, ones: Tensor) -> Tensor:
        lowest = torch.finfo(scores.dtype).min / 2  # half of it: adding scores to it stays finite
        return (scores + (1 - ones) * lowest).softmax(-1) * ones

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (output,) = ctx.saved_tensors  # zero off the edges, and so is what follows
        return torch._softmax_backward_data(gradient, output, -1, output.dtype), None


def masked_softmax(scores: Tensor, ones: Tensor) -> Tensor:
    """Softmax over the last dimension among cells that are edges; zero elsewhere, also where a row has no edge.

    Args:
        scores: float `[..., cells]`, finite; ones: 1 on edges, 0 elsewhere, `[..., cells]` without leading dimensions.

    Example:
        >>> masked_softmax(torch.zeros(2, 3), torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])).tolist()
        [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    """
    return _MaskedSoftmax.apply(scores, ones.to(scores.dtype))
