"""Which node types each stage runs on, and what it sees of the graph: read off a plan, before any part is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mer_zoo import registry
from mer_zoo.batch.output import UTTERANCE
from mer_zoo.errors import MerZooError
from mer_zoo.graph.base import GraphBuilder
from mer_zoo.graph.lowering import ViewSpec, groups, select
from mer_zoo.model.plan import Plan, StageChoice

Group = tuple[str, ...]


@dataclass(frozen=True)
class Wire:
    """Where one stage stands.

    Attributes:
        before, after: node types that reach it, and that leave it.
        groups: node types that one instance of its part runs on.
        views: what each group sees of the graph, for layers and edge weights.
    """

    before: Group
    after: Group
    groups: tuple[Group, ...] = ()
    views: Mapping[Group, ViewSpec] = field(default_factory=dict)


@dataclass(frozen=True)
class Wiring:
    """Where all stages stand.

    Attributes:
        builder: the graph builder, or None for a model without a graph.
        wires: stage -> where it stands.
        first_joint: the first fusion or head; up to it every modality has states of its own.
    """

    builder: GraphBuilder | None
    wires: Mapping[str, Wire]
    first_joint: str

    @property
    def views(self) -> tuple[ViewSpec, ...]:
        """What the stages see of the graph, each once."""
        return tuple(dict.fromkeys(view for wire in self.wires.values() for view in wire.views.values()))


def wire(plan: Plan, speakers: int) -> Wiring:
    """Return where the stages of a plan stand.

    Args:
        plan: the plan.
        speakers: how many the data has, for builders that ask.

    Raises:
        MerZooError: a stage that would see nothing, that follows a head, or on the wrong side of the fusion.

    Example:
        >>> from mer_zoo.model import filling, recipe
        >>> wiring = wire(filling.fill(recipe.read("bilstm"), {"text": 8, "audio": 4}), speakers=2)
        >>> wiring.first_joint, wiring.wires["join"].after
        ('join', ('utterance',))
    """
    builder = _builder(plan, speakers)
    wires: dict[str, Wire] = {}
    nodes: Group = tuple(plan.modalities)
    first_joint, judged = "", False
    for name, stage in plan.model.items():
        place = f"model.{name}"
        if judged and stage.kind not in ("fusion", "skip", "start"):
            raise MerZooError(f"{place}: {registry.a(stage.kind)} cannot follow a head; only a fusion of logits can.")
        wires[name] = _wire(stage, nodes, wires, builder, place)
        if stage.kind in ("fusion", "head"):
            first_joint = first_joint or name
            judged = judged or stage.kind == "head"
        nodes = wires[name].after
    if builder is not None and not any(wire.views for wire in wires.values()):
        raise MerZooError(
            f"graph: no stage uses the graph '{plan.graph.name if plan.graph else ''}'. Add a `layer` stage, or leave "
            "`graph` out."
        )
    return Wiring(builder, wires, first_joint)


def _wire(
    stage: StageChoice, nodes: Group, wires: Mapping[str, Wire], builder: GraphBuilder | None, place: str
) -> Wire:
    kind = stage.kind
    if kind == "start":
        return Wire(nodes, wires[stage.sources[0]].after)
    if kind == "skip":
        for source in stage.sources:
            if set(wires[source].after) != set(nodes):
                raise MerZooError(
                    f"{place}: stage '{source}' gives {', '.join(wires[source].after)}, but here the states are "
                    f"{', '.join(nodes)}. Skip from a stage on the same side of the fusion."
                )
        return Wire(nodes, nodes)
    chosen = tuple(node for node in nodes if stage.only is None or node in stage.only)
    if kind == "fusion":
        if not chosen:
            raise MerZooError(f"{place}: nothing to fuse: `only` names none of {', '.join(nodes)}.")
        return Wire(nodes, (UTTERANCE,), (chosen,))
    if kind in ("layer", "edge_weight"):
        views = _views(stage, chosen, builder, place)
        return Wire(nodes, nodes, tuple(views), views)
    return Wire(nodes, nodes, (chosen,) if stage.shared and chosen else tuple((node,) for node in chosen))


def _views(stage: StageChoice, nodes: Group, builder: GraphBuilder | None, place: str) -> dict[Group, ViewSpec]:
    """Which node types the stage's relations connect, and what each group of them sees."""
    word = stage.kind.replace("_", " ")
    if builder is None:
        raise MerZooError(
            f"{place}: {registry.a(stage.kind)} needs a graph. Give the recipe one, such as `graph: speaker_window`."
        )
    names = select(stage.relations, builder.relations, f"{place}.relations")
    if strangers := [node for node in nodes if node not in builder.node_types]:
        raise MerZooError(
            f"{place}: the graph's nodes are {', '.join(builder.node_types)}, but here the states are "
            f"{', '.join(strangers)}. Put every {word} on the same side of the fusion."
        )
    chosen = [edge_type for edge_type in builder.edge_types if edge_type[1] in names]
    if nodes and not any(a in nodes and b in nodes for a, _, b in chosen):
        raise MerZooError(
            f"{place}: the graph has no edges of {', '.join(names)} among {', '.join(nodes)}, so this {word} would see "
            "nothing. Choose other relations, another graph, or more modalities."
        )
    return {group: ViewSpec(group, names) for group in groups(nodes, chosen)}


def _builder(plan: Plan, speakers: int) -> GraphBuilder | None:
    """Make the graph builder; its node types are those that its first layer meets."""
    if plan.graph is None:
        return None
    node_types: Group = tuple(plan.modalities)
    for stage in plan.model.values():
        if stage.kind == "fusion":
            node_types = (UTTERANCE,)
        elif stage.kind in ("layer", "edge_weight"):
            break
    card = registry.find("graph", plan.graph.name, "graph")
    builder = registry.build(card, plan.graph.settings, {"node_types": node_types, "speakers": speakers}, "graph")
    if not isinstance(builder, GraphBuilder):
        raise MerZooError(f"graph: {card.id} makes a {type(builder).__name__}, not a GraphBuilder.")
    _refuse_strangers(builder, node_types, card.id)
    return builder


def _refuse_strangers(builder: GraphBuilder, node_types: Group, name: str) -> None:
    """Refuse node types of the builder's own: nothing would carry states to them."""
    met = {node for source, _, target in builder.edge_types for node in (source, target)} | set(builder.node_types)
    if strangers := sorted(met - set(node_types)):
        raise MerZooError(
            f"graph: {name} has nodes of its own, {', '.join(strangers)}, which a model does not use: here the nodes "
            f"are {', '.join(node_types)}. Connect these only."
        )
