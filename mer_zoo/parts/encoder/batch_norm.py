"""Normalisation by the statistics of the batch, over its utterances."""

from __future__ import annotations

from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.ops.running_norm import RunningNorm


class BatchNorm(nn.Module):
    r"""Bring every feature to unit scale over all utterances of the batch (Ioffe and Szegedy 2015; COGMEN §3.3).

    $$y = \gamma\,\frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}} + \beta$$
    with mean and variance of the batch in training, and running means of them in evaluation. Rows that belong to no
    dialogue do not count; padding does where the recipe says `padding: shown`.

    Inputs:
        x: float `[N, width]`; layout: tells which rows are utterances.
    Outputs:
        float `[N, width]`.

    Args:
        width: width of x (a fact).

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> BatchNorm(6)(batch.features["text"], batch.layout).mean(0).abs().max().item() < 1e-5
        True
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_width = width
        self.norm = RunningNorm(width)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Normalise."""
        return self.norm(x, (layout.cells < layout.rows.numel()).to(x.dtype))
