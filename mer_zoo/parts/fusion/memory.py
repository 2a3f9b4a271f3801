"""Memory fusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.batch.index import Layout


class Memory(nn.Module):
    r"""Run an LSTM per modality over the dialogue and remember what changes across modalities (MFN; Zadeh et al. 2018).

    With $c_t^m$ the LSTM cells after utterance t, side by side over the modalities:
    $$k_t = [c_{t-1}; c_t],\quad \hat k_t = \mathrm{softmax}(D_a(k_t)) \odot k_t,\quad
      u_t = \sigma(D_1[\hat k_t; u_{t-1}]) \odot u_{t-1} + \sigma(D_2[\hat k_t; u_{t-1}]) \odot \tanh(D_u(\hat k_t))$$
    $$y_t = [h_t^1; h_t^2; \dots; u_t]$$
    Every $D$ is a layer, ReLU, dropout and a layer; states start at zero. Only earlier utterances are seen.

    Inputs:
        states: modality -> float `[N, width]`; layout.
    Outputs:
        float `[N, modalities * hidden + memory]`.

    Args:
        widths: modality -> width (a fact).
        hidden: width of each LSTM.
        memory: width of u.
        inner: width inside every D.
        dropout: probability inside every D.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> Memory({"text": 6, "audio": 4}, hidden=3, memory=5)(batch.features, batch.layout).shape
        torch.Size([10, 11])
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        *,
        hidden: int = 64,
        memory: int = 64,
        inner: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        cells = hidden * len(widths)
        self.hidden, self.memory = hidden, memory
        self.out_width = cells + memory
        self.cells = nn.ModuleDict({m: nn.LSTMCell(width, hidden) for m, width in widths.items()})
        self.attention = two_layers(2 * cells, inner, 2 * cells, dropout)
        self.proposal = two_layers(2 * cells, inner, memory, dropout)
        self.keep = two_layers(2 * cells + memory, inner, memory, dropout)
        self.write = two_layers(2 * cells + memory, inner, memory, dropout)

    def forward(self, states: Mapping[str, Tensor], layout: Layout) -> Tensor:
        """Walk through the dialogues, all at once."""
        # What each utterance brings to the gates, over all times in one product; the cells' own step would not do so.
        cells: list[Any] = [*self.cells.values()]
        padded = [layout.pad(states[m]) for m in self.cells]
        brought = torch.stack(
            [F.linear(x, c.weight_ih, c.bias_ih + c.bias_hh) for x, c in zip(padded, cells, strict=True)]
        )  # [modality, B, L, 4 * hidden]
        recurrent = torch.stack([cell.weight_hh.mT for cell in cells])
        h = c = brought.new_zeros(*brought.shape[:2], self.hidden)
        u = brought.new_zeros(brought.shape[1], self.memory)
        steps = []
        for arriving in brought.unbind(2):
            take, forget, content, show = (arriving + h @ recurrent).chunk(4, -1)
            before, c = c, forget.sigmoid() * c + take.sigmoid() * content.tanh()
            h = show.sigmoid() * c.tanh()
            both = torch.cat([*before.unbind(0), *c.unbind(0)], -1)
            attended = self.attention(both).softmax(-1) * both
            known = torch.cat([attended, u], -1)
            u = self.keep(known).sigmoid() * u + self.write(known).sigmoid() * self.proposal(attended).tanh()
            steps.append(torch.cat([*h.unbind(0), u], -1))
        return layout.unpad(torch.stack(steps, 1))


def two_layers(width: int, inner: int, out_width: int, dropout: float) -> nn.Sequential:
    """Return the D of the equations: a layer, ReLU, dropout and a layer."""
    return nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Dropout(dropout), nn.Linear(inner, out_width))
