"""Modalities side by side."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_zoo.batch.index import Layout


class Concat(nn.Module):
    r"""Concatenate the modalities: $y = [x_1; x_2; \dots]$.

    Inputs:
        states: modality -> float `[N, width]`; layout: unused.
    Outputs:
        float `[N, sum of widths]`.

    Args:
        widths: modality -> width (a fact).

    Example:
        >>> Concat({"text": 2, "audio": 3})({"text": torch.ones(4, 2), "audio": torch.ones(4, 3)}, None).shape
        torch.Size([4, 5])
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.out_width = sum(widths.values())
        self.modalities = tuple(widths)

    def forward(self, states: Mapping[str, Tensor], layout: Layout | None) -> Tensor:
        """Concatenate in the order of `widths`."""
        return torch.cat([states[m] for m in self.modalities], -1)
