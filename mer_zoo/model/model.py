"""From a filled recipe to an `nn.Module`: the assembly, and the way of a batch through its stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mer_zoo import registry
from mer_zoo.errors import MerZooError
from mer_zoo.graph.lowering import ViewSpec, groups, select
from mer_zoo.model.vmapped import Call, can_be_mapped, run

if TYPE_CHECKING:
    from mer_zoo.batch.batch import ConversationBatch
    from mer_zoo.graph.base import GraphBuilder
    from mer_zoo.kernel.base import Kernel
from mer_zoo.batch.output import UTTERANCE, Output, States


@dataclass
class Flow:
    """What is handed from stage to stage: states by node type, edge weights, and the outputs of earlier stages."""

    batch: ConversationBatch
    states: States
    weights: dict[tuple[str, ...], tuple[ViewSpec, Tensor]] = field(default_factory=dict)
    saved: dict[str, States] = field(default_factory=dict)
    modality_logits: States = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What parts may ask of the data: widths of the features, numbers of speakers and classes, labels per class."""

    widths: Mapping[str, int]
    speakers: int
    classes: int
    class_counts: tuple[int, ...] = ()


class Stage(nn.Module):
    """One step of a model: its part, once for each group of node types that it runs on.

    Args:
        kind: encoder, layer, edge_weight, fusion, head, skip or start.
        parts: an instance per group of node types; key "text+audio".
        views: for layers and edge weights, what each group sees of the graph.
        sources: for skip and start, names of earlier stages.
        card: that of the part, if there is one.
    """

    def __init__(
        self,
        name: str,
        kind: str,
        parts: Mapping[tuple[str, ...], nn.Module],
        views: Mapping[tuple[str, ...], ViewSpec],
        sources: Sequence[str] = (),
        card: registry.Card | None = None,
    ) -> None:
        super().__init__()
        self.name, self.kind, self.views, self.sources = name, kind, dict(views), tuple(sources)
        self.card = card
        self.stackable = (card is None or card.stackable) and all(map(can_be_mapped, parts.values()))
        self.capturable = card is None or card.capturable
        self.groups = {"+".join(group): group for group in parts}
        self.parts = nn.ModuleDict({"+".join(group): part for group, part in parts.items()})

    def forward(self, flow: Flow) -> Flow:
        """Return the flow after this stage."""
        states = getattr(self, f"_{self.kind}")(flow)
        flow = replace(flow, states=states, saved={**flow.saved, self.name: states})
        if self.kind == "head" and UTTERANCE not in states:
            flow = replace(flow, modality_logits=states)
        return flow

    def _encoder(self, flow: Flow) -> States:
        nodes = {node: self.parts[key] for key, group in self.groups.items() for node in group}
        calls = [Call(part, flow.states[node], (flow.batch.layout,)) for node, part in nodes.items()]
        return {**flow.states, **dict(zip(nodes, run(calls, self.stackable), strict=True))}

    _head = _encoder

    def _layer(self, flow: Flow) -> States:
        states, calls = dict(flow.states), []
        for key, group in self.groups.items():
            view, weights = flow.weights.get(group, (None, None))
            x = _stack([flow.states[node] for node in group])
            fitting = weights if view == self.views[group] else None
            calls.append(Call(self.parts[key], x, (flow.batch.views[self.views[group]], fitting)))
        for group, y in zip(self.groups.values(), run(calls, self.stackable), strict=True):
            states.update(zip(group, _unstack(y, len(group)), strict=True))
        return states

    def _edge_weight(self, flow: Flow) -> States:
        flow.weights = dict(flow.weights)
        for key, group in self.groups.items():
            edges: Kernel = flow.batch.views[self.views[group]]
            x = _stack([flow.states[node] for node in group])
            flow.weights[group] = (self.views[group], self.parts[key](x, edges, flow.batch.layout))
        return flow.states

    def _fusion(self, flow: Flow) -> States:
        ((key, group),) = self.groups.items()
        return {UTTERANCE: self.parts[key]({node: flow.states[node] for node in group}, flow.batch.layout)}

    def _skip(self, flow: Flow) -> States:
        earlier = [flow.saved[name] for name in self.sources]
        return {node: torch.cat([*(states[node] for states in earlier), x], -1) for node, x in flow.states.items()}

    def _start(self, flow: Flow) -> States:
        return flow.saved[self.sources[0]]


def _stack(states: Sequence[Tensor]) -> Tensor:
    """`[N, d]` each → nodes `[N * M, d]`, utterance by utterance."""
    return states[0] if len(states) == 1 else torch.stack(list(states), 1).flatten(0, 1)


def _unstack(x: Tensor, count: int) -> Sequence[Tensor]:
    return [x] if count == 1 else x.unflatten(0, (-1, count)).unbind(1)


class Model(nn.Module):
    """A model assembled from a filled recipe.

    Inputs:
        batch: a `ConversationBatch` from a `Corpus` made with this model's `builder` and `specs`.
    Outputs:
        `Output`.

    Args:
        filled: what `recipe.fill` returns.
        facts: widths, speakers and classes of the data.

    Raises:
        MerZooError: stages that do not fit together, named with the fix.

    Example:
        >>> from mer_zoo.model import recipe
        >>> filled = recipe.fill(recipe.read("bilstm"), {"text": 8})
        >>> model = Model(filled, Facts({"text": 8}, speakers=2, classes=6))
        >>> list(model.stages)
        ['join', 'context', 'classify']
    """

    def __init__(self, filled: Mapping[str, Any], facts: Facts) -> None:
        super().__init__()
        self.modalities = tuple(filled["modalities"])
        self.builder = _builder(filled, self.modalities, facts)
        self.specs: list[ViewSpec] = []
        self.stages = nn.ModuleDict()
        widths: dict[str, int] = dict(filled["modalities"])
        after: dict[str, dict[str, int]] = {}
        judged = False
        self.decision = ""
        """Name of the stage before which each modality's features are taken."""
        for name, entry in filled["model"].items():
            kind = next(k for k in entry if k not in ("only", "relations", "shared"))
            place = f"model.{name}"
            if kind in ("fusion", "head") and not self.decision:
                self.decision = name
            if kind not in ("fusion", "skip", "start") and judged:
                raise MerZooError(f"{place}: {registry.a(kind)} cannot follow a head; only a fusion of logits can.")
            stage, widths = self._assemble(name, kind, entry, widths, after, facts, place)
            after[name] = widths
            judged = judged or kind == "head"
            self.stages[name] = stage
        if not judged or set(widths) != {UTTERANCE} or widths[UTTERANCE] != facts.classes:
            what = ", ".join(f"{node}: {width}" for node, width in widths.items())
            raise MerZooError(
                f"model: the stages end with states {what}, but must end with one row of {facts.classes} logits per "
                "utterance. End with a head after a fusion, or a fusion of logits (`logit_sum`) after a head."
            )

    def _assemble(
        self,
        name: str,
        kind: str,
        entry: Mapping[str, Any],
        widths: dict[str, int],
        after: Mapping[str, dict[str, int]],
        facts: Facts,
        place: str,
    ) -> tuple[Stage, dict[str, int]]:
        if kind in ("skip", "start"):
            return self._rejoin(name, kind, entry[kind], widths, after, place)
        settings = dict(entry[kind])
        card = registry.find(kind, settings.pop("name"), place)
        nodes = tuple(node for node in widths if "only" not in entry or node in entry["only"])
        views: dict[tuple[str, ...], ViewSpec] = {}
        if kind in ("layer", "edge_weight"):
            if self.builder is None:
                raise MerZooError(
                    f"{place}: {registry.a(kind)} needs a graph. Give the recipe one, such as `graph: speaker_window`."
                )
            names = select(entry.get("relations"), self.builder.relations, f"{place}.relations")
            if strangers := [node for node in nodes if node not in self.builder.node_types]:
                raise MerZooError(
                    f"{place}: the graph's nodes are {', '.join(self.builder.node_types)}, but here the states are "
                    f"{', '.join(strangers)}. Put every {kind.replace('_', ' ')} on the same side of the fusion."
                )
            chosen = [edge_type for edge_type in self.builder.edge_types if edge_type[1] in names]
            if nodes and not any(a in nodes and b in nodes for a, _, b in chosen):
                raise MerZooError(
                    f"{place}: the graph has no edges of {', '.join(names)} among {', '.join(nodes)}, so this "
                    f"{kind.replace('_', ' ')} would see nothing. Choose other relations, another graph, or more "
                    "modalities."
                )
            parted = groups(nodes, chosen)
            views = {group: ViewSpec(group, names) for group in parted}
            self.specs += [spec for spec in views.values() if spec not in self.specs]
        elif kind == "fusion":
            if not nodes:
                raise MerZooError(f"{place}: nothing to fuse: `only` names none of {', '.join(widths)}.")
            parted = [nodes]
        else:
            parted = [nodes] if entry.get("shared") and nodes else [(node,) for node in nodes]
        parts: dict[tuple[str, ...], nn.Module] = {}
        result = dict(widths)
        for group in parted:
            inside = {widths[node] for node in group}
            if kind != "fusion" and len(inside) > 1:
                raise MerZooError(
                    f"{place}: {card.id} runs on {', '.join(group)} together, but their widths differ "
                    f"({', '.join(str(widths[n]) for n in group)}). Project them to one width before."
                )
            known = {
                "width": next(iter(inside)),
                "widths": {node: widths[node] for node in group},
                "relations": self.builder.relations if self.builder else (),
                "speakers": facts.speakers,
                "classes": facts.classes,
                "class_counts": facts.class_counts,
            }
            part = registry.build(card, settings, known, place)
            parts[group] = part
            width = facts.classes if kind == "head" else getattr(part, "out_width", None)
            if kind != "edge_weight" and width is None:
                raise MerZooError(f"{place}: {card.id} does not tell its output width. Set `self.out_width`.")
            if kind == "fusion":
                result = {UTTERANCE: int(width)}  # type: ignore[arg-type]
            elif kind != "edge_weight":
                result.update(dict.fromkeys(group, int(width)))  # type: ignore[arg-type]
        return Stage(name, kind, parts, views, (), card), result

    def _rejoin(
        self, name: str, kind: str, sources: Any, widths: dict[str, int], after: Any, place: str
    ) -> tuple[Stage, dict[str, int]]:
        if kind == "start":
            return Stage(name, kind, {}, {}, sources), dict(after[sources[0]])
        for source in sources:
            if set(after[source]) != set(widths):
                raise MerZooError(
                    f"{place}: stage '{source}' gives {', '.join(after[source])}, but here the states are "
                    f"{', '.join(widths)}. Skip from a stage on the same side of the fusion."
                )
        return Stage(name, kind, {}, {}, sources), {
            node: width + sum(after[source][node] for source in sources) for node, width in widths.items()
        }

    def forward(self, batch: ConversationBatch, balance: Any = None) -> Output:
        """Run all stages; in training, `balance` may change the features before they are judged or mixed."""
        flow = self.encode(batch)
        if balance is not None:
            features = {m: flow.states[m] for m in self.modalities}
            changed = balance.on_features(features, batch, lambda: self.unimodal(flow))
            flow = replace(flow, states={**flow.states, **changed})
        return self.decide(flow)

    def encode(self, batch: ConversationBatch) -> Flow:
        """Run the stages before the decision: each modality still has its own features."""
        flow = Flow(batch, {m: batch.features[m] for m in self.modalities})
        for name, stage in self.stages.items():
            if name == self.decision:
                break
            flow = stage(flow)
        return flow

    def decide(self, flow: Flow) -> Output:
        """Run the stages from the decision on."""
        features, begun = flow.states, False
        for name, stage in self.stages.items():
            begun = begun or name == self.decision
            if begun:
                flow = stage(flow)
        return Output(flow.states[UTTERANCE], flow.modality_logits, features)

    def unimodal(self, flow: Flow) -> States:
        """Return the logits each modality would decide by alone.

        Those of its own head where it has one; otherwise those of the whole tail with the other modalities at zero.
        """
        first: Any = self.stages[self.decision]
        if first.kind == "head":
            return first(flow).states
        return {
            m: self.decide(
                replace(flow, states={n: x if n == m else torch.zeros_like(x) for n, x in flow.states.items()})
            ).logits
            for m in self.modalities
        }

    def modality_parameters(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters that belong to one modality alone: those of stages before the decision."""
        owned: dict[str, list[nn.Parameter]] = {m: [] for m in self.modalities}
        for name, stage in self.stages.items():
            if name == self.decision:
                break
            for key, group in stage.groups.items():  # type: ignore[union-attr, operator]
                if len(group) == 1 and group[0] in owned:
                    owned[group[0]] += list(stage.parts[key].parameters())  # type: ignore[union-attr, index]
        return owned

    def run(self, balance: Any = None) -> Callable[[ConversationBatch], Output]:
        """Return the forward pass as a function of the batch alone."""
        return lambda batch: self(batch, balance)


def _builder(filled: Mapping[str, Any], modalities: tuple[str, ...], facts: Facts) -> GraphBuilder | None:
    """Make the graph builder; its node types are those that its first layer meets."""
    if filled["graph"] is None:
        return None
    settings = dict(filled["graph"])
    fused = False
    for entry in filled["model"].values():
        fused = fused or "fusion" in entry
        if "layer" in entry or "edge_weight" in entry:
            break
    node_types = (UTTERANCE,) if fused else modalities
    card = registry.find("graph", settings.pop("name"), "graph")
    return registry.build(card, settings, {"node_types": node_types, "speakers": facts.speakers}, "graph")


def assemble(filled: Mapping[str, Any], facts: Facts, seed: int = 0) -> Model:
    """Make a model with weights drawn from a seed, leaving torch's global generator as it was.

    Raises:
        MerZooError: stages, loss or balancing that do not fit together, found by a rehearsal on two tiny dialogues.
    """
    from mer_zoo.model.rehearsal import rehearse

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Model(filled, facts)
        rehearse(model, filled, facts)
        return model
