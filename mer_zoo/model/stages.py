"""The stages of a model: what each kind does with the states that reach it."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from mer_zoo.batch.output import UTTERANCE, States
from mer_zoo.graph.lowering import ViewSpec
from mer_zoo.model.own_nodes import FirstStates, pooled
from mer_zoo.model.vmapped import Call, can_be_mapped, run

if TYPE_CHECKING:
    from mer_zoo.batch.index import Layout
    from mer_zoo.corpus import ConversationBatch
    from mer_zoo.model.plan import StageChoice
    from mer_zoo.model.wiring import Wire
    from mer_zoo.registry import Card

Group = tuple[str, ...]
"""Node types that one instance of a part runs on."""


@dataclass(frozen=True)
class Flow:
    """What is handed from stage to stage; a stage returns a new one.

    Attributes:
        batch: the utterances, who speaks where, and the edges.
        states: node type -> float `[N, width]`.
        own: node type of the graph builder's own -> float `[its nodes, width]`.
        layout: who speaks where among the rows of the states; the batch's, or, where padding is shown, with it.
        weights: the edge weights that the last edge-weight stage made, by the group of node types they lie between.
        saved: stage -> the states and the layout after it.
        modality_logits: modality -> `[N, classes]`, once there are heads per modality.
        tasks: name of a head beside the emotion's -> its logits, and what they should be.
        notes: what a balancing strategy noted for its later hooks.
        judged: the states that the head of the emotion was given, where it judges the utterance.
    """

    batch: ConversationBatch
    states: States
    layout: Layout
    weights: Mapping[Group, tuple[ViewSpec, Tensor]] = field(default_factory=dict)
    saved: Mapping[str, tuple[States, Layout]] = field(default_factory=dict)
    modality_logits: States = field(default_factory=dict)
    tasks: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    notes: States = field(default_factory=dict)
    own: States = field(default_factory=dict)
    judged: Tensor | None = None

    def with_states(self, states: States, **notes: Tensor) -> Flow:
        """Return the flow with other states, and with further notes."""
        return replace(self, states=states, notes={**self.notes, **notes})

    def changed(self, states: States) -> Flow:
        """Return the flow with these states of utterances and of the graph's own nodes."""
        own = {node: x for node, x in states.items() if node in self.batch.own}
        return replace(self, states={node: x for node, x in states.items() if node not in own}, own=own)


class Stage(nn.Module, abc.ABC):
    """One step of a model.

    Args:
        name: in the recipe.
        choice: what the plan says of it.
        wire: where it stands.
        card: that of its part; None for stages without one.
        parts: an instance per group of node types.
        first: for each group, what nodes of the graph's own that begin here are at first.
    """

    kind: ClassVar[str]
    """What a recipe calls this kind of stage."""

    capturable_itself: ClassVar[bool] = True
    """Whether it computes the same in a batch that is padded to a fixed shape."""

    def __init__(
        self,
        name: str,
        choice: StageChoice,
        wire: Wire,
        card: Card | None,
        parts: Mapping[Group, nn.Module],
        first: Mapping[Group, FirstStates] | None = None,
    ) -> None:
        super().__init__()
        self.name, self.choice, self.card = name, choice, card
        self.sources, self.views, self.outputs = choice.sources, dict(wire.views), dict(wire.outputs)
        self.stackable = _promised("stackable", card, parts) and all(map(can_be_mapped, parts.values()))
        self.capturable = self.capturable_itself and _promised("capturable", card, parts)
        self.groups = {"+".join(group): group for group in parts}
        self.parts = nn.ModuleDict({"+".join(group): part for group, part in parts.items()})
        self.pooled = dict(wire.pooled)
        if first:
            self.first = nn.ModuleDict({"+".join(group): states for group, states in first.items()})

    def forward(self, flow: Flow) -> Flow:
        """Return the flow after this stage."""
        after = self.act(flow)
        return replace(after, saved={**flow.saved, self.name: ({**after.states, **after.own}, after.layout)})

    def joined(self, flow: Flow, key: str) -> States:
        """Return the states of a group, those that begin here among them."""
        group, states = self.groups[key], {**flow.states, **flow.own}
        if key not in getattr(self, "first", ()):
            return {node: states[node] for node in group}
        return self.first[key](group, states, flow.batch.views[self.views[group]], flow.batch.own)

    @abc.abstractmethod
    def act(self, flow: Flow) -> Flow:
        """Return the flow with what this kind of stage changes in it."""


class EncoderStage(Stage):
    """Each node type for itself."""

    kind = "encoder"

    def act(self, flow: Flow) -> Flow:
        """Encode the states; node types that the stage leaves out stay as they are."""
        nodes = {node: self.parts[key] for key, group in self.groups.items() for node in group}
        states, layouts = {**flow.states, **flow.own}, flow.batch.own
        calls = [Call(part, states[node], (layouts.get(node, flow.layout),)) for node, part in nodes.items()]
        return flow.changed({**states, **dict(zip(nodes, run(calls, self.stackable), strict=True))})


class HeadStage(EncoderStage):
    """Logits; those of single modalities are remembered, for losses and balancing."""

    kind = "head"

    def act(self, flow: Flow) -> Flow:
        """Judge; what a head says of a task beside the emotion is for the loss alone: silent without labels."""
        if self.choice.task is not None and self.choice.task not in flow.batch.targets:
            return flow
        after = super().act(flow)
        if self.choice.task is None:
            after = replace(after, own={})
            if UTTERANCE in flow.states:
                return replace(after, judged=flow.states[UTTERANCE])
            return replace(after, modality_logits=after.states)
        ((key, (node,)),) = self.groups.items()
        targets, part = flow.batch.targets[self.choice.task], self.parts[key]
        targets = part.targets(targets, flow.layout) if hasattr(part, "targets") else targets  # type: ignore[operator]
        return replace(flow, tasks={**flow.tasks, self.name: (after.states[node], targets)})


class LayerStage(Stage):
    """Messages along the graph's edges, group by group."""

    kind = "layer"

    def act(self, flow: Flow) -> Flow:
        """Pass messages; edge weights that were made for the same edges go with them."""
        states, calls = {**flow.states, **flow.own}, []
        for key, group in self.groups.items():
            view = self.views[group]
            made_for, weights = flow.weights.get(group, (None, None))
            beside = (flow.batch.views[view], weights if made_for == view else None)
            calls.append(Call(self.parts[key], beside[0].join([*self.joined(flow, key).values()]), beside))
        for group, y in zip(self.groups.values(), run(calls, self.stackable), strict=True):
            states.update(zip(group, flow.batch.views[self.views[group]].part(y), strict=True))
        return flow.changed(states)


class EdgeWeightStage(Stage):
    """A weight for every edge, for the layers that follow."""

    kind = "edge_weight"

    def act(self, flow: Flow) -> Flow:
        """Weigh the edges."""
        weights, states = dict(flow.weights), {**flow.states, **flow.own}
        for key, group in self.groups.items():
            view = self.views[group]
            edges, inside = flow.batch.views[view], self.joined(flow, key)
            weights[group] = (view, self.parts[key](edges.join([*inside.values()]), edges, flow.layout))
            states |= inside
        return replace(flow.changed(states), weights=weights)


class FusionStage(Stage):
    """Several modalities become the utterance, or pairs of them."""

    kind = "fusion"

    def act(self, flow: Flow) -> Flow:
        """Mix, group by group, the states of utterances and what they get of the graph's own nodes."""
        states = dict(flow.states)
        for node, of in self.pooled.items():
            states[node] = pooled(flow.own[node], of, flow.batch.own[node], flow.layout)
        kept = {**flow.states, **flow.own} if self.choice.into is not None else {}
        made = {
            self.outputs[group]: self.parts[key]({node: states[node] for node in group}, flow.layout)
            for key, group in self.groups.items()
        }
        return flow.changed({**kept, **made})


class SkipStage(Stage):
    """Outputs of earlier stages in front of the current states."""

    kind = "skip"

    def act(self, flow: Flow) -> Flow:
        """Concatenate."""
        earlier = [flow.saved[name][0] for name in self.sources]
        return flow.changed(
            {
                node: torch.cat([*(states[node] for states in earlier if node in states), x], -1)
                for node, x in {**flow.states, **flow.own}.items()
            }
        )


class AddStage(Stage):
    """Outputs of earlier stages, weighted, added to the current states."""

    kind = "add"

    def act(self, flow: Flow) -> Flow:
        """Add up."""
        states = {**flow.states, **flow.own}
        for name, given in (self.choice.add or {}).items():
            earlier = flow.saved[name][0]
            for node in [node for node in states if node in earlier]:
                weight = given.get(node, 0.0) if isinstance(given, Mapping) else given
                states[node] = states[node] + weight * earlier[node]
        return flow.changed(states)


class StartStage(Stage):
    """A second branch begins where an earlier stage ended."""

    kind = "start"

    def act(self, flow: Flow) -> Flow:
        """Go back."""
        states, layout = flow.saved[self.sources[0]]
        return replace(flow.changed(states), layout=layout)


class PaddingStage(Stage):
    """Padding becomes utterances, or is left out again."""

    kind = "padding"
    capturable_itself = False

    def act(self, flow: Flow) -> Flow:
        """Lay the states out."""
        plain = flow.batch.layout
        if self.choice.padding == "shown":
            padded = {node: plain.pad(x).flatten(0, 1) for node, x in flow.states.items()}
            return replace(flow, states=padded, layout=plain.with_padding())
        ragged = {node: plain.unpad(x.unflatten(0, plain.rows.shape)) for node, x in flow.states.items()}
        return replace(flow, states=ragged, layout=plain)


STAGES: dict[str, type[Stage]] = {
    stage.kind: stage
    for stage in (
        *(EncoderStage, LayerStage, EdgeWeightStage, FusionStage, HeadStage),
        *(SkipStage, AddStage, StartStage, PaddingStage),
    )
}


def _promised(quality: str, card: Card | None, parts: Mapping[Group, nn.Module]) -> bool:
    """Whether all parts have a quality: as the card says, or the part itself where that depends on its settings."""
    return card is None or all(getattr(part, quality, getattr(card, quality)) for part in parts.values())
