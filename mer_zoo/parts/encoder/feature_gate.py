"""A gate on every feature, without a bias."""

from __future__ import annotations

from torch import nn

from mer_zoo.parts.encoder.sigmoid_gate import SigmoidGate


class FeatureGate(SigmoidGate):
    r"""Let each utterance damp its own features: $y = x \odot \sigma(W x)$ (SDT, unimodal-level gate; Ma et al. 2024).

    Inputs:
        x: float `[N, width]`; layout: unused.
    Outputs:
        float `[N, width]`.

    Args:
        width: width of x (a fact).

    Example:
        >>> import torch
        >>> FeatureGate(3)(torch.zeros(2, 3), None).abs().sum().item()
        0.0
    """

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.map = nn.Linear(width, width, bias=False)
