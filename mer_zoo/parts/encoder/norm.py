"""Normalisation of every utterance on its own."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.batch.index import Layout

Kind = Literal["layer", "rms"]


class Norm(nn.Module):
    r"""Bring every utterance to unit scale, whatever its batch (Ba et al. 2016; `rms`: Zhang and Sennrich 2019).

    $$y = \gamma\,\frac{x - \mu(x)}{\sqrt{\sigma^2(x) + \epsilon}} + \beta,\qquad
      \mathrm{rms}:\; y = \gamma\,\frac{x}{\sqrt{\mathrm{mean}(x^2) + \epsilon}}$$

    Inputs:
        x: float `[N, width]`; layout: unused.
    Outputs:
        float `[N, width]`.

    Args:
        width: width of x (a fact).
        kind: `layer` or `rms`.

    Example:
        >>> import torch
        >>> Norm(2)(torch.tensor([[1.0, 3.0]]), None).detach().round(decimals=3)
        tensor([[-1.,  1.]])
    """

    def __init__(self, width: int, *, kind: Kind = "layer") -> None:
        super().__init__()
        self.out_width = width
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if kind == "layer" else None

    def forward(self, x: Tensor, layout: Layout | None) -> Tensor:
        """Normalise."""
        if self.bias is None:
            return F.rms_norm(x, (self.out_width,), eps=1e-5) * self.weight
        return F.layer_norm(x, (self.out_width,), self.weight, self.bias, 1e-5)
