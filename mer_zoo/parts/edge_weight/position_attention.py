"""Edge weights by position, as DialogueGCN publishes them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.errors import MerZooError
from mer_zoo.kernel.base import Kernel


class PositionAttention(nn.Module):
    r"""Softmax over the window of a learned vector per position (DialogueGCN's published code).

    $$a_{ij} = \exp(w_{p(i)}\cdot h_j) \big/ \textstyle\sum_{k} \exp(w_{p(i)}\cdot h_k)$$

    over all edges i→k that leave the window centre i. (The paper's $h_i^\top W h_j$ is `bilinear`.)

    Inputs:
        x: float `[nodes, width]`; edges: kernel with edges that leave window centres; layout: positions.
    Outputs:
        masked `[*edges]`.

    Args:
        width: width of x (a fact).
        longest: number of positions with a vector of their own; later utterances share the last.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> PositionAttention(6, longest=9)(batch.features["text"], edges, batch.layout).dim() > 0
        True
    """

    def __init__(self, width: int, *, longest: int = 110) -> None:
        super().__init__()
        self.score = nn.Linear(width, longest, bias=False)

    def forward(self, x: Tensor, edges: Kernel, layout: Layout) -> Tensor:
        """Weigh all edges."""
        if edges.nodes_per_utterance != 1 or edges.own:
            raise MerZooError(
                "edge_weight/position_attention: works on one node type at a time. Fuse modalities first."
            )
        position = layout.position.clamp(max=self.score.out_features - 1)
        every = torch.arange(self.score.out_features, device=x.device)
        own = (position.unsqueeze(1) == every).to(x.dtype) @ self.score.weight
        return edges.softmax_outgoing(edges.dot(x.unsqueeze(0), own.unsqueeze(0)).squeeze(0))
