"""A weighted sum over several heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from mer_zoo.errors import MerZooError, nearest
from mer_zoo.parts.loss.nll import NLL, ClassWeights, negative_log_likelihood

if TYPE_CHECKING:
    from mer_zoo.batch.output import Output


class MultiTask(NLL):
    r"""The `nll` of the emotion and those of the other heads, weighted (GraphSmile §3.6): $L + \sum_k \lambda_k L_k$.

    Inputs:
        output: `Output` with `tasks`; labels: int64 `[N]`, -1 where unlabelled.
    Outputs:
        scalar.

    Args:
        class_counts: training labels of each class (a fact).
        weights: name of a head with a `task` -> its weight; one for each.
        class_weights: as of `nll`, for the emotion.

    Raises:
        MerZooError: a head without a weight, or a weight without a head.

    Example:
        >>> import torch
        >>> from mer_zoo.batch.output import Output
        >>> flat = torch.zeros(2, 2)
        >>> output = Output(flat, {}, {}, tasks={"mood": (flat, torch.tensor([0, -1]))})
        >>> round(float(MultiTask((5, 5), weights={"mood": 0.5})(output, torch.tensor([0, 1]))), 4)
        1.0397
    """

    def __init__(
        self,
        class_counts: Sequence[int],
        *,
        weights: dict[str, float] | None = None,
        class_weights: ClassWeights = "none",
    ) -> None:
        super().__init__(class_counts, class_weights=class_weights)
        self.tasks = dict(weights or {})

    def forward(self, output: Output, labels: Tensor) -> Tensor:
        """Compute the loss."""
        for name in self.tasks.keys() ^ output.tasks.keys():
            if name in self.tasks:
                near = nearest(name, output.tasks)
                raise MerZooError(f"loss/multi_task: `weights`: no head '{name}' with a `task`.{near}")
            raise MerZooError(f"loss/multi_task: `weights` has no number for the head '{name}'. Add it.")
        total = super().forward(output, labels)
        for name, weight in self.tasks.items():
            total = total + weight * negative_log_likelihood(*output.tasks[name])
        return total
