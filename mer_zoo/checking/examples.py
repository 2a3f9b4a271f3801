"""Small dialogues, each made to show one fault: what the contract suite runs parts on."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mer_zoo.batch.index import Shape
from mer_zoo.corpus import ConversationBatch, Corpus
from mer_zoo.data.conversation import Conversation
from mer_zoo.graph.base import Edges, EdgeType, GraphBuilder
from mer_zoo.graph.lowering import ViewSpec
from mer_zoo.graph.self_cross_speaker import SelfCrossSpeaker
from mer_zoo.kernel.base import Kernel

WIDTHS = {"text": 16, "audio": 16, "visual": 16}
UNEQUAL_WIDTHS = {"text": 16, "audio": 8, "visual": 24}
SPEAKERS, CLASSES = 30, 6


def conversation(name: str, speakers: Sequence[int], seed: int = 0, **changed: Any) -> Conversation:
    """Return a random dialogue in which these speakers dialogue one after the other."""
    draw = np.random.default_rng([seed, *name.encode()])
    count = len(speakers)
    features = {m: draw.normal(size=(count, width)).astype(np.float32) for m, width in UNEQUAL_WIDTHS.items()}
    features |= {f"{m}16": draw.normal(size=(count, 16)).astype(np.float32) for m in ("audio", "visual")}
    labels = draw.integers(CLASSES, size=count)
    labels[1::5] = -1
    return Conversation(name, tuple(f"S{s}" for s in speakers), labels, features, **changed)


def turns(count: int, speakers: int, seed: int) -> list[int]:
    """Return who speaks in a dialogue of so many turns."""
    return np.random.default_rng(seed).integers(speakers, size=count).tolist()


@functools.cache
def pool() -> dict[str, Conversation]:
    """Return the dialogues by what they show.

    Example:
        >>> {name: len(dialogue) for name, dialogue in pool().items() if name in ("seven", "lonely", "crowd")}
        {'seven': 7, 'lonely': 1, 'crowd': 31}
    """
    eleven = conversation("eleven", turns(11, 3, 2))
    dialogues = {
        "seven": conversation("seven", turns(7, 3, 0)),
        "three": conversation("three", turns(3, 2, 1)),
        "eleven": eleven,
        "thirteen": conversation("thirteen", turns(13, 3, 3)),
        "five": conversation("five", turns(5, 2, 4)),
        "lonely": conversation("lonely", [0]),
        "monologue": conversation("monologue", [0] * 5),
        "crowd": conversation("crowd", [i % SPEAKERS for i in range(31)]),
    }
    return dialogues | {
        "eleven begins": rows(eleven, range(4)),
        "eleven reordered": rows(eleven, ORDER),
        # the same speakers, numbered differently
        "eleven renamed": replace(eleven, id="renamed", roles=("S9", "S8", *reversed(sorted(set(eleven.speakers))))),
    }


ORDER = [3, 0, 10, 7, 1, 9, 2, 8, 5, 4, 6]


def rows(dialogue: Conversation, chosen: Sequence[int]) -> Conversation:
    """Return some utterances of a dialogue, in this order."""
    index = list(chosen)
    return Conversation(
        f"{dialogue.id} {index}",
        tuple(dialogue.speakers[i] for i in index),
        dialogue.labels[index],
        {m: x[index] for m, x in dialogue.features.items()},
    )


class ExampleGraph(GraphBuilder):
    """The windows of AMB-DSGDN, and edges between the modalities of an utterance."""

    def __init__(self) -> None:
        super().__init__(("text", "audio16"))
        self.windows = SelfCrossSpeaker(self.node_types, window=2)

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
        return {**self.windows.edges(conversation), **across}


GRAPH = ExampleGraph()
WINDOW = ViewSpec(("text",), GRAPH.relations)
ACROSS = ViewSpec(("text", "audio16"), GRAPH.relations)
PAST = ViewSpec(("text",), ("self_loop", "same_speaker_past", "other_speaker_past"))


@functools.cache
def corpus(kernel: type[Kernel] | None = None, device: str = "cpu") -> Corpus:
    """Return all dialogues of the pool, lowered once."""
    return Corpus(list(pool().values()), GRAPH, [WINDOW, ACROSS, PAST], kernels=kernel, device=device)


def numbers(*names: str) -> list[int]:
    """Return where dialogues lie in the corpus."""
    order = list(pool())
    return [order.index(name) for name in names]


def batch(*names: str, kernel: type[Kernel] | None = None, device: str = "cpu") -> ConversationBatch:
    """Return a batch of named dialogues."""
    return corpus(kernel, device).batch(numbers(*names))


def padded(*names: str) -> ConversationBatch:
    """Return a batch with rows that belong to no dialogue, a place holder without utterances, and spare places."""
    whole = corpus()
    count = sum(len(pool()[name]) for name in names)
    return whole.batch(whole.index([*numbers(*names), len(whole)], Shape(utterances=count + 5, longest=13)))


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
