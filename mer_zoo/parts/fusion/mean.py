"""The mean of the modalities."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mer_zoo.batch.index import Layout
from mer_zoo.parts.fusion.sum import Sum


class Mean(Sum):
    r"""Average the M modalities: $y = \frac{1}{M}\sum_m x_m$.

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
        >>> Mean({"text": 2, "audio": 2})({"text": torch.ones(1, 2), "audio": torch.zeros(1, 2)}, None)
        tensor([[0.5000, 0.5000]])
    """

    def forward(self, states: Mapping[str, Tensor], layout: Layout | None) -> Tensor:
        """Average."""
        return super().forward(states, layout) / len(self.modalities)
