"""From DGL heterographs to plain arrays, once per corpus.

A *view* is what one stage of a model sees of the graph: some node types, some relations. Nodes of a view are numbered
utterance by utterance (`utterance * node types + node type`), so a dialogue stays one contiguous run of nodes and a
window over utterances stays a window over nodes. Nodes of a builder's own follow behind a dialogue's utterances, in
places that kernels take for further utterances.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mer_zoo.errors import MerZooError, nearest


@dataclass(frozen=True)
class ViewSpec:
    """Which part of a heterograph a stage sees.

    Attributes:
        node_types: of its nodes, one per utterance.
        relations: names of the selected relations.
        own: node types of the builder's own.
        listed: whether it asks for the edges as a list (`Kernel.edge_index`).
    """

    node_types: tuple[str, ...]
    relations: tuple[str, ...]
    listed: bool = False
    own: tuple[str, ...] = ()


@dataclass(frozen=True)
class View:
    """The edges of all dialogues as seen through one `ViewSpec`, sorted by dialogue and target.

    Attributes:
        nodes_per_utterance: M, the number of node types with a node per utterance.
        lengths: int64 `[dialogue]`, places of each: utterances, and what nodes of the builder's own take.
        source, target: int32 `[edge]`, node numbers within the dialogue, below `M * length`.
        relation: int16 `[edge]`, index into all relations of the builder.
        pointer: int64 `[dialogue + 1]`, where the edges of each dialogue begin.
        relations: names of all relations of the builder.
        selected: ids of the relations that this view selects.
        utterances: int64 `[dialogue]`, utterances of each.
        own: int64 `[dialogue, types]`, nodes of each of the builder's own types.
    """

    nodes_per_utterance: int
    lengths: np.ndarray
    source: np.ndarray
    target: np.ndarray
    relation: np.ndarray
    pointer: np.ndarray
    relations: tuple[str, ...]
    selected: tuple[int, ...]
    utterances: np.ndarray
    own: np.ndarray

    @cached_property
    def reach(self) -> int:
        """Largest distance between source and target, in nodes."""
        return int(np.abs(self.source - self.target).max(initial=0))

    @cached_property
    def is_simple(self) -> bool:
        """Whether no two edges share source and target."""
        again = (self.source[1:] == self.source[:-1]) & (self.target[1:] == self.target[:-1])  # edges are sorted
        starts = self.pointer[(self.pointer > 0) & (self.pointer < len(self.source))]
        again[starts - 1] = False  # the first edge of the next dialogue may look like the last of this one
        return not again.any()


def select(patterns: str | Sequence[str] | None, names: Sequence[str], place: str = "") -> tuple[str, ...]:
    """Return the relations that match any of the wildcard patterns (all of them for None), in the builder's order.

    Example:
        >>> select("same_*", ["self_loop", "same_past", "other_past"])
        ('same_past',)
    """
    if patterns is None:
        return tuple(names)
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in wanted:
        if not fnmatch.filter(names, pattern):
            raise MerZooError(f"{place}: no relation matches '{pattern}'.{nearest(pattern, names)}")
    return tuple(name for name in names if any(fnmatch.fnmatch(name, p) for p in wanted))


def groups(node_types: Sequence[str], edge_types: Sequence[tuple[str, str, str]]) -> list[tuple[str, ...]]:
    """Return the node types that the given edge types connect, group by group.

    Example:
        >>> groups(["text", "audio"], [("text", "past", "text"), ("audio", "past", "audio")])
        [('text',), ('audio',)]
        >>> groups(["text", "audio"], [("text", "same_utterance", "audio")])
        [('text', 'audio')]
    """
    group = {node: {node} for node in node_types}
    for a, _, b in edge_types:
        if a in group and b in group and group[a] is not group[b]:
            merged = group[a] | group[b]
            for node in merged:
                group[node] = merged
    found: list[tuple[str, ...]] = []
    for node in node_types:
        members = tuple(n for n in node_types if n in group[node])
        if members not in found:
            found.append(members)
    return found


def lower(graphs: Sequence[Any], specs: Sequence[ViewSpec], relations: Sequence[str]) -> dict[ViewSpec, View]:
    """Read the edges of every dialogue's heterograph back into plain arrays, one `View` for each spec.

    Equal views (as of modalities whose subgraphs are alike) are one object, so they are stored and uploaded once.
    """
    pieces: dict[ViewSpec, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {spec: [] for spec in specs}
    owns: dict[ViewSpec, np.ndarray] = {}
    for spec in specs:
        counts = [[graph.num_nodes(node) for node in spec.own] for graph in graphs]
        owns[spec] = np.array(counts, dtype=np.int64).reshape(len(graphs), len(spec.own))
    number = {name: i for i, name in enumerate(relations)}
    lengths = np.zeros(len(graphs), np.int64)
    for dialogue, graph in enumerate(graphs):
        edges = {etype: tuple(x.numpy() for x in graph.edges(etype=etype)) for etype in graph.canonical_etypes}
        for spec in specs:
            lengths[dialogue] = length = graph.num_nodes(spec.node_types[0])
            count = len(spec.node_types)
            place = {node: (count, i) for i, node in enumerate(spec.node_types)}
            before = np.cumsum([count * length, *owns[spec][dialogue]])
            place |= {node: (1, int(start)) for node, start in zip(spec.own, before, strict=False)}
            chosen = [
                (u * place[a][0] + place[a][1], v * place[b][0] + place[b][1], np.full(len(u), number[r], np.int16))
                for (a, r, b), (u, v) in edges.items()
                if a in place and b in place and r in spec.relations and len(u)
            ]
            if chosen:
                source, target, relation = (np.concatenate(x) for x in zip(*chosen, strict=True))
            else:
                source, target, relation = (np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int16))
            order = np.lexsort((relation, source, target))
            pieces[spec].append((source[order].astype(np.int32), target[order].astype(np.int32), relation[order]))
    views: dict[ViewSpec, View] = {}
    seen: dict[tuple[Any, ...], View] = {}
    for spec, parts in pieces.items():
        count, own = len(spec.node_types), owns[spec]
        places = lengths + -(-own.sum(1) // count)
        source, target, relation = (np.concatenate(x) for x in zip(*parts, strict=True))
        pointer = np.concatenate([[0], np.cumsum([len(p[0]) for p in parts])]).astype(np.int64)
        selected = tuple(number[r] for r in spec.relations)
        arrays = (places, source, target, relation, pointer)
        key = (count, selected, spec.own, own.tobytes(), *(array.tobytes() for array in arrays))
        if key not in seen:
            seen[key] = View(count, *arrays, tuple(relations), selected, lengths, own)
        views[spec] = seen[key]
    return views
