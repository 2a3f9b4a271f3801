"""A vote of the modalities."""

from __future__ import annotations

from mer_zoo.parts.fusion.sum import Sum


class LogitSum(Sum):
    r"""Add the logits that the modalities' heads give (AMB-DSGDN): $y = \sum_m y_m$. As `Sum`, behind the heads.

    Inputs:
        states: modality -> float `[N, classes]`; layout: unused.
    Outputs:
        float `[N, classes]`.

    Args:
        widths: modality -> width, all equal (a fact).

    Raises:
        MerZooError: the widths differ.

    Example:
        >>> import torch
        >>> LogitSum({"text": 2, "audio": 2})({"text": torch.ones(1, 2), "audio": torch.ones(1, 2)}, None)
        tensor([[2., 2.]])
    """
