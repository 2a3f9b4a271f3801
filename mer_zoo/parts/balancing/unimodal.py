"""How well each modality does by itself: the measures that several strategies share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mer_zoo.errors import MerZooError
from mer_zoo.parts.loss.nll import negative_log_likelihood

if TYPE_CHECKING:
    from mer_zoo.batch.output import Output


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Return the probability of the true class, summed over labelled utterances: $s = \sum_i p_i(y_i)$ (OGM-GE).

    Args:
        logits: float `[N, classes]`; labels: int64 `[N]`, -1 where unlabelled.
    Returns:
        scalar.

    Example:
        >>> confidence(torch.zeros(3, 2), torch.tensor([0, 1, -1]))
        tensor(1.)
    """
    return (logits.softmax(-1) * is_class(labels, logits.shape[-1])).sum()


def is_class(labels: Tensor, classes: int) -> Tensor:
    """Return labels as a table of truths, bool `[N, classes]`; a row without any where there is no label.

    Example:
        >>> is_class(torch.tensor([1, -1]), 2).tolist()
        [[False, True], [False, False]]
    """
    return labels.unsqueeze(-1) == torch.arange(classes, device=labels.device)


def modality_losses(output: Output, labels: Tensor, modalities: Sequence[str]) -> dict[str, Tensor]:
    """Return the mean negative log-likelihood of every modality's own head.

    Raises:
        MerZooError: a modality has no head of its own.
    """
    missing = [m for m in modalities if m not in output.modality_logits]
    if missing:
        raise MerZooError(
            f"nothing to balance: the model has no head for {' or for '.join(missing)} alone. Put a `head` before the "
            "fusion, and end with `fusion: logit_sum`."
        )
    return {m: negative_log_likelihood(output.modality_logits[m], labels) for m in modalities}
