"""The stages of a model: what each kind does with the states that reach it."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from mer_zoo.batch.output import UTTERANCE, States
from mer_zoo.graph.lowering import ViewSpec
from mer_zoo.model.vmapped import Call, can_be_mapped, run

if TYPE_CHECKING:
    from mer_zoo.corpus import ConversationBatch
    from mer_zoo.registry import Card

Group = tuple[str, ...]
"""Node types that one instance of a part runs on."""


@dataclass(frozen=True)
class Flow:
    """What is handed from stage to stage; a stage returns a new one.

    Attributes:
        batch: the utterances, who speaks where, and the edges.
        states: node type -> float `[N, width]`.
        weights: the edge weights that the last edge-weight stage made, by the group of node types they lie between.
        saved: stage -> the states after it.
        modality_logits: modality -> `[N, classes]`, once there are heads per modality.
        notes: what a balancing strategy noted for its later hooks.
    """

    batch: ConversationBatch
    states: States
    weights: Mapping[Group, tuple[ViewSpec, Tensor]] = field(default_factory=dict)
    saved: Mapping[str, States] = field(default_factory=dict)
    modality_logits: States = field(default_factory=dict)
    notes: States = field(default_factory=dict)

    def with_states(self, states: States, **notes: Tensor) -> Flow:
        """Return the flow with other states, and with further notes."""
        return replace(self, states=states, notes={**self.notes, **notes})


class Stage(nn.Module, abc.ABC):
    """One step of a model.

    Args:
        name: in the recipe.
        card: that of its part; None for stages without one.
        parts: an instance per group of node types.
        views: what each group sees of the graph, for stages that see it.
        sources: earlier stages that it goes back to.
    """

    kind: ClassVar[str]
    """What a recipe calls this kind of stage."""

    def __init__(
        self,
        name: str,
        card: Card | None,
        parts: Mapping[Group, nn.Module],
        views: Mapping[Group, ViewSpec],
        sources: Sequence[str],
    ) -> None:
        super().__init__()
        self.name, self.card, self.views, self.sources = name, card, dict(views), tuple(sources)
        self.stackable = (card is None or card.stackable) and all(map(can_be_mapped, parts.values()))
        self.capturable = card is None or card.capturable
        self.groups = {"+".join(group): group for group in parts}
        self.parts = nn.ModuleDict({"+".join(group): part for group, part in parts.items()})

    def forward(self, flow: Flow) -> Flow:
        """Return the flow after this stage."""
        after = self.act(flow)
        return replace(after, saved={**flow.saved, self.name: after.states})

    @abc.abstractmethod
    def act(self, flow: Flow) -> Flow:
        """Return the flow with what this kind of stage changes in it."""


class EncoderStage(Stage):
    """Each node type for itself."""

    kind = "encoder"

    def act(self, flow: Flow) -> Flow:
        """Encode the states; node types that the stage leaves out stay as they are."""
        nodes = {node: self.parts[key] for key, group in self.groups.items() for node in group}
        calls = [Call(part, flow.states[node], (flow.batch.layout,)) for node, part in nodes.items()]
        return flow.with_states({**flow.states, **dict(zip(nodes, run(calls, self.stackable), strict=True))})


class HeadStage(EncoderStage):
    """Logits; those of single modalities are remembered, for losses and balancing."""

    kind = "head"

    def act(self, flow: Flow) -> Flow:
        """Judge."""
        after = super().act(flow)
        return after if UTTERANCE in after.states else replace(after, modality_logits=after.states)


class LayerStage(Stage):
    """Messages along the graph's edges, group by group."""

    kind = "layer"

    def act(self, flow: Flow) -> Flow:
        """Pass messages; edge weights that were made for the same edges go with them."""
        states, calls = dict(flow.states), []
        for key, group in self.groups.items():
            view = self.views[group]
            made_for, weights = flow.weights.get(group, (None, None))
            beside = (flow.batch.views[view], weights if made_for == view else None)
            calls.append(Call(self.parts[key], _interleaved([flow.states[node] for node in group]), beside))
        for group, y in zip(self.groups.values(), run(calls, self.stackable), strict=True):
            states.update(zip(group, _parted(y, len(group)), strict=True))
        return flow.with_states(states)


class EdgeWeightStage(Stage):
    """A weight for every edge, for the layers that follow."""

    kind = "edge_weight"

    def act(self, flow: Flow) -> Flow:
        """Weigh the edges."""
        weights = dict(flow.weights)
        for key, group in self.groups.items():
            view = self.views[group]
            x = _interleaved([flow.states[node] for node in group])
            weights[group] = (view, self.parts[key](x, flow.batch.views[view], flow.batch.layout))
        return replace(flow, weights=weights)


class FusionStage(Stage):
    """Several modalities become the utterance."""

    kind = "fusion"

    def act(self, flow: Flow) -> Flow:
        """Mix."""
        ((key, group),) = self.groups.items()
        return flow.with_states({UTTERANCE: self.parts[key]({m: flow.states[m] for m in group}, flow.batch.layout)})


class SkipStage(Stage):
    """Outputs of earlier stages in front of the current states."""

    kind = "skip"

    def act(self, flow: Flow) -> Flow:
        """Concatenate."""
        earlier = [flow.saved[name] for name in self.sources]
        return flow.with_states(
            {node: torch.cat([*(states[node] for states in earlier), x], -1) for node, x in flow.states.items()}
        )


class StartStage(Stage):
    """A second branch begins where an earlier stage ended."""

    kind = "start"

    def act(self, flow: Flow) -> Flow:
        """Go back."""
        return flow.with_states(flow.saved[self.sources[0]])


STAGES: dict[str, type[Stage]] = {
    stage.kind: stage
    for stage in (EncoderStage, LayerStage, EdgeWeightStage, FusionStage, HeadStage, SkipStage, StartStage)
}


def _interleaved(states: Sequence[Tensor]) -> Tensor:
    """`[N, d]` each → nodes `[N * M, d]`, utterance by utterance."""
    return states[0] if len(states) == 1 else torch.stack(list(states), 1).flatten(0, 1)


def _parted(x: Tensor, count: int) -> Sequence[Tensor]:
    """The inverse of `_interleaved`."""
    return [x] if count == 1 else x.unflatten(0, (-1, count)).unbind(1)
