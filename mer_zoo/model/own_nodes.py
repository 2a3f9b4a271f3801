"""Nodes of a graph builder's own: what they are at first, and what utterances get of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.batch.output import States
from mer_zoo.graph.base import Nodes
from mer_zoo.kernel.base import Kernel


class FirstStates(nn.Module):
    r"""The first states of nodes that begin at a stage.

    $$s_i = \tfrac{1}{|N(i)|}\sum_{j \in N(i)} x_j, \quad N(i) \text{ the utterances with an edge to } i$$

    for `mean`; a learned vector, or zeros, for the others.

    Inputs:
        group: node types of the stage; states: of these that have one; edges: kernel; layouts: of the builder's own.
    Outputs:
        states of all types of the group.

    Args:
        nodes: those that begin.
        width: of all states of the stage.

    Example:
        >>> first = FirstStates({"topic": Nodes(per=3, state="learned")}, 8)
        >>> {name: list(x.shape) for name, x in first.named_parameters()}
        {'learned.topic': [3, 8]}
    """

    def __init__(self, nodes: Mapping[str, Nodes], width: int) -> None:
        super().__init__()
        self.nodes, self.width = dict(nodes), width
        self.learned = nn.ParameterDict(
            {
                name: nn.Parameter(torch.randn(of.per if isinstance(of.per, int) else 1, width) * width**-0.5)
                for name, of in nodes.items()
                if of.state == "learned"
            }
        )

    def forward(self, group: tuple[str, ...], states: States, edges: Kernel, layouts: Mapping[str, Layout]) -> States:
        """Begin."""
        found = {name: states[name] for name in group if name in states}
        x = next(iter(found.values()))
        for name in group:
            if name in self.learned:
                rows = layouts[name].rows
                table = self.learned[name].to(x.dtype)
                found[name] = table.expand(rows.shape[1], -1).repeat(rows.shape[0], 1)
            elif name not in found:
                found[name] = x.new_zeros(layouts[name].cells.shape[0], self.width)
        if gathered := [name for name in group if name in self.nodes and self.nodes[name].state == "mean"]:
            said = edges.mask(edges.source((~edges.is_own).to(x.dtype)))
            every = edges.join([found[name] for name in group])
            total = edges.aggregate(said.unsqueeze(0), every.unsqueeze(0)).squeeze(0)
            means = edges.part(total / edges.sum(said).clamp(min=1).unsqueeze(-1))
            found |= {name: mean for name, mean in zip(group, means, strict=True) if name in gathered}
        return {name: found[name] for name in group}


def pooled(x: Tensor, of: Nodes, own: Layout, layout: Layout) -> Tensor:
    """Hand nodes of a builder's own to the utterances: its speaker's to each, or the mean of its dialogue's.

    Args:
        x: float `[nodes, width]`.
        of: what the builder says of them.
        own: where they lie.
        layout: where the utterances lie.

    Returns:
        float `[N, width]`.
    """
    dialogues, most = own.rows.shape
    there = own.is_utterance
    if of.per == "speaker":
        speaker = layout.pad(layout.speaker.unsqueeze(-1))  # [B, L, 1]
        share = (speaker == torch.arange(most, device=x.device)).to(x.dtype)
    else:
        mean = there.to(x.dtype) / there.sum(1, keepdim=True).clamp(min=1).to(x.dtype)
        share = mean.unsqueeze(1).expand(-1, layout.rows.shape[1], -1)
    states = torch.where(there.unsqueeze(-1), x.view(dialogues, most, x.shape[-1]), 0)
    return layout.unpad(share @ states)
