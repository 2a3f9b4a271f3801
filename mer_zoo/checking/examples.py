"""Small dialogues, each made to show one fault, in three worlds whose facts differ: what parts are checked on."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mer_zoo.batch.index import Shape
from mer_zoo.corpus import ConversationBatch, Corpus
from mer_zoo.data.conversation import Conversation
from mer_zoo.graph.base import Edges, EdgeType, GraphBuilder, window_pairs
from mer_zoo.graph.lowering import ViewSpec
from mer_zoo.graph.self_cross_speaker import SelfCrossSpeaker
from mer_zoo.kernel.base import Kernel

ORDER = [3, 0, 10, 7, 1, 9, 2, 8, 5, 4, 6]
RAGGED = ("seven", "three", "eleven")
EVERY = (*RAGGED, "lonely", "monologue", "crowd", "absent")


def turns(count: int, speakers: int, seed: int) -> list[int]:
    """Return who speaks in a dialogue of so many turns."""
    return np.random.default_rng(seed).integers(speakers, size=count).tolist()


def equal(modality: str) -> str:
    """Return the name under which a modality also has the width that all have in common."""
    return f"{modality}_equal"


class ByDistance(GraphBuilder):
    """A window in which every two steps of distance are a relation of their own.

    Args:
        kinds: how many relations to each side.
    """

    def __init__(self, node_types: tuple[str, ...], kinds: int) -> None:
        super().__init__(node_types)
        self.kinds = kinds

    @property
    def relations(self) -> tuple[str, ...]:
        """`self_loop`, then `past_0`, `future_0` and so on."""
        return ("self_loop", *(f"{way}_{i}" for i in range(self.kinds) for way in ("past", "future")))

    def edges(self, conversation: Conversation) -> Edges:
        """Return the edges, alike for every node type."""
        source, target = window_pairs(len(conversation), 2 * self.kinds, 2 * self.kinds)
        far = np.abs(source - target)
        relation = np.where(far == 0, 0, 1 + 2 * ((far - 1) // 2) + (source > target))
        masks = {name: relation == i for i, name in enumerate(self.relations)}
        return {(node, r, node): (source[masks[r]], target[masks[r]]) for node, r, _ in self.edge_types}


class ExampleGraph(GraphBuilder):
    """Windows within two modalities, and edges between the modalities of an utterance.

    Args:
        windows: gives the edges within a modality.
        mixed: give every edge of a window another of the relations, so that only these differ.
    """

    def __init__(self, windows: GraphBuilder, mixed: bool = False) -> None:
        super().__init__(windows.node_types)
        self.windows, self.mixed = windows, mixed

    @property
    def relations(self) -> tuple[str, ...]:
        """Those of the windows, and one more."""
        return (*self.windows.relations, "same_utterance")

    @property
    def edge_types(self) -> list[EdgeType]:
        """Windows within a modality, `same_utterance` across."""
        first, second = self.node_types
        across = [(first, "same_utterance", second), (second, "same_utterance", first)]
        return [*self.windows.edge_types, *across]

    def edges(self, conversation: Conversation) -> Edges:
        """Return the edges."""
        everyone = np.arange(len(conversation))
        across = {key: (everyone, everyone) for key in self.edge_types if key[1] == "same_utterance"}
        within = self.windows.edges(conversation)
        return {**(self._mix(within) if self.mixed else within), **across}

    def _mix(self, within: Edges) -> Edges:
        mixed: Edges = {}
        for node in self.node_types:
            pairs = np.concatenate([np.stack(pair) for (a, _, _), pair in within.items() if a == node], 1)
            drawn = (3 * pairs[0] + 5 * pairs[1] + pairs[0] * pairs[1]) % len(self.windows.relations)
            for number, relation in enumerate(self.windows.relations):
                source, target = pairs[:, drawn == number]
                mixed[node, relation, node] = (source, target)
        return mixed


@dataclass(frozen=True, eq=False)
class World:
    """Facts, and dialogues and a graph that fit them.

    Attributes:
        width: of one input, or of several that must be equal.
        widths: modality -> width, unequal where possible.
        speakers, classes: how many.
        windows: edges within a modality.
    """

    width: int
    widths: dict[str, int]
    speakers: int
    classes: int
    windows: GraphBuilder

    def __str__(self) -> str:
        facts = f"width {self.width}, {self.speakers} speakers, {self.classes} classes"
        return f"{facts}, {len(self.graph.relations)} relations, modalities {', '.join(self.widths)}"

    @cached_property
    def graph(self) -> ExampleGraph:
        """The windows, and edges across modalities."""
        return ExampleGraph(self.windows)

    @cached_property
    def views(self) -> dict[str, ViewSpec]:
        """What a layer may see: a whole window, both modalities, the past, or itself alone."""
        names = self.graph.relations
        past = tuple(r for r in names if r == "self_loop" or "past" in r)
        nodes = self.graph.node_types
        return {
            "window": ViewSpec(nodes[:1], names),
            "across": ViewSpec(nodes, names),
            "past": ViewSpec(nodes[:1], past),
            "itself": ViewSpec(nodes[:1], ("self_loop",)),
        }

    @cached_property
    def pool(self) -> dict[str, Conversation]:
        """The dialogues by what they show."""
        few = min(self.speakers, 3)
        eleven = self.conversation("eleven", turns(11, few, 2))
        hidden = {m: np.arange(9) % (i + 2) == 0 for i, m in enumerate((*self.widths, *map(equal, self.widths)))}
        return {
            "seven": self.conversation("seven", turns(7, few, 0)),
            "three": self.conversation("three", turns(3, 2, 1)),
            "eleven": eleven,
            "thirteen": self.conversation("thirteen", turns(13, few, 3)),
            "five": self.conversation("five", turns(5, 2, 4)),
            "lonely": self.conversation("lonely", [0]),
            "monologue": self.conversation("monologue", [0] * 5),
            "crowd": self.conversation("crowd", [i % self.speakers for i in range(max(31, self.speakers))]),
            "absent": self.conversation("absent", turns(9, 2, 5), present={m: ~x for m, x in hidden.items()}),
            "long": self.conversation("long", turns(130, few, 6)),
            "eleven begins": rows(eleven, range(4)),
            "eleven reordered": rows(eleven, ORDER),
            # the same speakers, numbered differently
            "eleven renamed": replace(
                eleven, id="renamed", roles=(*([] if few == self.speakers else ["S9", "S8"]), *_backwards(eleven))
            ),
        }

    def conversation(self, name: str, speakers: Sequence[int], seed: int = 0, **changed: Any) -> Conversation:
        """Return a random dialogue in which these speakers speak one after the other."""
        draw = np.random.default_rng([seed, *name.encode()])
        count = len(speakers)
        every = {**self.widths, **{equal(m): self.width for m in self.widths}}
        features = {m: draw.normal(size=(count, width)).astype(np.float32) for m, width in every.items()}
        labels = draw.integers(self.classes, size=count)
        labels[1::5] = -1
        return Conversation(name, tuple(f"S{s}" for s in speakers), labels, features, **changed)

    @functools.cache  # noqa: B019 (there are three worlds, for good)
    def corpus(self, kernel: type[Kernel] | None = None, device: str = "cpu", mixed: bool = False) -> Corpus:
        """Return all dialogues of the pool, lowered once."""
        graph = ExampleGraph(self.windows, mixed)
        return Corpus(list(self.pool.values()), graph, [*self.views.values()], kernels=kernel, device=device)

    def numbers(self, *names: str) -> list[int]:
        """Return where dialogues lie in the corpus."""
        order = list(self.pool)
        return [order.index(name) for name in names]

    def batch(
        self, *names: str, kernel: type[Kernel] | None = None, device: str = "cpu", mixed: bool = False
    ) -> ConversationBatch:
        """Return a batch of named dialogues."""
        return self.corpus(kernel, device, mixed).batch(self.numbers(*names))

    def padded(self, *names: str, kernel: type[Kernel] | None = None) -> ConversationBatch:
        """Return a batch with rows that belong to no dialogue, a place holder without utterances, and spare places."""
        whole = self.corpus(kernel)
        need = whole.shape(self.numbers(*names))
        edges = {view: count + 3 if count else 0 for view, count in need.edges.items()}
        shape = Shape(need.dialogues, need.utterances + 5, 13, edges)
        return whole.batch(whole.index([*self.numbers(*names), len(whole)], shape))


def _backwards(dialogue: Conversation) -> list[str]:
    return sorted(set(dialogue.speakers), reverse=True)


def rows(dialogue: Conversation, chosen: Sequence[int]) -> Conversation:
    """Return some utterances of a dialogue, in this order."""
    index = list(chosen)
    return Conversation(
        f"{dialogue.id} {index}",
        tuple(dialogue.speakers[i] for i in index),
        dialogue.labels[index],
        {m: x[index] for m, x in dialogue.features.items()},
    )


_NODES = ("text", equal("audio"))
FIRST = World(16, {"text": 16, "audio": 8, "visual": 24}, 30, 6, SelfCrossSpeaker(_NODES, window=2))
OTHER = World(24, {"text": 24, "audio": 40, "visual": 8}, 3, 7, ByDistance(_NODES, 3))
THIRD = World(40, {"visual": 40, "audio": 16}, 70, 2, ByDistance(("visual", equal("audio")), 1))
"""What parts are checked on: their relations are 6, 8 and 4; more speakers than any data set has in a dialogue."""


def tensors(thing: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor within an argument, with its path."""
    if isinstance(thing, Tensor):
        yield path, thing
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield from tensors(value, f"{path}[{key!r}]")
    elif isinstance(thing, (list, tuple)):
        for i, value in enumerate(thing):
            yield from tensors(value, f"{path}[{i}]")
    elif is_dataclass(thing) and not isinstance(thing, type):
        for item in fields(thing):
            yield from tensors(getattr(thing, item.name), f"{path}.{item.name}" if path else item.name)
    elif isinstance(thing, Kernel):
        for key, value in vars(thing).items():
            if key != "_index":
                yield from tensors(value, f"{path}.{key}")


def mapped(thing: Any, function: Any) -> Any:
    """Return a copy of an argument with every tensor replaced by what the function makes of it."""
    if isinstance(thing, Tensor):
        return function(thing)
    if isinstance(thing, dict):
        return {key: mapped(value, function) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return type(thing)(mapped(value, function) for value in thing)
    if is_dataclass(thing) and not isinstance(thing, type):
        return replace(thing, **{f.name: mapped(getattr(thing, f.name), function) for f in fields(thing) if f.init})
    if isinstance(thing, Kernel):
        copied = object.__new__(type(thing))
        copied.__dict__.update({key: mapped(value, function) for key, value in vars(thing).items()})
        return copied
    return thing


def warm(edges: Kernel) -> None:
    """Compute what a kernel keeps, so that it is not blamed on the part that asks first."""
    edges.one_hot, edges.ones  # noqa: B018
    edges.softmax(torch.zeros_like(edges.ones))
    edges.softmax_outgoing(torch.zeros_like(edges.ones))
