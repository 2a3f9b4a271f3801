"""Deep graph convolution with an initial residual and identity mapping."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mer_zoo.kernel.base import Kernel
from mer_zoo.parts.ops.dropout import Dropout


class GCNII(nn.Module):
    r"""A deep stack of graph convolutions that remembers its input (Chen et al. 2020, eq. 5, in MMGCN's variant, §3.4).

    $$h^0 = \mathrm{relu}(W_0 x),\quad z = \hat{A} h^{l-1},\quad
      h^l = \mathrm{relu}\big(\theta_l [z; h^0] W_l + (1-\theta_l)((1-\alpha) z + \alpha h^0)\big),\quad
      \theta_l = \ln(\beta / l + 1)$$
    $\hat{A} = D^{-1/2} A D^{-1/2}$ of the weighted edges.

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
        dropout: probability before each convolution and behind the last.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> GCNII(6, hidden=4, depth=3)(batch.features["text"], edges, None).shape
        torch.Size([10, 4])
    """

    theta: Tensor

    def __init__(
        self,
        width: int,
        *,
        hidden: int = 100,
        depth: int = 64,
        alpha: float = 0.1,
        beta: float = 0.5,
        dropout: float = 0.4,
    ) -> None:
        super().__init__()
        self.out_width, self.alpha = hidden, alpha
        self.first = nn.Linear(width, hidden)
        bound = hidden**-0.5
        self.maps = nn.ParameterList(torch.empty(2 * hidden, hidden).uniform_(-bound, bound) for _ in range(depth))
        theta = torch.tensor([math.log(beta / level + 1) for level in range(1, depth + 1)])
        self.register_buffer("theta", theta.view(-1, 1, 1), persistent=False)
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Pass messages `depth` times."""
        weights = symmetric_normalisation(edges, edges.ones.to(x.dtype) if weights is None else weights)
        messages = edges.propagation(weights.unsqueeze(0))
        h = start = messages.enter(self.first(x).relu().unsqueeze(0))
        for matrix, constant in self._levels(start.flatten(0, -2)):
            z = messages.send(self.drop(h))
            h = torch.addmm(constant, z.flatten(0, -2), matrix).relu().view_as(z)
        return self.drop(messages.leave(h).squeeze(0))

    def _levels(self, start: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Of every level, the matrix of z, and what does not depend on z: a level is then one product."""
        map_z, map_start = (self.theta * torch.stack(list(self.maps))).chunk(2, 1)
        eye = (1 - self.theta) * torch.eye(self.out_width, dtype=self.theta.dtype, device=start.device)
        constants = start @ (map_start + self.alpha * eye).movedim(0, 1).flatten(1)
        return zip(map_z + (1 - self.alpha) * eye, constants.unflatten(1, (len(self.maps), -1)).unbind(1), strict=True)


def symmetric_normalisation(edges: Kernel, weights: Tensor) -> Tensor:
    r"""Return $a_{ij} / \sqrt{d_i d_j}$ with $d_i$ the sum of the weights that enter i; masked `[*edges]`."""
    degree = edges.sum(weights)
    scale = torch.where(degree > 0, degree.clamp(min=torch.finfo(degree.dtype).tiny).rsqrt(), 0.0)
    return weights * edges.target(scale) * edges.source(scale)
