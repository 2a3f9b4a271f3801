"""Weighted F1 where the logits are: pure tensor maths, no host sync, fit for `torch.func.vmap` and CUDA graphs."""

from __future__ import annotations

import torch
from torch import Tensor


def confusion(logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    r"""Count utterances by true class (row) and predicted class (column) without leaving the device.

    $$C_{ij} = \sum_u [\text{label}_u = i]\,[\arg\max \text{logits}_u = j]$$

    Args:
        logits: float `[..., utt, classes]`.
        labels: int64 `[..., utt]`; a label outside 0..classes-1, such as -1, does not count.
        classes: number of classes.

    Returns:
        int64 `[..., classes, classes]`; add those of several batches to get that of an epoch.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> confusion(logits, torch.tensor([0, 1, -1]), classes=2).tolist()
        [[1, 0], [1, 0]]
    """
    names = torch.arange(classes, device=logits.device)
    labelled = labels.unsqueeze(-1) == names
    predicted = logits.argmax(-1, keepdim=True) == names
    # Booleans summed as integers: a matrix product would round to bfloat16 under autocast.
    return (labelled.unsqueeze(-1) & predicted.unsqueeze(-2)).sum(-3)


def weighted_f1(confusion: Tensor) -> Tensor:
    r"""Mean of F1 over classes with their support as weight; 0 where nothing is labelled.

    $$\sum_c s_c \frac{2\,\mathrm{TP}_c}{s_c + p_c} \Big/ \sum_c s_c$$ with support s and predicted count p.

    Args:
        confusion: `[..., classes, classes]`, rows are true classes, any number type.

    Returns:
        float32 `[...]` (float64 for a float64 matrix), from 0 to 1.

    Example:
        >>> round(float(weighted_f1(torch.tensor([[3, 1], [0, 2]]))), 4)
        0.8381
    """
    counts = confusion if confusion.dtype == torch.float64 else confusion.float()
    support, predicted = counts.sum(-1), counts.sum(-2)
    f1 = 2 * counts.diagonal(dim1=-2, dim2=-1) / (support + predicted).clamp(min=1)
    return (f1 * support).sum(-1) / support.sum(-1).clamp(min=1)
