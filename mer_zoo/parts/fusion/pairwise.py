"""The mean over pairs of modalities."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.fusion.widths import at_least_two


class Pairwise(nn.Module):
    r"""Fuse every pair of modalities by a layer of its own and average the P pairs (as GraphSmile averages its pairs).

    $$y = \frac{1}{P} \sum_{m<n} \mathrm{lrelu}(W_{mn} [x_m; x_n] + b_{mn})$$

    Inputs:
        states: modality -> float `[N, width]`; layout: unused.
    Outputs:
        float `[N, out_width]`.

    Args:
        widths: modality -> width (a fact).
        out_width: width of the result.
        dropout: probability on each pair.

    Raises:
        MerZooError: one modality alone.

    Example:
        >>> states = {"text": torch.ones(4, 2), "audio": torch.ones(4, 3)}
        >>> Pairwise({"text": 2, "audio": 3}, out_width=5)(states, None).shape
        torch.Size([4, 5])
    """

    def __init__(self, widths: Mapping[str, int], *, out_width: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        at_least_two(widths)
        self.out_width = out_width
        self.pairs = tuple(combinations(widths, 2))
        self.maps = nn.ModuleList(nn.Linear(widths[m] + widths[n], out_width) for m, n in self.pairs)
        self.drop = nn.Dropout(dropout)

    def forward(self, states: Mapping[str, Tensor], layout: Layout | None) -> Tensor:
        """Fuse the pairs and average them."""
        fused = [
            self.drop(F.leaky_relu(layer(torch.cat([states[m], states[n]], -1))))
            for (m, n), layer in zip(self.pairs, self.maps, strict=True)
        ]
        return torch.stack(fused).mean(0)
