"""A learned vector per speaker, added to what the speaker says."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer_zoo.batch.index import Layout


class SpeakerEmbedding(nn.Module):
    r"""Add a learned vector of the speaker: $y_i = x_i + e_{s(i)}$ (MMGCN §3.2; AMB-DSGDN).

    The look-up is a product with a one-hot, whose gradient is a product too.

    Inputs:
        x: float `[N, width]`; layout.
    Outputs:
        float `[N, width]`.

    Args:
        width: width of x (a fact).
        speakers: number of speakers; any beyond share the last one's vector (a fact).
        padding_row: keep one more row that nobody uses, as the published AMB-DSGDN does.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> SpeakerEmbedding(6, 3)(batch.features["text"], batch.layout).shape
        torch.Size([10, 6])
    """

    def __init__(self, width: int, speakers: int, *, padding_row: bool = False) -> None:
        super().__init__()
        self.out_width, self.speakers = width, speakers
        self.weight = nn.Parameter(torch.randn(speakers + padding_row, width))
        if padding_row:
            nn.init.zeros_(self.weight.data[-1])

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Add each speaker's vector."""
        every = torch.arange(self.weight.shape[0], device=x.device)
        speaker = layout.speaker.clamp(max=self.speakers - 1)
        return x + (speaker.unsqueeze(1) == every).to(x.dtype) @ self.weight
