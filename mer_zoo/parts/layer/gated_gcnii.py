"""Deep graph convolution with a gate between its levels."""

from __future__ import annotations

import torch
from torch import Tensor

from mer_zoo.kernel.base import Kernel
from mer_zoo.parts.layer.gcnii import GCNII, symmetric_normalisation
from mer_zoo.parts.ops.cells import LSTMCell


class GatedGCNII(GCNII):
    r"""Graph-based dynamic fusion: `GCNII` with one LSTM step before every convolution (MM-DFN §2.3).

    $$(q^l, c^l) = \mathrm{LSTM}(h^{l-1}; q^{l-1}, c^{l-1}),\quad h^l = h^{l-1} + \mathrm{GCNII}_l(q^l)$$

    The LSTM is shared by all levels; its state belongs to the node and starts at zero.

    Inputs:
        x: float `[nodes, width]`; edges: kernel; weights: masked `[*edges]`, symmetric, or None for 1.
    Outputs:
        float `[nodes, hidden]`.

    Args:
        width: width of x (a fact).
        hidden: width of the states and of the result.
        depth: number of convolutions.
        alpha: share of the input in each, 0 to 1.
        beta: strength of the maps, above 0.
        dropout: probability, before the first convolution and behind each.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> GatedGCNII(6, hidden=4, depth=3)(batch.features["text"], edges, None).shape
        torch.Size([10, 4])
    """

    def __init__(
        self,
        width: int,
        *,
        hidden: int = 100,
        depth: int = 16,
        alpha: float = 0.2,
        beta: float = 0.5,
        dropout: float = 0.4,
    ) -> None:
        super().__init__(width, hidden=hidden, depth=depth, alpha=alpha, beta=beta, dropout=dropout)
        self.gate = LSTMCell(hidden, hidden)

    def forward(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Gate and pass messages `depth` times."""
        weights = symmetric_normalisation(edges, edges.ones.to(x.dtype) if weights is None else weights)
        messages = edges.propagation(weights.unsqueeze(0))
        start = messages.enter(self.first(x).relu().unsqueeze(0))
        h = self.drop(start)
        state = torch.zeros_like(h), torch.zeros_like(h)
        for matrix, constant in self._levels(start.flatten(0, -2)):
            state = self.gate(h, state)
            z = messages.send(state[0])
            h = h + self.drop(torch.addmm(constant, z.flatten(0, -2), matrix).relu().view_as(z))
        return messages.leave(h).squeeze(0)
