"""One bidirectional GRU over each speaker's own utterances."""

from __future__ import annotations

import torch
from torch import Tensor

from mer_zoo.batch.index import Layout
from mer_zoo.parts.encoder.bigru import BiGRU


class PartyGRU(BiGRU):
    r"""Read what each speaker says as a dialogue of its own, with the same `BiGRU` for all (MM-DFN §2.2).

    $$h_i = [\overrightarrow{h}_i;\overleftarrow{h}_i],\quad
      \overrightarrow{h}_i = \mathrm{GRU}(x_i, \overrightarrow{h}_{p(i)}),\quad
      \overleftarrow{h}_i = \mathrm{GRU}(x_i, \overleftarrow{h}_{n(i)})$$

    where p(i) and n(i) are the same speaker's turns before and after i.

    Inputs:
        x: float `[N, width]`; layout.
    Outputs:
        float `[N, 2 * hidden]`.

    Args:
        width: width of x (a fact).
        speakers: most speakers of a dialogue; any beyond share the last one's place (a fact).
        hidden, layers, dropout: as in `BiLSTM`.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> PartyGRU(6, 3, hidden=4)(batch.features["text"], batch.layout).shape
        torch.Size([10, 8])
    """

    def __init__(
        self,
        width: int,
        speakers: int,
        *,
        hidden: int = 100,
        layers: int = 2,
        dropout: float = 0.4,
    ) -> None:
        super().__init__(width, hidden=hidden, layers=layers, dropout=dropout)
        self.speakers = speakers

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Read each speaker's turns; where padding is shown, and zeros behind them up to the longest dialogue."""
        if layout.within is None:
            return super().forward(x, by_speaker(layout, self.speakers))
        whole, parted = layout.within, by_speaker(layout.within, self.speakers)
        own = parted.pad(whole.unpad(x.unflatten(0, whole.rows.shape)))
        y = super().forward(own.flatten(0, 1), parted.with_padding())
        return whole.pad(parted.unpad(y.unflatten(0, own.shape[:2]))).flatten(0, 1)


def by_speaker(layout: Layout, speakers: int) -> Layout:
    """Return the structure in which every speaker of every dialogue has a dialogue alone.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> by_speaker(tiny_batch().layout, 3).rows.shape
        torch.Size([6, 7])
    """
    count, size = layout.rows.shape
    total = layout.cells.shape[0]
    speaker = layout.speaker.clamp(max=speakers - 1)
    said = (speaker.unsqueeze(1) == torch.arange(speakers, device=speaker.device)).long()  # [N, speakers]
    said = layout.pad(said)  # [B, L, speakers]
    place = (layout.unpad(said.cumsum(1) * said).sum(1) - 1).clamp(min=0)
    cells = ((layout.dialogue * speakers + speaker) * size + place).clamp(max=count * speakers * size)
    rows = torch.full((count * speakers * size + 1,), total, device=cells.device)
    rows = rows.scatter(0, cells, torch.arange(total, device=cells.device))[:-1]
    return Layout(layout.speaker, place, said.sum(1).flatten(), rows.unflatten(0, (count * speakers, size)), cells)
