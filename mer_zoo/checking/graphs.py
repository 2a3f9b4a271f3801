"""The contract of graph builders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import numpy as np

from mer_zoo.checking import examples
from mer_zoo.checking.part import Broken, Finding, NotHere, Part, run
from mer_zoo.data.conversation import Conversation
from mer_zoo.errors import MerZooError
from mer_zoo.graph.base import GraphBuilder
from mer_zoo.graph.lowering import ViewSpec, lower

THREE = ("text", "audio", "visual")
NODE_TYPES = (THREE, ("text",), ("utterance",))


def findings(part: Part) -> Iterator[Finding]:
    """Run the suite; stops at once when no builder can be made."""
    first = run("construction", lambda: construction(part))
    yield first
    if not first.fine:
        return
    for name, check in CHECKS.items():
        yield run(name, lambda check=check: check(part))  # type: ignore[misc]
    for promise in part.promises:
        if promise in PROOFS:
            yield run(f"promise {promise}", lambda promise=promise: PROOFS[promise](part))  # type: ignore[misc]
    for settings in part.variants():
        label = ", ".join(f"{key}: {value}" for key, value in settings.items())
        yield run(f"setting {label}", lambda settings=settings: variant(part, settings))  # type: ignore[misc]


def _build(part: Part, node_types: tuple[str, ...] = THREE, **settings: Any) -> GraphBuilder:
    return part.build({"node_types": node_types, "speakers": examples.SPEAKERS}, **settings)


def construction(part: Part) -> None:
    """A `GraphBuilder` whose relations and edge types fit together."""
    for node_types in NODE_TYPES:
        try:
            builder = _build(part, node_types)
        except MerZooError:
            if node_types == THREE:
                raise
            continue  # one node type may be too few; whoever promises `modality_subset_safe` must take it
        if not isinstance(builder, GraphBuilder):
            raise Broken("a graph builder must be a subclass of mer_zoo.graph.base.GraphBuilder.")
        if builder.node_types != node_types:
            raise Broken(f"`node_types` is {builder.node_types}, but must be what was given: {node_types}.")
        names = list(builder.relations)
        if not names or len(set(names)) != len(names) or not all(isinstance(name, str) for name in names):
            raise Broken(f"`relations` must be names, each once; it is {names}.")
        for a, relation, b in builder.edge_types:
            if a not in node_types or b not in node_types or relation not in names:
                raise Broken(f"edge type ({a}, {relation}, {b}) is not made of its node types and relations.")
    builder = _build(part)
    idle = set(builder.relations) - {relation for _, relation, _ in builder.edge_types}
    if idle:
        raise Broken(f"relations {', '.join(sorted(idle))} belong to no edge type. List them in `edge_types`.")


def edges(part: Part) -> None:
    """Declared edge types, whole numbers in range, no edge twice, not nothing."""
    builder = _build(part)
    for dialogue in examples.pool().values():
        sound(builder, dialogue)
    if not sum(len(source) for source, _ in builder.edges(examples.pool()["eleven"]).values()):
        raise Broken("no edge at all in a dialogue of eleven utterances and three modalities.")


def sound(builder: GraphBuilder, dialogue: Conversation) -> None:
    """Raise what is wrong with the edges of one dialogue."""
    found, declared = builder.edges(dialogue), set(builder.edge_types)
    if undeclared := found.keys() - declared:
        raise Broken(f"edges of type {sorted(undeclared)[0]}, which `edge_types` does not declare.")
    if missing := declared - found.keys():
        raise Broken(f"`edges` gives nothing for edge type {sorted(missing)[0]}; give empty arrays if there are none.")
    total = 0
    for edge_type, pair in found.items():
        source, target = (np.asarray(x) for x in pair)
        if source.ndim != 1 or source.shape != target.shape or not np.issubdtype(source.dtype, np.integer):
            raise Broken(f"{edge_type}: sources and targets must be two int64 arrays of one length.")
        bad = (source < 0) | (source >= len(dialogue)) | (target < 0) | (target >= len(dialogue))
        if bad.any():
            i = int(bad.argmax())
            raise Broken(f"{edge_type}: edge {source[i]}→{target[i]} in a dialogue of {len(dialogue)} utterances.")
        if len(source) and np.unique(source * len(dialogue) + target).size != len(source):
            raise Broken(f"{edge_type}: an edge occurs twice.")
        total += len(source)
    bound = builder.count_edges(len(dialogue))
    if bound and total > bound:
        raise Broken(
            f"`count_edges({len(dialogue)})` is {bound}, but there are {total} edges; it must be an upper bound."
        )


def determinism(part: Part) -> None:
    """The same dialogue gives the same edges, and stays as it was."""
    builder = _build(part)
    dialogue = examples.pool()["eleven"]
    before = {m: x.copy() for m, x in dialogue.features.items()}
    first, second = builder.edges(dialogue), builder.edges(dialogue)
    if not _equal(first, second):
        raise Broken("two calls give different edges.")
    if any(not np.array_equal(before[m], x) for m, x in dialogue.features.items()):
        raise Broken("the builder changes the features of its dialogue.")


def lowering(part: Part) -> None:
    """The DGL heterograph has one node per utterance and node type, and gives back the same edges."""
    builder = _build(part)
    dialogues = [examples.pool()[name] for name in ("seven", "lonely", "eleven")]
    graphs = [builder(dialogue) for dialogue in dialogues]
    for graph, dialogue in zip(graphs, dialogues, strict=True):
        for node in builder.node_types:
            if graph.num_nodes(node) != len(dialogue):
                raise Broken(f"{graph.num_nodes(node)} nodes of type {node} for {len(dialogue)} utterances.")
    spec = ViewSpec(THREE, builder.relations)
    view = lower(graphs, [spec], builder.relations)[spec]
    total = sum(len(source) for dialogue in dialogues for source, _ in builder.edges(dialogue).values())
    if len(view.source) != total:
        raise Broken(f"lowering keeps {len(view.source)} of {total} edges.")


def variant(part: Part, settings: dict) -> None:
    """Another value of a setting gives sound edges, or is refused by a message."""
    try:
        builder = _build(part, **settings)
    except MerZooError as refusal:
        raise NotHere(f"refused here: {refusal}") from None
    for dialogue in examples.pool().values():
        sound(builder, dialogue)


def causal(part: Part) -> None:
    """No edge from the future, and none that depends on it."""
    builder, pool = _build(part), examples.pool()
    begun = len(pool["eleven begins"])
    whole, beginning = builder.edges(pool["eleven"]), builder.edges(pool["eleven begins"])
    for edge_type, (source, target) in whole.items():
        if (late := source > target).any():
            i = int(late.argmax())
            raise Broken(f"promised `causal`, but {edge_type} has the edge {source[i]}→{target[i]}, from the future.")
        early = target < begun
        if not _equal({edge_type: (source[early], target[early])}, {edge_type: beginning[edge_type]}):
            raise Broken(f"promised `causal`, but later utterances decide which edges of {edge_type} earlier ones get.")


def linear_size(part: Part) -> None:
    """Twice the length, about twice the edges."""
    builder = _build(part)
    counts = []
    for length in (200, 400):
        dialogue = examples.conversation(f"long {length}", examples.turns(length, 3, length))
        counts.append(sum(len(source) for source, _ in builder.edges(dialogue).values()))
    if counts[1] > 2.2 * counts[0]:
        raise Broken(f"promised `linear_size`, but has {counts[0]} edges for 200 utterances and {counts[1]} for 400.")


def speaker_relabelling_invariant(part: Part) -> None:
    """Other numbers for the same speakers, the same edges and relations."""
    builder, pool = _build(part), examples.pool()
    if not _equal(builder.edges(pool["eleven"]), builder.edges(pool["eleven renamed"])):
        raise Broken("promised `speaker_relabelling_invariant`, but other speaker numbers give other edges.")


def modality_subset_safe(part: Part) -> None:
    """Any modalities will do, and give edges."""
    for count in (1, 2, 3):
        for chosen in combinations(THREE, count):
            try:
                builder = _build(part, chosen)
            except MerZooError as refusal:
                raise Broken(
                    f"promised `modality_subset_safe`, but refuses {' and '.join(chosen)}: {refusal}"
                ) from None
            sound(builder, examples.pool()["eleven"])
            if not sum(len(source) for source, _ in builder.edges(examples.pool()["eleven"]).values()):
                raise Broken(f"promised `modality_subset_safe`, but gives no edge for {' and '.join(chosen)}.")


def _equal(first: dict, second: dict) -> bool:
    def ordered(edges: dict) -> dict:
        return {
            k: sorted(zip(np.asarray(s).tolist(), np.asarray(t).tolist(), strict=True)) for k, (s, t) in edges.items()
        }

    return ordered(first) == ordered(second)


CHECKS: dict[str, Callable[[Part], None]] = {"edges": edges, "determinism": determinism, "lowering": lowering}
PROOFS: dict[str, Callable[[Part], None]] = {
    "causal": causal,
    "linear_size": linear_size,
    "modality_subset_safe": modality_subset_safe,
    "speaker_relabelling_invariant": speaker_relabelling_invariant,
}
