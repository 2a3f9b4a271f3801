"""Whether a label differs between two utterances that are near each other."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.batch.index import Layout


class PairShift(nn.Module):
    r"""Judge of any two utterances of a block whether their labels differ: $y_{ij} = W [x_i; x_j] + b$ (GraphSmile).

    A dialogue is cut into blocks of `window` turns; all ordered pairs of a block are judged, i = j included. For a head
    with a `task`: what the label column says of utterances becomes what it says of pairs.

    Inputs:
        x: float `[N, width]`; layout: the dialogues.
    Outputs:
        logits of (same, different), float `[N, window, 2]`; the second index is j's place in the block.

    Args:
        width: width of x (a fact).
        window: turns of a block.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> head = PairShift(6, window=3)
        >>> head(batch.features["text"], batch.layout).shape, head.targets(batch.labels, batch.layout).shape
        (torch.Size([10, 3, 2]), torch.Size([10, 3]))
    """

    def __init__(self, width: int, *, window: int = 19) -> None:
        super().__init__()
        self.window = window
        self.first, self.second = nn.Linear(width, 2), nn.Linear(width, 2, bias=False)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Judge."""
        second = F.pad(self.second(x), (0, 0, 0, 1))  # the last: nobody
        return self.first(x).unsqueeze(1) + second[self._partners(layout)]

    def targets(self, labels: Tensor, layout: Layout) -> Tensor:
        """Return whether the labels of a pair differ, int64 `[N, window]`; -1 where there is no pair."""
        ours, theirs = labels.unsqueeze(1), F.pad(labels, (0, 1), value=-1)[self._partners(layout)]
        return torch.where((ours < 0) | (theirs < 0), -1, (ours != theirs).long())

    def _partners(self, layout: Layout) -> Tensor:
        """The utterances of everyone's block, `[N, window]`; N where there is none."""
        begin = layout.position - layout.position % self.window
        place = begin.unsqueeze(1) + torch.arange(self.window, device=begin.device)
        rows = F.pad(layout.rows, (0, self.window, 0, 1), value=layout.cells.shape[0])
        return rows[layout.dialogue.unsqueeze(1), place.clamp(max=rows.shape[1] - 1)]
