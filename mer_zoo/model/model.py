"""The model: the stages of a plan, and the way of a batch through them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from mer_zoo import registry
from mer_zoo.batch.output import UTTERANCE, Output, States
from mer_zoo.errors import MerZooError
from mer_zoo.model.own_nodes import FirstStates
from mer_zoo.model.plan import Plan, StageChoice
from mer_zoo.model.stages import STAGES, Flow, Group, HeadStage, Stage
from mer_zoo.model.wiring import Wire, wire

if TYPE_CHECKING:
    from mer_zoo.corpus import ConversationBatch


@dataclass(frozen=True)
class Facts:
    """What parts may ask of the data.

    Attributes:
        widths: modality -> width of its features.
        speakers, classes: how many there are.
        class_counts: training utterances of each class.
        longest: utterances of the longest dialogue that is trained, validated or tested on.
    """

    widths: Mapping[str, int]
    speakers: int
    classes: int
    class_counts: tuple[int, ...] = ()
    longest: int = 3


class Model(nn.Module):
    """A model assembled from a plan.

    Inputs:
        batch: a `ConversationBatch` from a `Corpus` made with this model's `builder` and `views`.
    Outputs:
        `Output`.

    Args:
        plan: what `filling.fill` returns.
        facts: widths, speakers and classes of the data.

    Raises:
        MerZooError: stages that do not fit together, named with the fix.

    Example:
        >>> from mer_zoo.model import filling, recipe
        >>> plan = filling.fill(recipe.read("bilstm"), {"text": 8})
        >>> model = Model(plan, Facts({"text": 8}, speakers=2, classes=6))
        >>> list(model.stages)
        ['join', 'context', 'classify']
    """

    def __init__(self, plan: Plan, facts: Facts) -> None:
        super().__init__()
        self.plan, self.facts = plan, facts
        self.modalities = tuple(plan.modalities)
        wiring = wire(plan, facts.speakers)
        self.builder, self.views, self.first_joint = wiring.builder, wiring.views, wiring.first_joint
        self.stages = nn.ModuleDict()
        for name in (*plan.modalities, *plan.model, *(s.into for s in plan.model.values() if s.into)):
            if hasattr(self.stages, name):
                raise MerZooError(f"model: torch needs the name '{name}' for itself. Rename the modality or stage.")
        widths: dict[str, int] = dict(plan.modalities)
        after: dict[str, dict[str, int]] = {}
        for name, stage in plan.model.items():
            made, widths = _make(name, stage, wiring.wires[name], widths, after, facts, plan, self.builder)
            self.stages[name] = made
            after[name] = widths
        judged = any(isinstance(s, HeadStage) and s.choice.task is None for s in self.stages.values())
        if not judged or widths != {UTTERANCE: facts.classes}:
            what = ", ".join(f"{node}: {width}" for node, width in widths.items())
            raise MerZooError(
                f"model: the stages end with states {what}, but must end with one row of {facts.classes} logits per "
                "utterance. End with a head after a fusion, or a fusion of logits (`logit_sum`) after a head."
            )

    def named_stages(self) -> list[tuple[str, Stage]]:
        """Return the stages with their names, in the order the data meets them."""
        return [(name, cast(Stage, stage)) for name, stage in self.stages.items()]

    def forward(self, batch: ConversationBatch) -> Output:
        """Run all stages."""
        return self.decide(self.encode(batch))

    def encode(self, batch: ConversationBatch) -> Flow:
        """Run the stages before the first joint one: each modality still has its own features."""
        flow = Flow(batch, {m: batch.features[m] for m in self.modalities}, batch.layout)
        for name, stage in self.named_stages():
            if name == self.first_joint:
                break
            flow = stage(flow)
        return flow

    def decide(self, flow: Flow) -> Output:
        """Run the stages from the first joint one on."""
        features, joint = flow.states, False
        for name, stage in self.named_stages():
            joint = joint or name == self.first_joint
            if joint:
                flow = stage(flow)
        return Output(flow.states[UTTERANCE], flow.modality_logits, features, flow.notes, dict(flow.tasks), flow.judged)

    def unimodal(self, flow: Flow) -> States:
        """Return the logits each modality would decide by alone.

        Those of its own head where it has one; otherwise those of the whole tail with the other modalities at zero.

        Args:
            flow: what `encode` returned.
        """
        first = self.stages[self.first_joint]
        if isinstance(first, HeadStage) and first.choice.task is None:
            return first(flow).states

        def alone(states: States, modality: str) -> States:
            return {n: x if n.partition("<")[0] == modality else torch.zeros_like(x) for n, x in states.items()}

        return {
            m: self.decide(
                replace(
                    flow,
                    states=alone(flow.states, m),
                    own={node: torch.zeros_like(x) for node, x in flow.own.items()},
                    saved={name: (alone(states, m), layout) for name, (states, layout) in flow.saved.items()},
                )
            ).logits
            for m in self.modalities
        }

    def modality_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters that belong to one modality alone: those of stages before the first joint one."""
        owned: dict[str, list[nn.Parameter]] = {m: [] for m in self.modalities}
        for name, stage in self.named_stages():
            if name == self.first_joint:
                break
            for key, group in stage.groups.items():
                if len(group) == 1 and group[0] in owned:
                    owned[group[0]] += list(stage.parts[key].parameters())
        return owned


def _make(
    name: str,
    stage: StageChoice,
    wire: Wire,
    widths: Mapping[str, int],
    after: Mapping[str, Mapping[str, int]],
    facts: Facts,
    plan: Plan,
    builder: object,
) -> tuple[Stage, dict[str, int]]:
    """Make a stage; returns it and the widths of the states after it."""
    made = STAGES[stage.kind]
    if stage.part is None:
        result = dict(after[stage.sources[0]] if stage.kind == "start" else widths)
        for source in stage.sources if stage.kind == "skip" else ():
            result = {node: width + after[source].get(node, 0) for node, width in result.items()}
        for source in stage.sources if stage.kind == "add" else ():
            _refuse_other_widths(source, after[source], widths, f"model.{name}")
        return made(name, stage, wire, None, {}), result
    assert stage.part is not None
    place = f"model.{name}"
    card = registry.find(stage.kind, stage.part.name, place)
    parts: dict[Group, nn.Module] = {}
    result = {node: widths.get(node, 0) for node in wire.after}
    classes = plan.tasks[stage.task] if stage.task else facts.classes
    first: dict[Group, FirstStates] = {}
    for group in wire.groups:
        if begin := {node: wire.begins[node] for node in group if node in wire.begins}:
            widths = {**widths, **dict.fromkeys(begin, widths[group[0]])}
            first[group] = FirstStates(begin, widths[group[0]])
        inside = {widths[node] for node in group}
        if stage.kind != "fusion" and len(inside) > 1:
            raise MerZooError(
                f"{place}: {card.id} runs on {', '.join(group)} together, but their widths differ "
                f"({', '.join(str(widths[n]) for n in group)}). Project them to one width before."
            )
        known = {
            "width": next(iter(inside)),
            "widths": {node: widths[node] for node in group},
            "relations": getattr(builder, "relations", ()),
            "speakers": facts.speakers,
            "classes": classes,
            "class_counts": facts.class_counts,
        }
        part = registry.build(card, stage.part.settings, known, place)
        if not isinstance(part, nn.Module):
            raise MerZooError(f"{place}: {card.id} makes a {type(part).__name__}, not a torch module.")
        parts[group] = part
        if hasattr(part, "targets") and not stage.task:
            raise MerZooError(f"{place}: {card.id} judges what follows from a label column. Name it: `task: ...`.")
        if stage.kind == "edge_weight" or stage.task:
            result.update({node: widths[node] for node in wire.begins if node in group})
            continue
        width = classes if stage.kind == "head" else getattr(part, "out_width", None)
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise MerZooError(
                f"{place}: {card.id} must tell its output width, a whole number above 0, not {width!r}. Set "
                "`self.out_width`."
            )
        result.update(dict.fromkeys([wire.outputs[group]] if stage.kind == "fusion" else group, width))
    return made(name, stage, wire, card, parts, first), result


def _refuse_other_widths(source: str, theirs: Mapping[str, int], ours: Mapping[str, int], place: str) -> None:
    """Refuse to add states of different widths."""
    for node, width in ours.items():
        if theirs.get(node, width) != width:
            raise MerZooError(
                f"{place}: {node} has width {width} here, but {theirs[node]} behind stage '{source}'. Project "
                "one of them."
            )
