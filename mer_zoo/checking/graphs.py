"""The contract of graph builders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import combinations
from typing import Any

import numpy as np

from mer_zoo import registry
from mer_zoo.checking import examples
from mer_zoo.checking.part import Checks, Part, Verdict, attempt
from mer_zoo.data.conversation import Conversation
from mer_zoo.errors import MerZooError
from mer_zoo.graph.base import Edges, GraphBuilder
from mer_zoo.graph.lowering import ViewSpec, lower

THREE = ("text", "audio", "visual")
NODE_TYPES = (THREE, ("text",), ("utterance",), ("visual", "audio"))
EVERYONE = ("seven", "three", "eleven", "thirteen", "lonely", "monologue", "absent", "long")
KNOWN = {"node_types": THREE}


def checks(part: Part) -> Checks:
    """Return the suite: it runs on the defaults, and again with all numeric settings off them."""

    @cache
    def moved() -> dict[str, Any]:
        settings: dict[str, Any] = {}
        for name in registry.settings(part.kind, part.cls):
            for value in part.values(name, KNOWN)[1]:
                if not isinstance(value, str) and _is_accepted(part, {**settings, name: value}):
                    settings[name] = value
                    break
        return settings

    def both(check: Callable[..., Verdict]) -> Verdict:
        if (verdict := check(part)) is not None or not moved():
            return verdict
        verdict = attempt(lambda: check(replace(part, settings={**part.settings, **moved()})))
        return f"with {', '.join(f'{k}: {v}' for k, v in moved().items())}: {verdict}" if verdict else None

    found: Checks = {"construction": lambda: construction(part)}
    found |= {name: partial(both, check) for name, check in CHECKS.items()}
    found |= {f"promise {p}": partial(both, PROMISES[p]) for p in part.promises if p in PROMISES}
    return {**found, **part.setting_checks(KNOWN, lambda changed: effect(part, changed))}


def _is_accepted(part: Part, settings: dict[str, Any]) -> bool:
    try:
        _build(part, **settings)
    except MerZooError:
        return False
    return True


def _build(part: Part, node_types: tuple[str, ...] = THREE, speakers: int = 3, /, **settings: Any) -> GraphBuilder:
    return part.build({"node_types": node_types, "speakers": speakers}, **settings)


def construction(part: Part) -> Verdict:
    """A `GraphBuilder` whose relations and edge types fit together."""
    for node_types in NODE_TYPES:
        try:
            builder = _build(part, node_types)
        except MerZooError:
            if node_types == THREE:
                raise
            continue  # one node type may be too few; whoever promises `modality_subset_safe` must take it
        if not isinstance(builder, GraphBuilder):
            return "a graph builder must be a subclass of mer_zoo.graph.base.GraphBuilder."
        if builder.node_types != node_types:
            return f"`node_types` is {builder.node_types}, but must be what was given: {node_types}."
        names = list(builder.relations)
        if not names or len(set(names)) != len(names) or not all(isinstance(name, str) for name in names):
            return f"`relations` must be names, each once; it is {names}."
        known = {*node_types, *builder.nodes}
        for a, relation, b in builder.edge_types:
            if a not in known or b not in known or relation not in names:
                hint = " Nodes of its own are declared on the class, `nodes = {...: Nodes(...)}`."
                return f"edge type ({a}, {relation}, {b}) is not made of its node types and relations.{hint}"
        for node in builder.nodes:
            if not any(a == node or b == node for a, _, b in builder.edge_types):
                return f"no edge type leads to or from its own nodes, {node}."
            if type(builder).nodes.get(node) != builder.nodes[node]:
                return f"its own nodes, {node}, must be declared on the class."
    builder = _build(part)
    idle = set(builder.relations) - {relation for _, relation, _ in builder.edge_types}
    if idle:
        return f"relations {', '.join(sorted(idle))} belong to no edge type. List them in `edge_types`."
    return None


def edges(part: Part) -> Verdict:
    """Declared edge types, whole numbers in range, no edge twice; every node has one; whatever the facts."""
    for node_types in NODE_TYPES:
        for speakers, names in ((3, EVERYONE), (30, ("crowd", "eleven renamed"))):
            try:
                builder = _build(part, node_types, speakers)
            except MerZooError:
                break
            for name in names:
                if fault := sound(builder, examples.FIRST.pool[name]):
                    return f"dialogue '{name}', nodes {', '.join(node_types)}, {speakers} speakers: {fault}"
    builder, dialogue = _build(part), examples.FIRST.pool["eleven"]
    found = builder.edges(dialogue)
    for node in (*THREE, *builder.nodes):
        ends = [pair for (a, _, b), pair in found.items() if node in (a, b)]
        if not sum(len(source) for source, _ in ends):
            return f"node type '{node}' has no edge at all in a dialogue of eleven utterances and three modalities."
    return None


def sound(builder: GraphBuilder, dialogue: Conversation) -> str | None:
    """Return what is wrong with the edges of one dialogue."""
    found, declared = builder.edges(dialogue), set(builder.edge_types)
    if undeclared := found.keys() - declared:
        return f"edges of type {sorted(undeclared)[0]}, which `edge_types` does not declare."
    if missing := declared - found.keys():
        return f"`edges` gives nothing for edge type {sorted(missing)[0]}; give empty arrays if there are none."
    total = 0
    for edge_type, pair in found.items():
        source, target = (np.asarray(x) for x in pair)
        if source.ndim != 1 or source.shape != target.shape or not np.issubdtype(source.dtype, np.integer):
            return f"{edge_type}: sources and targets must be two int64 arrays of one length."
        before, after = (_count(builder, node, dialogue) for node in (edge_type[0], edge_type[2]))
        bad = (source < 0) | (source >= before) | (target < 0) | (target >= after)
        if bad.any():
            i = int(bad.argmax())
            own = [f"{_count(builder, node, dialogue)} nodes of type {node}" for node in builder.nodes]
            there = ", ".join([f"{len(dialogue)} utterances", *own])
            return f"{edge_type}: edge {source[i]}→{target[i]} in a dialogue of {there}."
        if len(source) and np.unique(source * after + target).size != len(source):
            return f"{edge_type}: an edge occurs twice."
        total += len(source)
    bound = builder.count_edges(len(dialogue))
    if bound and total > bound:
        return f"`count_edges({len(dialogue)})` is {bound}, but there are {total} edges; it must be an upper bound."
    return None


def _count(builder: GraphBuilder, node: str, dialogue: Conversation) -> int:
    return builder.count_nodes(node, dialogue) if node in builder.nodes else len(dialogue)


def determinism(part: Part) -> Verdict:
    """The same dialogue gives the same edges, and stays as it was."""
    builder = _build(part)
    dialogue = examples.FIRST.pool["eleven"]
    before = {m: x.copy() for m, x in dialogue.features.items()}
    first, second = builder.edges(dialogue), builder.edges(dialogue)
    if not _equal(first, second):
        return "two calls give different edges."
    if any(not np.array_equal(before[m], x) for m, x in dialogue.features.items()):
        return "the builder changes the features of its dialogue."
    return None


def lowering(part: Part) -> Verdict:
    """The DGL heterograph has one node per utterance and node type, and gives back the same edges."""
    builder = _build(part)
    dialogues = [examples.FIRST.pool[name] for name in ("seven", "lonely", "eleven")]
    graphs = [builder(dialogue) for dialogue in dialogues]
    for graph, dialogue in zip(graphs, dialogues, strict=True):
        for node in (*builder.node_types, *builder.nodes):
            if graph.num_nodes(node) != _count(builder, node, dialogue):
                return f"{graph.num_nodes(node)} nodes of type {node} for {len(dialogue)} utterances."
    spec = ViewSpec(THREE, builder.relations, own=tuple(builder.nodes))
    view = lower(graphs, [spec], builder.relations)[spec]
    total = sum(len(source) for dialogue in dialogues for source, _ in builder.edges(dialogue).values())
    if len(view.source) != total:
        return f"lowering keeps {len(view.source)} of {total} edges."
    return None


def effect(part: Part, changed: dict[str, Any]) -> Verdict | bool:
    """Another value of a setting gives sound edges; return its fault, or whether they are others than by default."""
    builder, default = _build(part, **changed), _build(part)
    differs = False
    for name in EVERYONE:
        dialogue = examples.FIRST.pool[name]
        if fault := sound(builder, dialogue):
            return fault
        differs = differs or not _equal(builder.edges(dialogue), default.edges(dialogue))
    return differs


def absent(part: Part) -> Verdict:
    """Features of a modality where it is absent decide nothing."""
    builder, dialogue = _build(part), examples.FIRST.pool["absent"]
    noise = np.random.default_rng(0)
    other = replace(
        dialogue,
        features={
            m: np.where(dialogue.present[m][:, None], x, noise.normal(size=x.shape))
            for m, x in dialogue.features.items()
        },
    )
    if not _equal(builder.edges(dialogue), builder.edges(other)):
        return "features that are absent (`present`) decide which edges there are. Read them as zeros."
    return None


def causal(part: Part) -> Verdict:
    """No edge from the future, and none that depends on it."""
    builder, pool = _build(part), examples.FIRST.pool
    begun = len(pool["eleven begins"])
    whole, beginning = builder.edges(pool["eleven"]), builder.edges(pool["eleven begins"])
    ends = {(a in builder.nodes, b in builder.nodes) for a, _, b in builder.edge_types}
    if (False, True) in ends and (True, False) in ends:
        return "promised `causal`, but nodes of its own hear the whole dialogue and tell it to every utterance."
    for edge_type, (source, target) in whole.items():
        if edge_type[0] in builder.nodes or edge_type[2] in builder.nodes:
            continue  # one way only
        if (late := source > target).any():
            i = int(late.argmax())
            return f"promised `causal`, but {edge_type} has the edge {source[i]}→{target[i]}, from the future."
        early = target < begun
        if not _equal({edge_type: (source[early], target[early])}, {edge_type: beginning[edge_type]}):
            return f"promised `causal`, but later utterances decide which edges of {edge_type} earlier ones get."
    return None


def linear_size(part: Part) -> Verdict:
    """Twice the length, about twice the edges."""
    builder = _build(part)
    counts = []
    for length in (200, 400):
        dialogue = examples.FIRST.conversation(f"long {length}", examples.turns(length, 3, length))
        counts.append(sum(len(source) for source, _ in builder.edges(dialogue).values()))
    if counts[1] > 2.2 * counts[0]:
        return f"promised `linear_size`, but has {counts[0]} edges for 200 utterances and {counts[1]} for 400."
    return None


def speaker_relabelling_invariant(part: Part) -> Verdict:
    """Other numbers for the same speakers, the same edges and relations."""
    builder, pool = _build(part, THREE, 30), examples.FIRST.pool
    plain, renamed = pool["eleven"], pool["eleven renamed"]
    if not _equal(_renumbered(builder, builder.edges(plain), plain, renamed), builder.edges(renamed)):
        return "promised `speaker_relabelling_invariant`, but other speaker numbers give other edges."
    return None


def _renumbered(builder: GraphBuilder, edges: Edges, plain: Conversation, renamed: Conversation) -> Edges:
    """Return the edges with nodes per speaker numbered as in the renamed dialogue."""
    number = np.zeros(int(plain.speaker_index.max()) + 1, np.int64)
    number[plain.speaker_index] = renamed.speaker_index

    def those(node: str, ends: np.ndarray) -> np.ndarray:
        return number[ends] if node in builder.nodes and builder.nodes[node].per == "speaker" else ends

    return {key: (those(key[0], source), those(key[2], target)) for key, (source, target) in edges.items()}


def modality_subset_safe(part: Part) -> Verdict:
    """Any modalities will do, and give edges."""
    for count in (1, 2, 3):
        for chosen in combinations(THREE, count):
            try:
                builder = _build(part, chosen)
            except MerZooError as refusal:
                return f"promised `modality_subset_safe`, but refuses {' and '.join(chosen)}: {refusal}"
            if fault := sound(builder, examples.FIRST.pool["eleven"]):
                return fault
            if not sum(len(source) for source, _ in builder.edges(examples.FIRST.pool["eleven"]).values()):
                return f"promised `modality_subset_safe`, but gives no edge for {' and '.join(chosen)}."
    return None


def _equal(first: dict, second: dict) -> bool:
    def ordered(edges: dict) -> dict:
        return {
            k: sorted(zip(np.asarray(s).tolist(), np.asarray(t).tolist(), strict=True)) for k, (s, t) in edges.items()
        }

    return ordered(first) == ordered(second)


CHECKS: dict[str, Callable[[Part], Verdict]] = {
    "edges": edges,
    "determinism": determinism,
    "absent modalities": absent,
    "lowering": lowering,
}
PROMISES: dict[str, Callable[[Part], Verdict]] = {
    "causal": causal,
    "linear_size": linear_size,
    "modality_subset_safe": modality_subset_safe,
    "speaker_relabelling_invariant": speaker_relabelling_invariant,
}
