"""Graph convolutions between two modalities, every hop read out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.errors import MerZooError
from mer_zoo.kernel.base import Kernel
from mer_zoo.parts.layer.gcnii import symmetric_normalisation
from mer_zoo.parts.ops.dropout import Dropout


class BipartiteGCN(nn.Module):
    r"""Hop to and fro between two modalities and add up what each hop sees (GraphSmile §3.4).

    $$x^l = \hat{A} x^{l-1} W_l + b_l,\qquad y = x^0 + \sum_l \mathrm{drop}(\mathrm{LeakyReLU}(V_l x^l + c_l))$$
    $\hat{A} = D^{-1/2} A D^{-1/2}$. The published code weighs edges by numbers learned for their order in the batch, so
    a dialogue's output depends on the dialogues before it; `numbered_edges` does the same, for comparison only.

    Inputs:
        x: float `[nodes, width]`; edges: kernel; weights: masked `[*edges]`, or None for 1.
    Outputs:
        float `[nodes, width]`.

    Args:
        width: width of x (a fact).
        depth: number of hops.
        dropout: probability, on what is read of every hop.
        numbered_edges: how many edges of a batch have a weight of their own, published 500,000; null: all weigh 1.

    Raises:
        MerZooError: `numbered_edges` on a graph with nodes beside the utterances.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> BipartiteGCN(6)(batch.features["text"], edges, None).shape
        torch.Size([10, 6])
    """

    def __init__(
        self,
        width: int,
        *,
        depth: int = 5,
        dropout: float = 0.2,
        numbered_edges: int | None = None,
    ) -> None:
        super().__init__()
        self.out_width = width
        self.hops, self.readings = (nn.ModuleList(nn.Linear(width, width) for _ in range(depth)) for _ in range(2))
        self.edge_weight = nn.Parameter(torch.ones(numbered_edges)) if numbered_edges else None
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Hop."""
        if self.edge_weight is not None:
            if edges.own:
                raise MerZooError("numbered_edges: numbers edges between utterances alone. Leave it out.")
            weights = _looked_up(self.edge_weight, edges)
        weights = symmetric_normalisation(edges, edges.ones.to(x.dtype) if weights is None else weights)
        total = x
        for hop, reading in zip(self.hops, self.readings, strict=True):
            mapped = F.linear(x, hop.weight)  # type: ignore[arg-type]
            x = edges.aggregate(weights.unsqueeze(0), mapped.unsqueeze(0)).squeeze(0) + hop.bias  # type: ignore[operator]
            total = total + self.drop(F.leaky_relu(reading(x)))
        return total


def _looked_up(table: Tensor, edges: Kernel) -> Tensor:
    """Give every edge the number of its place in the batch: by dialogue, side, centre, neighbour; masked `[*edges]`."""
    rows, cells, count = edges.index.rows, edges.index.cells, edges.nodes_per_utterance
    real = cells < rows.numel()
    dialogue = torch.where(real, cells // rows.shape[1], rows.shape[0])
    place = cells - cells // rows.shape[1] * rows.shape[1]  # a remainder, which torch cannot write as ONNX
    place = place.repeat_interleave(count).double()
    degree = edges.sum(edges.ones).double()
    by_side = degree.view(-1, count)
    before = by_side.cumsum(0) - by_side  # edges of this side up to this centre, in the whole batch
    per_dialogue = by_side.new_zeros(rows.shape[0] + 1, count).index_add(0, dialogue, by_side)
    started = per_dialogue.cumsum(0) - per_dialogue
    offset = started.sum(1, keepdim=True) + per_dialogue.cumsum(1) - per_dialogue
    first = (before - started[dialogue] + offset[dialogue]).flatten()  # number of a centre's first edge
    total = edges.sum(edges.mask(edges.source(place).to(edges.ones.dtype))).double()
    nearest = total / degree.clamp(min=1) - (degree - 1) / 2  # place of a centre's first neighbour: a window has no gap
    number = edges.mask(edges.target(first - nearest) + edges.source(place))
    number = number.round().long().clamp(max=table.shape[0] - 1)
    return edges.mask(table.index_select(0, number.flatten()).view(number.shape))
