"""Attention over the modalities, feature by feature."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.fusion.widths import equal_width


class Attention(nn.Module):
    r"""Weigh the modalities against each other in every feature (SDT, multimodal-level gated fusion; Ma et al. 2024).

    $$y = \sum_m a_m \odot x_m,\qquad a_m = \exp(W x_m) \Big/ \sum_n \exp(W x_n)$$

    Inputs:
        states: modality -> float `[N, width]`; layout: unused.
    Outputs:
        float `[N, width]`.

    Args:
        widths: modality -> width, all equal (a fact).

    Raises:
        MerZooError: the widths differ.

    Example:
        >>> states = {"text": torch.ones(4, 2), "audio": torch.ones(4, 2)}
        >>> bool((Attention({"text": 2, "audio": 2})(states, None) == 1).all())
        True
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.out_width = equal_width(widths, "weighed against each other")
        self.modalities = tuple(widths)
        alone = len(widths) == 1  # its share is 1 whatever its score
        self.score = None if alone else nn.Linear(self.out_width, self.out_width, bias=False)

    def forward(self, states: Mapping[str, Tensor], layout: Layout | None) -> Tensor:
        """Weigh and add up."""
        if self.score is None:
            return states[self.modalities[0]]
        x = torch.stack([states[m] for m in self.modalities], -2)  # [N, modality, width]
        return (self.score(x).softmax(-2) * x).sum(-2)
