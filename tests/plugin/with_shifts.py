"""A loss with an auxiliary part: where does the label shift?"""

from __future__ import annotations

from torch import Tensor, nn

from mer_zoo.batch.output import Output
from mer_zoo.parts.loss.nll import negative_log_likelihood


class WithShifts(nn.Module):
    r"""The loss of the emotion and, weighted, that of heads on label shifts: $L = L_y + \lambda \sum_k L_k$.

    Inputs:
        output: `Output`, whose `tasks` are heads such as `pair_shift`; labels: int64 `[N]`, -1 where unlabelled.
    Outputs:
        scalar.

    Args:
        weight: $\lambda$, at least 0.
    """

    def __init__(self, *, weight: float = 0.5) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, output: Output, labels: Tensor) -> Tensor:
        """Compute the loss."""
        total = negative_log_likelihood(output.logits, labels)
        for logits, wanted in output.tasks.values():
            total = total + self.weight * negative_log_likelihood(logits.flatten(0, -2), wanted.flatten())
        return total
