"""A classifier that compares directions."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.batch.index import Layout


class Cosine(nn.Module):
    r"""Classify by the cosine between state and class (MMCosine; Xu et al. 2023): $y_c = s\,\cos(x, w_c)$.

    Before `fusion: logit_sum`, one per modality, no modality can win by the norm of its features or weights.

    Inputs:
        x: float `[N, width]`; layout: unused.
    Outputs:
        logits, float `[N, classes]`, from -s to s; 0 for a state of zeros.

    Args:
        width: width of x (a fact).
        classes: number of emotions (a fact).
        scale: s, above 0.

    Raises:
        ValueError: the scale is not above 0.

    Example:
        >>> import torch
        >>> Cosine(3, 6)(torch.ones(2, 3), None).shape
        torch.Size([2, 6])
    """

    def __init__(self, width: int, classes: int, *, scale: float = 15.0) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(f"the scale must be above 0, not {scale}")
        self.scale = scale
        self.map = nn.Linear(width, classes, bias=False)

    def forward(self, x: Tensor, layout: Layout | None) -> Tensor:
        """Classify."""
        return self.scale * F.linear(F.normalize(x, dim=-1), F.normalize(self.map.weight, dim=-1))
