"""Attention of every utterance to its whole dialogue, before classification."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.batch.looking import looked


class NodalAttention(nn.Module):
    r"""Replace each utterance by a similarity-weighted mean of its dialogue (DialogueGCN §3.3.3, as published).

    $$y_i = \sum_j \mathrm{softmax}_j\big(\tanh((W h_i + b)^\top h_j)\big)\, h_j$$

    Inputs:
        x: float `[N, width]`; layout.
    Outputs:
        float `[N, width]`.

    Args:
        width: width of x (a fact).

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> NodalAttention(6)(batch.features["text"], batch.layout).shape
        torch.Size([10, 6])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_width = width
        self.map = nn.Linear(width, width)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Attend within each dialogue."""
        keys = layout.pad(x)
        scores = self.scores(layout.pad(self.map(x)), keys)
        lowest = torch.finfo(scores.dtype).min
        weights = looked(scores.masked_fill(~layout.is_utterance.unsqueeze(1), lowest).softmax(-1))
        return layout.unpad(weights @ keys)

    def scores(self, query: Tensor, key: Tensor) -> Tensor:
        """Compare utterances: two `[B, L, width]` → `[B, L, L]`."""
        return torch.tanh(query @ key.transpose(1, 2))
