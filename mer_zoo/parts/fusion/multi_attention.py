"""Attention from one modality to every other, one after the other."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.encoder.transformer import attend
from mer_zoo.parts.fusion.widths import equal_width
from mer_zoo.parts.ops.dropout import Dropout


class MultiAttention(nn.Module):
    r"""Let the first modality take in the others one by one, layer by layer (MultiEMO §3.4; Shi and Huang 2023).

    For `per: each`, where the first is the target t. $h = x_t$, then `layers` times: for every other modality s in turn
    $$h \leftarrow \mathrm{LN}_s(h + \mathrm{attention}_s(h, x_s)),\quad\text{then}\quad
      h \leftarrow \mathrm{LN}(h + W_2\,\mathrm{relu}(W_1 h))$$
    Attention is over the utterances of the dialogue; the sources stay as they came. A modality alone attends to itself.

    Inputs:
        states: modality -> float `[N, width]`; layout: the dialogues.
    Outputs:
        float `[N, width]`.

    Args:
        widths: modality -> width, all equal, divisible by `heads` (a fact).
        heads: attention heads.
        layers: how many.
        feed_forward: inner width of the feed-forward half; null: four times the width.
        dropout: probability, on every sum.

    Raises:
        MerZooError: the widths differ.
        ValueError: the width is not divisible by the number of heads.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> states = {"text": batch.features["text"], "audio": batch.features["text"]}
        >>> MultiAttention({"text": 6, "audio": 6}, heads=2)(states, batch.layout).shape
        torch.Size([10, 6])
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        *,
        heads: int = 1,
        layers: int = 2,
        feed_forward: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.out_width = width = equal_width(widths, "attended to")
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.target, *self.others = widths
        sources = max(len(self.others), 1)
        self.layers = nn.ModuleList(
            MultiAttentionLayer(width, sources, heads, feed_forward or 4 * width, dropout) for _ in range(layers)
        )

    def forward(self, states: Mapping[str, Tensor], layout: Layout) -> Tensor:
        """Take in."""
        shown = layout.is_utterance
        shown = shown | ~shown.any(-1, keepdim=True)  # a place holder without utterances attends to its own zeros
        h = layout.pad(states[self.target])
        sources = [layout.pad(states[other]) for other in self.others or (self.target,)]
        for layer in self.layers:
            h = layer(h, sources, shown)
        return layout.unpad(h)


class MultiAttentionLayer(nn.Module):
    """One layer of `MultiAttention`.

    Inputs:
        x: float `[B, L, width]`; sources: as many such; shown: bool `[B, L]`, places that count.
    Outputs:
        float `[B, L, width]`.
    """

    def __init__(self, width: int, sources: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.takes = nn.ModuleList(CrossAttention(width, heads) for _ in range(sources))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(sources + 1))
        self.widen, self.narrow = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, sources: list[Tensor], shown: Tensor) -> Tensor:
        """Run the layer."""
        *norms, last = self.norms
        for take, norm, source in zip(self.takes, norms, sources, strict=True):
            x = norm(x + self.drop(take(x, source, shown)))
        return last(x + self.drop(self.narrow(self.widen(x).relu())))


class CrossAttention(nn.Module):
    """Attention of several heads from x to a source.

    Inputs:
        x, source: float `[B, L, width]`; shown: bool `[B, L]`, places of the source that count.
    Outputs:
        float `[B, L, width]`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)  # a bias would cancel in the softmax

    def forward(self, x: Tensor, source: Tensor, shown: Tensor) -> Tensor:
        """Attend."""
        mapped = (self.query(x), self.key(source), self.value(source))
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in mapped)
        return self.out(attend(q, k, v, shown[:, None, None, :], 0.0).transpose(1, 2).flatten(-2))
