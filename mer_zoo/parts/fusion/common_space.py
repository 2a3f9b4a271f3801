"""What the modalities have in common."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.encoder.feed_forward import FeedForward
from mer_zoo.parts.fusion.widths import equal_width


class CommonSpace(nn.Module):
    r"""Take every modality through the same `feed_forward` F and map all to one (GraphCFC §3.3; Li et al. 2023).

    $$y = W [F(x_1); F(x_2); \dots] + b$$

    Inputs:
        states: modality -> float `[N, width]`; layout: unused.
    Outputs:
        float `[N, width]`.

    Args:
        widths: modality -> width, all equal (a fact).
        inner, dropout: of F, as in `feed_forward`.

    Raises:
        MerZooError: the widths differ.

    Example:
        >>> states = {"text": torch.ones(4, 2), "audio": torch.ones(4, 2)}
        >>> CommonSpace({"text": 2, "audio": 2})(states, None).shape
        torch.Size([4, 2])
    """

    def __init__(self, widths: Mapping[str, int], *, inner: int | None = None, dropout: float = 0.1) -> None:
        super().__init__()
        self.out_width = equal_width(widths, "taken through one layer")
        self.modalities = tuple(widths)
        self.extract = FeedForward(self.out_width, inner=inner, dropout=dropout)
        self.map = nn.Linear(len(widths) * self.out_width, self.out_width)

    def forward(self, states: Mapping[str, Tensor], layout: Layout | None) -> Tensor:
        """Extract and map."""
        return self.map(torch.cat([self.extract(states[m], layout) for m in self.modalities], -1))
