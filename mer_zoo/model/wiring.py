"""Which node types each stage runs on, and what it sees of the graph: read off a plan, before any part is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mer_zoo import registry
from mer_zoo.batch.output import UTTERANCE
from mer_zoo.errors import MerZooError
from mer_zoo.graph.base import GraphBuilder, Nodes
from mer_zoo.graph.lowering import ViewSpec, groups, select
from mer_zoo.model.plan import PartChoice, Plan, StageChoice

Group = tuple[str, ...]


@dataclass(frozen=True)
class Wire:
    """Where one stage stands.

    Attributes:
        before, after: node types that reach it, and that leave it.
        groups: node types that one instance of its part runs on.
        views: what each group sees of the graph, for layers and edge weights.
        outputs: the node type that each group's result belongs to, for fusions.
        begins: nodes of the builder's own that have states from this stage on.
        pooled: those that a fusion hands to every utterance.
        padded: whether padding is among the states after it.
    """

    before: Group
    after: Group
    groups: tuple[Group, ...] = ()
    views: Mapping[Group, ViewSpec] = field(default_factory=dict)
    outputs: Mapping[Group, str] = field(default_factory=dict)
    begins: Mapping[str, Nodes] = field(default_factory=dict)
    pooled: Mapping[str, Nodes] = field(default_factory=dict)
    padded: bool = False


@dataclass(frozen=True)
class Wiring:
    """Where all stages stand.

    Attributes:
        builder: the graph builder, or None for a model without a graph.
        wires: stage -> where it stands.
        first_joint: the first head, or fusion of everything; up to it every modality has states of its own.
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
    builder: GraphBuilder | None = None
    wires: dict[str, Wire] = {}
    nodes: Group = tuple(plan.modalities)
    first_joint, padded = "", False
    judged = {"": False}  # stage -> whether its states are logits
    last = ""
    for name, stage in plan.model.items():
        place = f"model.{name}"
        if stage.kind == "start":
            judged[name] = judged[stage.sources[0]]
        elif stage.kind in ("encoder", "layer", "edge_weight", "head", "padding") and judged[last]:
            raise MerZooError(f"{place}: {registry.a(stage.kind)} cannot follow a head; only a fusion of logits can.")
        else:
            judged[name] = judged[last] or (stage.kind == "head" and stage.task is None)
        if plan.graph is not None and builder is None and stage.kind in ("layer", "edge_weight"):
            later = [s.into for s in plan.model.values() if s.into is not None]
            builder = _builder(plan.graph, tuple(dict.fromkeys((*nodes, *later))), speakers)
        own = builder.nodes if builder is not None else {}
        _check_only(stage, nodes, own, own_nodes(plan.graph), place)
        wires[name] = wired = _wire(stage, nodes, wires, padded, builder, place)
        if stage.task is not None and _shared(nodes, own) != (UTTERANCE,):
            raise MerZooError(
                f"{place}: a task is judged of the utterance, but here are {', '.join(nodes)}. Fuse first."
            )
        if stage.kind == "head" or (stage.kind == "fusion" and stage.per is None):
            _check_joint(stage, nodes, padded, place)
            first_joint = first_joint or name
        nodes, padded, last = wired.after, wired.padded, name
    if plan.graph is not None and builder is None:
        raise MerZooError(
            f"graph: no stage uses the graph '{plan.graph.name}'. Add a `layer` stage, or leave `graph` out."
        )
    if builder is not None:
        _check_heard(builder, wires)
    return Wiring(builder, _listed(wires), first_joint)


def own_nodes(graph: PartChoice | None) -> Mapping[str, Nodes]:
    """Return the nodes that a graph builder declares beside the utterances, by name, before it is made."""
    if graph is None:
        return {}
    declared = getattr(registry.load(registry.find("graph", graph.name, "graph"), "graph"), "nodes", {})
    return declared if isinstance(declared, Mapping) else {}


def _shared(nodes: Group, own: Mapping[str, Nodes]) -> Group:
    """The node types that have one node per utterance."""
    return tuple(node for node in nodes if node not in own)


def _check_only(
    stage: StageChoice, nodes: Group, own: Mapping[str, Nodes], declared: Mapping[str, Nodes], place: str
) -> None:
    """Refuse to name nodes of the builder's own where they are not, or cannot be used."""
    named = [node for node in stage.only or () if node in declared]
    if stage.kind == "head" and named:
        raise MerZooError(f"{place}.only: a head judges utterances, not {', '.join(named)}. Pool them in a fusion.")
    if stage.kind == "fusion" and stage.per is not None and named:
        raise MerZooError(f"{place}.only: `per: {stage.per}` pairs modalities, not {', '.join(named)}.")
    if stage.kind not in ("layer", "edge_weight") and (absent := [node for node in named if node not in nodes]):
        raise MerZooError(
            f"{place}.only: {', '.join(absent)} has no states here: nodes of the graph's own have them from their "
            "first layer on, up to the next fusion or head."
        )
    if stage.kind == "padding" and (alive := [node for node in nodes if node in own]):
        raise MerZooError(f"{place}: {', '.join(alive)} cannot be padded. Put a fusion before, which leaves them out.")


def _check_heard(builder: GraphBuilder, wires: Mapping[str, Wire]) -> None:
    """Refuse nodes of the builder's own that no stage sees, or whose states nobody reads."""
    seen, heard = set[str](), {node for wire in wires.values() for node in wire.pooled}
    for wire in wires.values():
        for view in wire.views.values():
            seen |= {*view.own}
            heard |= {a for a, r, b in builder.edge_types if a in view.own and r in view.relations and b != a}
    for node in builder.nodes:
        if node not in seen:
            raise MerZooError(
                f"graph: no stage uses the {node} nodes. Give a layer the relations that lead there and back."
            )
        if node not in heard:
            raise MerZooError(
                f"graph: nobody hears the {node} nodes: no edge leads from them to others in any layer, and no fusion "
                f"pools them. Give a layer such relations, or a fusion `only: [..., {node}]`."
            )


def _check_joint(stage: StageChoice, nodes: Group, padded: bool, place: str) -> None:
    """Refuse to decide on padding, or on pairs of modalities."""
    if padded:
        raise MerZooError(f"{place}: {registry.a(stage.kind)} cannot judge padding. Put `padding: hidden` before it.")
    if pairs := [node for node in nodes if "<" in node]:
        raise MerZooError(
            f"{place}: the states here are pairs, {', '.join(pairs)}. Gather them by a fusion `per: target` before."
        )


def _wire(
    stage: StageChoice,
    nodes: Group,
    wires: Mapping[str, Wire],
    padded: bool,
    builder: GraphBuilder | None,
    place: str,
) -> Wire:
    kind = stage.kind
    own = builder.nodes if builder is not None else {}
    shared = _shared(nodes, own)
    if kind == "start":
        begun = wires[stage.sources[0]]
        return Wire(nodes, begun.after, padded=begun.padded)
    if kind == "padding":
        if padded == (stage.padding == "shown"):
            raise MerZooError(f"{place}: padding is {stage.padding} here already. Leave this stage out.")
        return Wire(nodes, nodes, padded=not padded)
    if kind in ("skip", "add"):
        for source in stage.sources:
            before = _shared(wires[source].after, own)
            if set(before) != set(shared):
                raise MerZooError(
                    f"{place}: stage '{source}' gives {', '.join(before)}, but here the states are "
                    f"{', '.join(shared)}. {kind.capitalize()} from a stage on the same side of the fusion."
                )
            if wires[source].padded != padded:
                raise MerZooError(
                    f"{place}: padding is {'hidden' if padded else 'shown'} behind stage '{source}', but not here. "
                    "Put a `padding` stage between."
                )
        return Wire(nodes, nodes, padded=padded)
    chosen = tuple(node for node in nodes if stage.only is None or node in stage.only)
    if kind == "fusion":
        pooled = {node: own[node] for node in stage.only or () if node in own}
        chosen = (*(node for node in chosen if node not in own), *pooled)
        if stage.into is not None:
            if shared == (UTTERANCE,):
                raise MerZooError(
                    f"{place}: `into: {stage.into}` stands beside modalities, but all are fused here. Leave it out."
                )
            after = dict.fromkeys((*nodes, stage.into)) if chosen else nodes
            outputs = {chosen: stage.into} if chosen else {}
            return Wire(nodes, tuple(after), tuple(outputs), outputs=outputs, pooled=pooled, padded=padded)
        if not chosen:
            raise MerZooError(f"{place}: nothing to fuse: `only` names none of {', '.join(nodes)}.")
        outputs = _mixed(chosen, stage.per, place)
        return Wire(nodes, tuple(outputs.values()), tuple(outputs), outputs=outputs, pooled=pooled, padded=padded)
    if kind == "head":
        chosen, after = _shared(chosen, own), nodes if stage.task is not None else shared
        return Wire(nodes, after, (chosen,) if stage.shared and chosen else tuple((n,) for n in chosen), padded=padded)
    if kind in ("layer", "edge_weight"):
        if padded:
            raise MerZooError(
                f"{place}: the graph has no edges to padding. Put `padding: hidden` before this "
                f"{kind.replace('_', ' ')}."
            )
        views = _views(stage, _shared(chosen, own), builder, place)
        begins = {node: own[node] for view in views.values() for node in view.own if node not in nodes}
        return Wire(nodes, (*nodes, *begins), tuple(views), views, begins=begins)
    return Wire(nodes, nodes, (chosen,) if stage.shared and chosen else tuple((n,) for n in chosen), padded=padded)


def _mixed(nodes: Group, per: str | None, place: str) -> dict[Group, str]:
    """Return which states a fusion mixes into which."""
    if per is None:
        return {nodes: UTTERANCE}
    if per == "itself":
        return {(node,): node for node in nodes}
    gathered = [node for node in nodes if "<" in node]
    if per == "target":
        if not gathered:
            raise MerZooError(
                f"{place}: `per: target` gathers pairs, but here are {', '.join(nodes)}. Make pairs first."
            )
        targets = dict.fromkeys(node.partition("<")[0] for node in nodes)
        return {tuple(n for n in nodes if n.partition("<")[0] == target): target for target in targets}
    if gathered or nodes == (UTTERANCE,):
        raise MerZooError(f"{place}: `per: {per}` pairs modalities, but here are {', '.join(nodes)}.")
    if per == "each":
        return {(node, *(n for n in nodes if n != node)): node for node in nodes}
    pairs = [(a, b) for a in nodes for b in (a, *(n for n in nodes if n != a))]
    if per == "other" and len(nodes) > 1:
        pairs = [(a, b) for a, b in pairs if a != b]
    return {(a,) if a == b else (a, b): f"{a}<{b}" for a, b in pairs}


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
    open_to = {*nodes, *(node for node in builder.nodes if stage.only is None or node in stage.only)}
    chosen = [(a, r, b) for a, r, b in builder.edge_types if r in names and {a, b} <= open_to]
    if nodes and not chosen:
        raise MerZooError(
            f"{place}: the graph has no edges of {', '.join(names)} among {', '.join(nodes)}, so this {word} would see "
            "nothing. Choose other relations, another graph, or more modalities."
        )
    met = {node for a, _, b in chosen for node in (a, b)}
    own = tuple(node for node in builder.nodes if node in met)
    part = stage.part
    listed = part is not None and getattr(registry.load(registry.find(stage.kind, part.name)), "lists_edges", False)
    views: dict[Group, ViewSpec] = {}
    for group in groups((*nodes, *own), chosen):
        inside = tuple(node for node in group if node not in own)
        if not inside:
            raise MerZooError(
                f"{place}: the edges of {', '.join(names)} join {', '.join(group)} to no utterance. Add a relation."
            )
        views[group] = ViewSpec(inside, names, listed, tuple(node for node in group if node in own))
    return views


def _listed(wires: Mapping[str, Wire]) -> dict[str, Wire]:
    """Return the wires with every view listed that one stage wants listed: edge weights are for one layout."""
    wanted = {replace(view, listed=False) for wire in wires.values() for view in wire.views.values() if view.listed}
    return {
        name: replace(
            wire, views={g: replace(v, listed=replace(v, listed=False) in wanted) for g, v in wire.views.items()}
        )
        for name, wire in wires.items()
    }


def _builder(graph: PartChoice, nodes: Group, speakers: int) -> GraphBuilder:
    """Make the graph builder; its node types are those that its first layer meets."""
    card = registry.find("graph", graph.name, "graph")
    builder = registry.build(card, graph.settings, {"node_types": nodes, "speakers": speakers}, "graph")
    if not isinstance(builder, GraphBuilder):
        raise MerZooError(f"graph: {card.id} makes a {type(builder).__name__}, not a GraphBuilder.")
    _check_nodes(builder, nodes, own_nodes(graph), card.id)
    return builder


def _check_nodes(builder: GraphBuilder, node_types: Group, declared: Mapping[str, Nodes], name: str) -> None:
    """Refuse node types that the builder does not declare, so that nothing would carry states to them."""
    met = {node for source, _, target in builder.edge_types for node in (source, target)} | set(builder.node_types)
    if strangers := sorted(met - set(node_types) - set(declared)):
        raise MerZooError(
            f"graph: {name} has edges at {', '.join(strangers)}, but here the nodes are "
            f"{', '.join((*node_types, *declared))}. Declare nodes of its own on the class: "
            f'`nodes = {{"{strangers[0]}": Nodes(per="dialogue")}}`.'
        )
    for node in {*builder.nodes, *declared}:
        if node not in declared or not isinstance(declared[node], Nodes):
            raise MerZooError(f"graph: {name}: declare the {node} nodes on the class, `nodes = {{...: Nodes(...)}}`.")
        if node in node_types or node == UTTERANCE or not node.isidentifier():
            raise MerZooError(f"graph: {name}: nodes of its own cannot be called '{node}'. Rename them.")
