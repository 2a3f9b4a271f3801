"""Low-rank multimodal fusion."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.fusion.widths import per_modality


class LowRank(nn.Module):
    r"""Tensor fusion whose weight tensor has rank R, so that the product is never formed (LMF; Liu et al. 2018).

    $$y = \sum_{r=1}^{R} w_r \bigodot_m U_m^{(r)\top} z_m + b,\qquad z_m = [1; W_m x_m + b_m]$$

    Inputs:
        states: modality -> float `[N, width]`; layout: unused.
    Outputs:
        float `[N, out_width]`.

    Args:
        widths: modality -> width (a fact).
        hidden: width each modality is mapped to before the product; one for all, or modality -> width.
        rank: R.
        out_width: width of the result.

    Example:
        >>> states = {"text": torch.ones(4, 2), "audio": torch.ones(4, 3)}
        >>> LowRank({"text": 2, "audio": 3}, hidden=4, out_width=5)(states, None).shape
        torch.Size([4, 5])
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        *,
        hidden: int | dict[str, int] = 64,
        rank: int = 4,
        out_width: int = 128,
    ) -> None:
        super().__init__()
        inside = per_modality(hidden, widths, "hidden")
        self.out_width = out_width
        self.maps = nn.ModuleDict({m: nn.Linear(width, inside[m]) for m, width in widths.items()})
        self.factors = nn.ParameterDict(
            {m: nn.init.xavier_normal_(torch.empty(rank, width + 1, out_width)) for m, width in inside.items()}
        )
        self.weights = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, rank)))
        self.bias = nn.Parameter(torch.zeros(1, out_width))

    def forward(self, states: Mapping[str, Tensor], layout: Layout | None) -> Tensor:
        """Multiply rank by rank and add up."""
        first, *others = (
            F.pad(layer(states[m]), (1, 0), value=1.0) @ self.factors[m]  # [rank, N, out_width]
            for m, layer in self.maps.items()
        )
        for other in others:
            first = first * other
        return (self.weights.mT.unsqueeze(-1) * first).sum(0) + self.bias
