"""Turns of recall and attention over a dialogue."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.batch.looking import looked
from mer_zoo.errors import MerZooError
from mer_zoo.parts.ops.cells import LSTMCell


class Reasoning(nn.Module):
    r"""Ask the dialogue again and again (DialogueCRN §3.3): $q^* = W h_i + b$, then `steps` times

    $$q = \mathrm{LSTM}(q^*),\qquad q^* = \big[q;\, \textstyle\sum_j \mathrm{softmax}_j(q \cdot h_j)\, h_j\big]$$

    Inputs:
        x: float `[N, width]`; layout: the dialogues.
    Outputs:
        float `[N, 2 * width]`.

    Args:
        width: width of x (a fact).
        steps: how often, at least twice, since the first time nothing is recalled; 0 leaves the linear map.

    Raises:
        MerZooError: one step, whose recall would never be used.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> Reasoning(6)(batch.features["text"], batch.layout).shape
        torch.Size([10, 12])
    """

    def __init__(self, width: int, *, steps: int = 3) -> None:
        super().__init__()
        if steps == 1:
            raise MerZooError(
                "`steps`: the first step recalls nothing, so one alone has weights without use. Use 0 or 2."
            )
        self.out_width, self.steps = 2 * width, steps
        self.first = nn.Linear(width, 2 * width)
        self.cell = LSTMCell(2 * width, width) if steps else None

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Ask."""
        query = self.first(x)
        if self.cell is None:
            return query
        keys, hidden = layout.pad(x), ~layout.is_utterance.unsqueeze(1)
        state = torch.zeros_like(x), torch.zeros_like(x)
        for _ in range(self.steps):
            state = self.cell(query, state)
            scores = layout.pad(state[0]) @ keys.transpose(1, 2)
            weights = looked(scores.masked_fill(hidden, torch.finfo(scores.dtype).min).softmax(-1))
            query = torch.cat([state[0], layout.unpad(weights @ keys)], -1)
        return query
