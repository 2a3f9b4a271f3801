"""Dropping a modality from whole dialogues: the act that several strategies share, each with rates of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from mer_zoo.batch.index import Layout
from mer_zoo.parts.balancing.base import Features


def drop_modalities(features: Features, rates: Tensor, layout: Layout, probability: float = 1.0) -> Features:
    r"""Keep each (dialogue, modality) with $1 - q_m$ and divide all features by $1 - \bar q$ (AMB-DSGDN, OPM).

    Args:
        features: modality -> `[N, width]`; rates: `[modalities]`, in the order of `features`.
        probability: chance that the step takes part at all.

    Returns:
        features of the same shapes.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> dropped = drop_modalities(batch.features, torch.tensor([1.0, 0.0, 0.0]), batch.layout)
        >>> float(dropped["text"].abs().sum())
        0.0
    """
    count = layout.rows.shape[0]
    device = rates.device
    kept = torch.rand(count + 1, len(features), device=device) >= rates  # the last row: utterances of no dialogue
    takes_part = torch.rand((), device=device) < probability
    scale = torch.where(takes_part, kept / (1 - rates.mean()).clamp(min=1e-5), 1.0)[layout.dialogue]
    return {m: x * scale[:, i : i + 1].to(x.dtype) for i, (m, x) in enumerate(features.items())}
