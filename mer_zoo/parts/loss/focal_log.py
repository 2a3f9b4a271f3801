"""The loss that published MELD code calls focal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from mer_zoo.batch.output import Output


class FocalLog(nn.Module):
    r"""What MMGCN and M3Net compute on MELD under the name of focal loss; it is none.

    $$L = -\frac{1}{NC}\sum_{i,c} (1 - Y_{ic}\,\ell_{ic})^\gamma\,\ell_{ic},\qquad \ell = \log\mathrm{softmax}$$

    The factor grows with surprise, and every wrong class adds $-\ell_c$, a strong label smoothing. Kept because
    published numbers depend on it.

    Inputs:
        output: `Output`; labels: int64 `[N]`, -1 where unlabelled.
    Outputs:
        scalar.

    Args:
        gamma: exponent, at least 0.

    Example:
        >>> import torch
        >>> from mer_zoo.batch.output import Output
        >>> round(float(FocalLog(gamma=0)(Output(torch.zeros(1, 2), {}, {}), torch.tensor([0]))), 4)
        0.6931
    """

    def __init__(self, *, gamma: float = 2.5) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, output: Output, labels: Tensor) -> Tensor:
        """Compute the loss."""
        logs = output.logits.log_softmax(-1)
        truth = nn.functional.one_hot(labels.clamp(min=0), logs.shape[-1]).to(logs.dtype)
        known = (labels >= 0).to(logs.dtype)
        each = (-((1 - truth * logs) ** self.gamma) * logs).mean(-1)
        return (each * known).sum() / known.sum().clamp(min=1)
