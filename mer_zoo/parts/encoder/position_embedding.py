"""A vector for the turn within the dialogue, added to each utterance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.encoder.transformer import positions


class PositionEmbedding(nn.Module):
    r"""Add a vector of the turn: $y_i = x_i + p_{t(i)}$, sinusoidal or learned (Vaswani et al. 2017, §3.5).

    Inputs:
        x: float `[N, width]`; layout: positions.
    Outputs:
        float `[N, width]`.

    Args:
        width: width of x (a fact).
        learned: turns with a learned vector of their own, later ones share the last; null: sinusoids.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> PositionEmbedding(6)(batch.features["text"], batch.layout).shape
        torch.Size([10, 6])
    """

    def __init__(self, width: int, *, learned: int | None = None) -> None:
        super().__init__()
        self.out_width = width
        self.weight = None if learned is None else nn.Parameter(torch.randn(learned, width) * 0.02)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Add each turn's vector."""
        if self.weight is None:
            count, size = layout.rows.shape
            return x + layout.unpad(positions(size, self.out_width, x).expand(count, -1, -1))
        every = torch.arange(self.weight.shape[0], device=x.device)
        turn = layout.position.clamp(max=self.weight.shape[0] - 1)
        return x + (turn.unsqueeze(1) == every).to(x.dtype) @ self.weight
