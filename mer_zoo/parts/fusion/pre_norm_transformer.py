"""Pre-norm transformer layers from one modality to another, without positions."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.encoder.transformer import attend
from mer_zoo.parts.fusion.widths import equal_width
from mer_zoo.parts.ops.dropout import Dropout


class PreNormTransformer(nn.Module):
    r"""Let the first modality attend to the others in its dialogue, or to itself, layer by layer (MulT; CORECT §3.4).

    For `per: other`, `pair` and `itself`, where the first is the target. $h = \sqrt{d}\,x_t$, $s = \sqrt{d}\,x_s$, then
    `layers` times
    $$h \leftarrow h + \mathrm{attention}(\mathrm{LN}(h), \mathrm{LN}(s)),\qquad
      h \leftarrow h + W_2\,\mathrm{relu}(W_1\,\mathrm{LN}'(h))$$
    with one LN for both, and another LN at the end.

    Inputs:
        states: modality -> float `[N, width]`; layout: the dialogues.
    Outputs:
        float `[N, width]`.

    Args:
        widths: modality -> width, all equal, divisible by `heads` (a fact).
        heads: attention heads.
        layers: how many.
        dropout: probability, everywhere.

    Raises:
        MerZooError: the widths differ.
        ValueError: the width is not divisible by the number of heads.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> states = {"text": batch.features["text"], "audio": batch.features["text"]}
        >>> PreNormTransformer({"text": 6, "audio": 6}, heads=2)(states, batch.layout).shape
        torch.Size([10, 6])
    """

    def __init__(self, widths: Mapping[str, int], *, heads: int = 1, layers: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.out_width = width = equal_width(widths, "attended to")
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.target, *self.others = widths
        self.layers = nn.ModuleList(PreNormLayer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, states: Mapping[str, Tensor], layout: Layout) -> Tensor:
        """Attend within each dialogue."""
        shown = layout.is_utterance
        shown = shown | ~shown.any(-1, keepdim=True)  # a place holder without utterances attends to its own zeros
        scale = math.sqrt(self.out_width)
        h = layout.pad(states[self.target]) * scale
        sources = [layout.pad(states[other]) * scale for other in self.others]
        shown = shown.repeat(1, max(len(sources), 1))
        for layer in self.layers:
            h = layer(h, torch.cat(sources, 1) if sources else h, shown)
        return self.norm(layout.unpad(h))


class PreNormLayer(nn.Module):
    """One layer of `PreNormTransformer`.

    Inputs:
        x: float `[B, L, width]`; source: float `[B, M, width]`; shown: bool `[B, M]`, its places that count.
    Outputs:
        float `[B, L, width]`.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)  # query, key, value side by side
        self.norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, source: Tensor, shown: Tensor) -> Tensor:
        """Run the layer."""
        width = x.shape[-1]
        (ask, rest), (ask_bias, rest_bias) = (p.split([width, 2 * width]) for p in (self.mix.weight, self.mix.bias))
        mixed = (F.linear(self.norm(x), ask, ask_bias), *F.linear(self.norm(source), rest, rest_bias).chunk(2, -1))
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in mixed)
        attended = attend(q, k, v, shown[:, None, None, :], self.drop.p if self.training else 0.0)
        h = x + self.drop(self.out(attended.transpose(1, 2).flatten(-2)))
        return h + self.drop(self.narrow(self.drop(self.widen(self.feed_norm(h)).relu())))
