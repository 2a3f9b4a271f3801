"""A transformer layer from one modality to another, with positions."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.encoder.transformer import TransformerLayer, positions
from mer_zoo.parts.fusion.widths import equal_width
from mer_zoo.parts.ops.dropout import Dropout


class CrossTransformer(nn.Module):
    r"""Let the first modality attend to the others in its dialogue, or to itself if it is alone (SDT; Ma et al. 2024).

    For `per: pair` and `per: other`, where the first is the target. $h = x_t + p$, $s = x_s + p$ with sinusoidal
    positions p,
    $$h \leftarrow h + \mathrm{attention}(h, s),\qquad y = h + W_2\,\mathrm{gelu}(W_1\,\mathrm{LN}(h))$$

    Inputs:
        states: modality -> float `[N, width]`; layout: the dialogues.
    Outputs:
        float `[N, width]`.

    Args:
        widths: modality -> width, all equal, divisible by `heads` (a fact).
        heads: attention heads.
        feed_forward: inner width of the feed-forward half; null: the width.
        dropout: probability, everywhere.

    Raises:
        MerZooError: the widths differ.
        ValueError: the width is not divisible by the number of heads.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> states = {"text": batch.features["text"], "audio": batch.features["text"]}
        >>> CrossTransformer({"text": 6, "audio": 6}, heads=2)(states, batch.layout).shape
        torch.Size([10, 6])
    """

    def __init__(
        self, widths: Mapping[str, int], *, heads: int = 1, feed_forward: int | None = None, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.out_width = width = equal_width(widths, "attended to")
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.target, *self.others = widths
        self.layer = TransformerLayer(width, heads, feed_forward or width, dropout, first=True)
        self.drop = Dropout(dropout)

    def forward(self, states: Mapping[str, Tensor], layout: Layout) -> Tensor:
        """Attend once."""
        shown = layout.is_utterance
        shown = shown | ~shown.any(-1, keepdim=True)  # a place holder without utterances attends to its own zeros
        target = states[self.target]
        place = positions(layout.rows.shape[1], self.out_width, target)[layout.position]
        x = self.drop(target + place)
        return self.layer(x, layout, shown, [self.drop(states[other] + place) for other in self.others])
