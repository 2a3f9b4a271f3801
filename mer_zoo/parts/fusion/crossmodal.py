"""Transformers from every modality to every other."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import torch
from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.encoder.transformer import attend, positions
from mer_zoo.parts.fusion.widths import at_least_two


class CrossModal(nn.Module):
    r"""Let the utterances of each modality attend to those of every other in their dialogue (MulT; Tsai et al. 2019).

    For each ordered pair of a target m and a source n, from $h = W_m x_m + p$ and $s = W_n x_n + p$, p sinusoidal
    positions, `layers` times with weights of their own:
    $$h \leftarrow h + \mathrm{attention}(\mathrm{LN}(h), \mathrm{LN}(s)),\qquad
      h \leftarrow h + W_2\,\mathrm{relu}(W_1\,\mathrm{LN}(h))$$
    The result is all pairs side by side.

    Inputs:
        states: modality -> float `[N, width]`; layout.
    Outputs:
        float `[N, modalities * (modalities - 1) * hidden]`, ordered by target, then source.

    Args:
        widths: modality -> width (a fact).
        hidden: width of every pair, divisible by `heads`; even.
        heads: attention heads.
        layers: layers of each pair.
        dropout: probability, everywhere.

    Raises:
        MerZooError: one modality alone.
        ValueError: `hidden` is not divisible by the number of heads, or odd.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> CrossModal({"text": 6, "audio": 4}, hidden=8, heads=2)(batch.features, batch.layout).shape
        torch.Size([10, 16])
    """

    def __init__(
        self, widths: Mapping[str, int], *, hidden: int = 64, heads: int = 4, layers: int = 1, dropout: float = 0.1
    ) -> None:
        super().__init__()
        at_least_two(widths)
        if hidden % heads or hidden % 2:
            raise ValueError(f"hidden width {hidden} must be even and divisible by {heads} heads")
        self.hidden = hidden
        self.pairs = tuple(permutations(widths, 2))
        self.out_width = len(self.pairs) * hidden
        self.maps = nn.ModuleDict({m: nn.Linear(width, hidden) for m, width in widths.items()})
        self.towers = nn.ModuleList(
            nn.ModuleList(CrossLayer(hidden, heads, dropout, pair) for _ in range(layers)) for pair in self.pairs
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, states: Mapping[str, Tensor], layout: Layout) -> Tensor:
        """Attend across modalities within each dialogue."""
        padded = {m: layout.pad(layer(states[m])) for m, layer in self.maps.items()}
        first = next(iter(padded.values()))
        place = positions(first.shape[1], self.hidden, first)
        x = {m: self.drop(p + place) for m, p in padded.items()}
        shown = layout.is_utterance
        shown = shown | ~shown.any(-1, keepdim=True)  # a dialogue without utterances attends to its own padding
        results = []
        for (target, source), tower in zip(self.pairs, self.towers, strict=True):
            h = x[target]
            for layer in tower.children():
                h = layer(h, x[source], shown)
            results.append(h)
        return layout.unpad(torch.cat(results, -1))


class CrossLayer(nn.Module):
    """One layer of a pair: attention from target to source and a feed-forward part, each with a residual.

    Inputs:
        x, source: float `[B, L, width]`; shown: bool `[B, L]`, places of the source that may be attended to.
    Outputs:
        float `[B, L, width]`.
    """

    def __init__(self, width: int, heads: int, dropout: float, between: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.heads, self.between = heads, between  # for those who are told of its attention
        self.norm, self.source_norm, self.feed_norm = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(3))
        self.key = nn.Linear(width, width, bias=False)  # a bias would cancel in the softmax
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, source: Tensor, shown: Tensor) -> Tensor:
        """Run the layer."""
        source = self.source_norm(source)
        heads = (self.query(self.norm(x)), self.key(source), self.value(source))
        q, k, v = (h.unflatten(-1, (self.heads, -1)).transpose(1, 2) for h in heads)
        attended = attend(q, k, v, shown[:, None, None, :], self.drop.p if self.training else 0.0)
        h = x + self.drop(self.out(attended.transpose(1, 2).flatten(-2)))
        return h + self.drop(self.narrow(self.drop(self.widen(self.feed_norm(h)).relu())))
