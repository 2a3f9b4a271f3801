"""The loss of AMB-DSGDN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from mer_zoo.parts.loss.base import heads_of
from mer_zoo.parts.loss.nll import NLL, negative_log_likelihood

if TYPE_CHECKING:
    from mer_zoo.batch.output import Output


class UnimodalSquared(NLL):
    r"""The fused loss and a tenth of every modality's loss times itself (AMB-DSGDN): $L + \sum_m L_m^2 / 10$.

    Settings and facts are those of `NLL`.

    Inputs:
        output: `Output` with one head per modality; labels: int64 `[N]`.
    Outputs:
        scalar.

    Raises:
        MerZooError: the model has no head per modality.

    Example:
        >>> import torch
        >>> from mer_zoo.batch.output import Output
        >>> flat = torch.zeros(2, 2)
        >>> loss = UnimodalSquared((5, 5))(Output(flat, {"text": flat}, {}), torch.tensor([0, 1]))
        >>> round(float(loss), 4)
        0.7412
    """

    def forward(self, output: Output, labels: Tensor) -> Tensor:
        """Compute the loss."""
        heads = heads_of(output, "unimodal_squared")
        total = negative_log_likelihood(output.logits, labels, self.weights)
        for logits in heads.values():
            total = total + negative_log_likelihood(logits, labels, self.weights) ** 2 / 10
        return total
