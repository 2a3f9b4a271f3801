"""Dropout as every part uses it: torch's own, but on CPU with four random numbers out of one draw."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.batch import launch_cost

LEVELS = 1 << 16


def dropout(x: Tensor, probability: float, training: bool = True) -> Tensor:
    r"""Set entries to zero and scale the others up: $y = x \odot b / (1 - p)$, $b$ 1 with $1 - p$.

    torch draws one double word per entry on CPU, one entry after the other, which is a fifth of a training step. Here
    one word decides four entries; $p$ is rounded to a multiple of $2^{-16}$ and the scale is that of the rounded p.

    Args:
        x: float of any shape.
        probability: chance of a zero.
        training: do nothing if false.

    Returns:
        of the same shape.

    Example:
        >>> y = dropout(torch.ones(10_000), 0.2)
        >>> y.unique().round(decimals=4).tolist(), abs(float(y.mean()) - 1) < 0.03
        ([0.0, 1.25], True)
    """
    if not training or probability == 0:
        return x
    if launch_cost.is_costly(x.device):  # there, one kernel does it all
        return F.dropout(x, probability)
    dropped = round(probability * LEVELS)
    if dropped == LEVELS:
        return x * 0
    words = torch.randint(-(1 << 63), (1 << 63) - 1, (x.numel() // 4 + 1,))
    kept = words.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - LEVELS // 2
    return x * kept.to(x.dtype).mul_(LEVELS / (LEVELS - dropped))


class Dropout(nn.Dropout):
    """`dropout` as a module, in place of `torch.nn.Dropout`.

    Example:
        >>> Dropout(0.5).eval()(torch.ones(2)).tolist()
        [1.0, 1.0]
    """

    def forward(self, x: Tensor) -> Tensor:
        """Drop out."""
        return dropout(x, self.p, self.training)
