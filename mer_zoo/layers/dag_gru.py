"""Recurrence along a directed acyclic graph, the layer of DAG-ERC."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mer_zoo.errors import MerZooError
from mer_zoo.kernels.base import Kernel
from mer_zoo.layers.cells import GRUCell


class DagGRU(nn.Module):
    r"""Utterance by utterance, attend to the new states of predecessors and mix two GRUs (DAG-ERC §3.3, eq. 3 to 9).

    $$m_i = \sum_j \mathrm{softmax}_j(a\cdot h_j)\, W_{\rho(ij)} h_j,\quad
      h_i = \mathrm{GRU}_C(x_i; m_i) + \mathrm{GRU}_P(m_i; x_i)$$

    The sums run over edges from earlier utterances; other edges are ignored, so the layer is causal. The query's half
    of the published attention cancels in the softmax and is left out. All dialogues advance together, one turn at a
    time.

    Inputs:
        x: float `[nodes, width]`, one node per utterance; edges: kernel; weights: ignored.
    Outputs:
        float `[nodes, width]`.

    Arguments:
        width: width of x (a fact).
        relations: names of all relations of the graph (a fact).

    Raises:
        MerZooError: several node types at once.

    Example:
        >>> from mer_zoo.testing import tiny_batch
        >>> batch = tiny_batch()
        >>> edges = next(iter(batch.views.values()))
        >>> DagGRU(6, edges.names)(batch.features["text"], edges, None).shape
        torch.Size([10, 6])
    """

    def __init__(self, width: int, relations: tuple[str, ...]) -> None:
        super().__init__()
        self.out_width = width
        self.score = nn.Linear(width, 1, bias=False)
        self.maps = nn.Parameter(torch.empty(len(relations), width, width).uniform_(-(width**-0.5), width**-0.5))
        self.context = GRUCell(width, width)
        self.message = GRUCell(width, width)

    def forward(self, x: Tensor, edges: Kernel, weights: Tensor | None) -> Tensor:
        """Walk along the dialogues."""
        if edges.nodes_per_utterance != 1:
            raise MerZooError("layer/dag_gru: works on one node type at a time. Choose relations within a node type.")
        inputs = edges.pad(x)  # [B, L, width]
        maps, reach = edges.pick(self.maps, 0), edges.reach
        kinds = edges.by_distance(edges.one_hot).to(x.dtype)[..., :reach]  # [relations, B, L, distance from the past]
        states: list[Tensor] = []
        scores: list[Tensor] = []
        for turn, now in enumerate(inputs.unbind(1)):
            first = max(0, turn - reach)
            message = torch.zeros_like(now)
            if turn > first:
                kind = kinds[:, :, turn, reach - turn + first :]  # [relations, B, predecessors]
                is_edge = kind.sum(0)
                score = torch.cat(scores[first:], -1).masked_fill(is_edge == 0, torch.finfo(x.dtype).min)
                attention = kind * score.softmax(-1)  # zero where a row has no edge
                seen = torch.einsum("rbp,bpd->rbd", attention, torch.stack(states[first:], 1))
                message = torch.einsum("rbi,rio->bo", seen, maps)
            states.append(self.context(now, message) + self.message(message, now))
            scores.append(self.score(states[-1]))
        return edges.unpad(torch.stack(states, 1))
