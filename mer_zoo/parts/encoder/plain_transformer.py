"""Transformer layers without positions, normalised behind each half."""

from __future__ import annotations

from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.encoder.transformer import attend
from mer_zoo.parts.ops.dropout import Dropout


class PlainTransformer(nn.Module):
    r"""Self-attention over the whole dialogue, post-norm (Vaswani et al. 2017, §3.1; COGMEN §3.2; CORECT §3.2).

    $$h = \mathrm{LN}(x + \mathrm{softmax}(QK^\top/\sqrt{d_h})V W_o),\qquad
      y = \mathrm{LN}(h + W_2\,\mathrm{relu}(W_1 h))$$

    Inputs:
        x: float `[N, width]`; layout: the dialogues.
    Outputs:
        float `[N, width]`.

    Args:
        width: width of x, divisible by `heads` (a fact).
        heads: attention heads.
        layers: how many.
        feed_forward: inner width of the feed-forward half.
        dropout: probability, everywhere.

    Raises:
        ValueError: the width is not divisible by the number of heads.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> PlainTransformer(6, heads=2)(batch.features["text"], batch.layout).shape
        torch.Size([10, 6])
    """

    def __init__(
        self, width: int, *, heads: int = 1, layers: int = 2, feed_forward: int = 2048, dropout: float = 0.5
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not divisible by {heads} heads")
        self.out_width = width
        self.layers = nn.ModuleList(PostNormLayer(width, heads, feed_forward, dropout) for _ in range(layers))

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """Attend within each dialogue."""
        shown = layout.is_utterance
        shown = shown | ~shown.any(-1, keepdim=True)  # a place holder without utterances attends to its own zeros
        for layer in self.layers:
            x = layer(x, layout, shown)
        return x


class PostNormLayer(nn.Module):
    """One layer of `PlainTransformer`.

    Inputs:
        x: float `[N, width]`; layout: the dialogues; shown: bool `[B, L]`, places that may be attended to.
    Outputs:
        float `[N, width]`.
    """

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)  # query, key, value side by side
        self.norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, layout: Layout, shown: Tensor) -> Tensor:
        """Run the layer; only attention itself sees padding."""
        q, k, v = layout.pad(self.mix(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = attend(q, k, v, shown[:, None, None, :], self.drop.p if self.training else 0.0)
        h = self.norm(x + self.drop(self.out(layout.unpad(attended.transpose(1, 2).flatten(-2)))))
        return self.feed_norm(h + self.drop(self.narrow(self.drop(self.widen(h).relu()))))
