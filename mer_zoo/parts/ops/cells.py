"""Recurrent cells of plain operations, which stack under `torch.func.vmap` where torch's fused ones do not."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class GRUCell(nn.GRUCell):
    """`torch.nn.GRUCell`: the same parameters and the same result.

    Inputs:
        input: float `[batch, input_size]`; hx: float `[batch, hidden_size]`.
    Outputs:
        float `[batch, hidden_size]`.

    Example:
        >>> import torch
        >>> GRUCell(3, 2)(torch.ones(5, 3), torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    def forward(self, input: Tensor, hx: Tensor) -> Tensor:  # type: ignore[override]
        """Take one step."""
        seen = F.linear(input, self.weight_ih, self.bias_ih).chunk(3, -1)
        kept = F.linear(hx, self.weight_hh, self.bias_hh).chunk(3, -1)
        reset, update = ((a + b).sigmoid() for a, b in zip(seen[:2], kept[:2], strict=True))
        new = (seen[2] + reset * kept[2]).tanh()
        return new + update * (hx - new)


class LSTMCell(nn.LSTMCell):
    """`torch.nn.LSTMCell`: the same parameters and the same result.

    Inputs:
        input: float `[batch, input_size]`; hx: state and memory, each float `[batch, hidden_size]`.
    Outputs:
        state and memory.

    Example:
        >>> import torch
        >>> state, memory = LSTMCell(3, 2)(torch.ones(5, 3), (torch.zeros(5, 2), torch.zeros(5, 2)))
        >>> state.shape
        torch.Size([5, 2])
    """

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Take one step."""
        state, memory = hx
        gates = F.linear(input, self.weight_ih, self.bias_ih) + F.linear(state, self.weight_hh, self.bias_hh)
        take, keep, new, show = gates.chunk(4, -1)
        memory = keep.sigmoid() * memory + take.sigmoid() * new.tanh()
        return show.sigmoid() * memory.tanh(), memory
