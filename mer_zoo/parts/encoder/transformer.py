"""Self-attention over all utterances of a dialogue."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.batch.looking import looked
from mer_zoo.parts.ops.dropout import Dropout, dropout


class Transformer(nn.Module):
    r"""Sinusoidal positions, dropout, then transformer layers over the whole dialogue (AMB-DSGDN; Vaswani et al. 2017).

    $$h = x + \mathrm{softmax}(QK^\top/\sqrt{d_h})V W_o, \qquad y = h + W_2\,\mathrm{gelu}(W_1\,\mathrm{LN}(h))$$

    Layers after the first normalise their input; the first does not, so its norm is without effect and gradient, as
    published.

    Inputs:
        x: float `[N, width]`; layout.
    Outputs:
        float `[N, width]`.

    Args:
        width: width of x, divisible by `heads`; even (a fact).
        heads: attention heads.
        layers: how many.
        feed_forward: inner width of the feed-forward part; null: `width`.
        dropout: probability, everywhere.

    Raises:
        ValueError: the width is not divisible by the number of heads.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> Transformer(6, heads=2)(batch.features["text"], batch.layout).shape
        torch.Size([10, 6])
    """

    def __init__(
        self,
        width: int,
        *,
        heads: int = 8,
        layers: int = 1,
        feed_forward: int | None = None,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.out_width = width
        self.drop = Dropout(dropout)
        self.layers = nn.ModuleList(
            TransformerLayer(width, heads, feed_forward or width, dropout, first=i == 0) for i in range(layers)
        )

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Attend within each dialogue."""
        place = positions(layout.rows.shape[1], self.out_width, x)
        h = self.drop(x + place[layout.position])
        shown = layout.is_utterance
        shown = shown | ~shown.any(-1, keepdim=True)  # a place holder without utterances attends to its own zeros
        for layer in self.layers:
            h = layer(h, layout, shown)
        return h


class TransformerLayer(nn.Module):
    """One layer: attention and a feed-forward part, each with a residual.

    Inputs:
        x: float `[N, width]`; layout; shown: bool `[B, L]`, keys that may be attended to; sources: what x attends
            to, each float `[N, width]`; none: itself.
    Outputs:
        float `[N, width]`.
    """

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float, first: bool) -> None:
        super().__init__()
        self.heads, self.first = heads, first
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.feed_norm = nn.LayerNorm(width, eps=1e-6)
        self.widen, self.narrow = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, layout: Layout, shown: Tensor, sources: Sequence[Tensor] = ()) -> Tensor:
        """Run the layer; only attention itself sees padding."""
        if not self.first:
            x = self.norm(x)
        if sources:
            rest = [layout.pad(torch.cat([self.key(s), self.value(s)], -1)) for s in sources]
            mixed = (layout.pad(self.query(x)), *torch.cat(rest, 1).chunk(2, -1))
            q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in mixed)
            shown = shown.repeat(1, len(sources))
        else:
            padded = layout.pad(torch.cat([self.query(x), self.key(x), self.value(x)], -1))
            q, k, v = padded.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = attend(q, k, v, shown[:, None, None, :], self.drop.p if self.training else 0.0)
        h = x + self.drop(self.out(layout.unpad(attended.transpose(1, 2).flatten(-2))))
        inner = self.drop(F.gelu(self.widen(self.feed_norm(h)), approximate="tanh"))
        return h + self.drop(self.narrow(inner))


def attend(query: Tensor, key: Tensor, value: Tensor, shown: Tensor, probability: float) -> Tensor:
    """Scaled dot-product attention with dropout on its weights, `[..., L, d]`."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    weights = looked(scores.masked_fill(~shown, torch.finfo(scores.dtype).min).softmax(-1))
    return dropout(weights, probability) @ value


def positions(length: int, width: int, like: Tensor) -> Tensor:
    r"""Sinusoidal positions `[length, width]`: $\sin(p\,10000^{-2i/d})$, $\cos$ in turn (Vaswani et al. 2017, §3.5)."""
    place = torch.arange(length, device=like.device, dtype=torch.float32).unsqueeze(1)
    rate = torch.exp(torch.arange(0, width, 2, device=like.device, dtype=torch.float32) * (-math.log(10000.0) / width))
    angle = place * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width].to(like.dtype)
