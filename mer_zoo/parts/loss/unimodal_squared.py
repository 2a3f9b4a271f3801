"""The loss of AMB-DSGDN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from mer_zoo.errors import MerZooError
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
        if not output.modality_logits:
            raise MerZooError(
                "loss/unimodal_squared: the model has no head per modality. Put a `head` before the fusion "
                "(`logit_sum`), or use `loss: nll`."
            )
        total = negative_log_likelihood(output.logits, labels, self.weights)
        for logits in output.modality_logits.values():
            total = total + negative_log_likelihood(logits, labels, self.weights) ** 2 / 10
        return total
