"""Plain graph convolution."""

from __future__ import annotations

from torch import Tensor, nn

from mer_zoo.kernel.base import Kernel


class GraphConv(nn.Module):
    r"""Sum over neighbours and a root term, unnormalised (Morris et al. 2019, eq. 1; DialogueGCN §3.3.2).

    $$y_i = W_1 x_i + b + W_2 \sum_{j \in N(i)} x_j$$

    Inputs:
        x: float `[nodes, width]`; edges: kernel; weights: masked `[*edges]`, used only if `weighted`.
    Outputs:
        float `[nodes, out_width]`.

    Args:
        width: width of x (a fact).
        out_width: width of the result.
        weighted: multiply each message by its edge weight.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> GraphConv(6, out_width=4)(batch.features["text"], edges, None).shape
        torch.Size([10, 4])
    """

    def __init__(self, width: int, *, out_width: int = 100, weighted: bool = False) -> None:
        super().__init__()
        self.out_width, self.weighted = out_width, weighted
        self.neighbours = nn.Linear(width, out_width, bias=False)
        self.root = nn.Linear(width, out_width)

    def forward(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Pass messages once."""
        if weights is None or not self.weighted:
            weights = edges.ones.to(x.dtype)
        summed = edges.aggregate(weights.unsqueeze(0), x.unsqueeze(0)).squeeze(0)
        return self.neighbours(summed) + self.root(x)
