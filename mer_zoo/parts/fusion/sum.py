"""The sum of the modalities."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.fusion.widths import equal_width


class Sum(nn.Module):
    r"""Add the modalities: $y = \sum_m x_m$.

    Inputs:
        states: modality -> float `[N, width]`; layout: unused.
    Outputs:
        float `[N, width]`.

    Args:
        widths: modality -> width, all equal (a fact).

    Raises:
        MerZooError: the widths differ.

    Example:
        >>> import torch
        >>> Sum({"text": 2, "audio": 2})({"text": torch.ones(1, 2), "audio": torch.ones(1, 2)}, None)
        tensor([[2., 2.]])
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.out_width = equal_width(widths, "added")
        self.modalities = tuple(widths)

    def forward(self, states: Mapping[str, Tensor], layout: Layout | None) -> Tensor:
        """Add up."""
        first, *others = (states[m] for m in self.modalities)
        for other in others:
            first = first + other
        return first
