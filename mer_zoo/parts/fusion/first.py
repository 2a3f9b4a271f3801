"""The first modality alone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mer_zoo.batch.index import Layout


class First(nn.Module):
    r"""Keep the first modality, $y = x_1$: with `per: other`, a copy of each modality for every other one.

    Inputs:
        states: modality -> float `[N, width]`; layout: unused.
    Outputs:
        float `[N, width]`.

    Args:
        widths: modality -> width (a fact).

    Example:
        >>> import torch
        >>> First({"text": 2, "audio": 3})({"text": torch.ones(4, 2), "audio": torch.ones(4, 3)}, None).shape
        torch.Size([4, 2])
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.first = next(iter(widths))
        self.out_width = widths[self.first]

    def forward(self, states: Mapping[str, Tensor], layout: Layout | None) -> Tensor:
        """Choose."""
        return states[self.first]
