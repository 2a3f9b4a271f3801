"""A vote of the modalities."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mer_zoo.data.batch import Dialogues
from mer_zoo.errors import MerZooError


class LogitSum(nn.Module):
    r"""Add the logits that the modalities' heads give (AMB-DSGDN): $y = \sum_m y_m$.

    Inputs:
        states: modality -> float `[N, classes]`; dialogues: unused.
    Outputs:
        float `[N, classes]`.

    Arguments:
        widths: modality -> width, all equal (a fact).

    Raises:
        MerZooError: the widths differ.

    Example:
        >>> import torch
        >>> LogitSum({"text": 2, "audio": 2})({"text": torch.ones(1, 2), "audio": torch.ones(1, 2)}, None)
        tensor([[2., 2.]])
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        if len(set(widths.values())) != 1:
            raise MerZooError(f"logits of widths {dict(widths)} cannot be added. Put a head before this fusion.")
        self.out_width = next(iter(widths.values()))

    def forward(self, states: Mapping[str, Tensor], dialogues: Dialogues | None) -> Tensor:
        """Add up."""
        first, *others = states.values()
        for other in others:
            first = first + other
        return first
