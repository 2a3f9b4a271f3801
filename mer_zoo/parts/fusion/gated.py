"""The gated multimodal unit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_zoo.batch.index import Layout


class Gated(nn.Module):
    r"""Let all modalities together decide how much of each passes (gated multimodal unit; Arevalo et al. 2017).

    $$y = \sum_m \sigma(V_m [x_1; x_2; \dots]) \odot \tanh(W_m x_m)$$

    Inputs:
        states: modality -> float `[N, width]`; layout: unused.
    Outputs:
        float `[N, out_width]`.

    Args:
        widths: modality -> width (a fact).
        out_width: width of the result.

    Example:
        >>> states = {"text": torch.ones(4, 2), "audio": torch.ones(4, 3)}
        >>> Gated({"text": 2, "audio": 3}, out_width=5)(states, None).shape
        torch.Size([4, 5])
    """

    def __init__(self, widths: Mapping[str, int], *, out_width: int = 128) -> None:
        super().__init__()
        self.out_width = out_width
        self.maps = nn.ModuleDict({m: nn.Linear(width, out_width, bias=False) for m, width in widths.items()})
        self.gates = nn.Linear(sum(widths.values()), out_width * len(widths), bias=False)

    def forward(self, states: Mapping[str, Tensor], layout: Layout | None) -> Tensor:
        """Gate and add up."""
        gates = self.gates(torch.cat([states[m] for m in self.maps], -1)).sigmoid()
        mapped = torch.cat([layer(states[m]).tanh() for m, layer in self.maps.items()], -1)
        return (gates * mapped).unflatten(-1, (-1, self.out_width)).sum(-2)
