"""Learn from features and labels together: discriminative and generative likelihood."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from mer_zoo.parts.loss.nll import negative_log_likelihood

if TYPE_CHECKING:
    from mer_zoo.batch.output import Output


class Joint(nn.Module):
    r"""Negative log-likelihood of the labels given the features, and of the features (Lasserre et al. 2006).

    $$L = -\frac1N \sum_i \Big( \log p(y_i \mid x_i) + \gamma \log p(x_i) \Big),\qquad
      \log p(x_i) = \log\textstyle\sum_k e^{\mathrm{logit}_i(k)}$$

    for heads whose logits are log-densities of features and label together, such as `factorial_chains`. With
    $\gamma=1$ this is $-\mathrm{logit}_i(y_i)$, the likelihood of both. It is for features as they are given:
    states that are learned become likely by shrinking, so that $\gamma$ should be 0 there.

    Inputs:
        output: `Output` with logits `[N, classes]`; labels: int64 `[N]`, -1 where unlabelled.
    Outputs:
        scalar.

    Args:
        generative: $\gamma$, what the features count.

    Example:
        >>> import torch
        >>> from mer_zoo.batch.output import Output
        >>> logits = torch.tensor([[-3.0, -5.0], [-7.0, -4.0]])
        >>> float(Joint()(Output(logits, {}, {}), torch.tensor([0, 1])))
        3.5
    """

    def __init__(self, *, generative: float = 1.0) -> None:
        super().__init__()
        self.generative = generative

    def forward(self, output: Output, labels: Tensor) -> Tensor:
        """Compute the loss."""
        known = (labels >= 0).to(output.logits.dtype)
        features = (output.logits.logsumexp(-1) * known).sum() / known.sum().clamp(min=1)
        return negative_log_likelihood(output.logits, labels) - self.generative * features
