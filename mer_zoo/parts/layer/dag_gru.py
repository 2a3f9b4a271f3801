"""Recurrence along a directed acyclic graph, the layer of DAG-ERC."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.errors import MerZooError
from mer_zoo.kernel.base import Kernel
from mer_zoo.parts.ops.cells import GRUCell


class DagGRU(nn.Module):
    r"""Utterance by utterance, attend to the new states of predecessors and mix two GRUs (DAG-ERC §3.3, eq. 3 to 9).

    $$m_i = \sum_j \mathrm{softmax}_j(a\cdot h_j)\, W_{\rho(ij)} h_j,\quad
      h_i = \mathrm{GRU}_C(x_i; m_i) + \mathrm{GRU}_P(m_i; x_i)$$

    The sums run over edges from earlier utterances; other edges are ignored, so the layer is causal. The query's half
    of the published attention cancels in the softmax and is left out. All dialogues, and all nodes of an utterance,
    advance together, one turn at a time.

    Inputs:
        x: float `[nodes, width]`; edges: kernel; weights: ignored.
    Outputs:
        float `[nodes, width]`.

    Args:
        width: width of x (a fact).
        relations: names of all relations of the graph (a fact).

    Raises:
        MerZooError: there are nodes beside the utterances.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
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
        if edges.own:
            raise MerZooError("layer/dag_gru: walks along utterances alone. Leave the graph's own nodes out by `only`.")
        count, reach = edges.nodes_per_utterance, edges.reach
        inputs = edges.pad(x).unflatten(1, (-1, count))  # [B, L, nodes of an utterance, width]
        maps = edges.pick(self.maps, 0)
        kinds = F.pad(edges.by_distance(edges.one_hot).to(x.dtype)[..., :reach], (count - 1, 0))
        states: list[Tensor] = []
        scores: list[Tensor] = []
        for turn, now in enumerate(inputs.unbind(1)):
            last = turn * count
            first = max(0, last - reach)  # predecessors are the nodes from first to last
            message = torch.zeros_like(now)
            if last > first:
                begin = reach + count - 1 - (last - first)  # one column less for every further node of the utterance
                rows = [kinds[:, :, last + m, begin - m : begin - m + last - first] for m in range(count)]
                kind = torch.stack(rows, 2)  # [relations, B, nodes of the utterance, predecessors]
                score = torch.cat(scores[first // count :], 1)[:, None, first % count :]
                score = score.masked_fill(kind.sum(0) == 0, torch.finfo(score.dtype).min)
                attention = kind * score.softmax(-1)  # zero where a row has no edge
                seen = torch.cat(states[first // count :], 1)[:, first % count :]
                message = torch.einsum("rbmi,rio->bmo", torch.einsum("rbmp,bpi->rbmi", attention, seen), maps)
            states.append(self.context(now, message) + self.message(message, now))
            scores.append(self.score(states[-1]).squeeze(-1))
        return edges.unpad(torch.cat(states, 1))
