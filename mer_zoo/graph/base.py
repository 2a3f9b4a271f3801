"""What a graph builder is: one conversation in, one DGL heterograph out."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from mer_zoo import registry
from mer_zoo.data.conversation import Conversation
from mer_zoo.errors import MerZooError

EdgeType = tuple[str, str, str]
Edges = dict[EdgeType, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Nodes:
    """Nodes that a graph has beside its utterances: how many in a dialogue, and what they are at first.

    Attributes:
        per: `dialogue` (one), `speaker` (one for each speaker of the dialogue), a number (so many in every dialogue),
            or a word of your own: then the builder's `count_nodes` says how many.
        state: `mean` of the utterances with an edge to the node, `learned` (one vector for all nodes of the type; for a
            number, one for each), or `zeros`.

    Example:
        >>> Nodes(per="speaker")
        Nodes(per='speaker', state='mean')
    """

    per: str | int
    state: Literal["mean", "learned", "zeros"] = "mean"


class GraphBuilder(abc.ABC):
    """Base of all graph builders; subclasses say which relations there are and which edges each has.

    An edge u→v lets v see u. Every node type has one node per utterance, in order; beside them there may be `nodes` of
    the builder's own. A relation is the middle word of a canonical edge type `(source node type, relation, target node
    type)`.

    Args:
        node_types: modalities that are still apart, or `("utterance",)` after an early fusion (a fact).
    """

    nodes: ClassVar[Mapping[str, Nodes]] = {}
    """Node types beside the utterances, by name; nodes `per: speaker` are numbered as `speaker_index`."""

    max_edges = 50_000_000  # a dialogue beyond this would not fit in memory; windowed builders stay far below

    def __init__(self, node_types: tuple[str, ...]) -> None:
        self.node_types = tuple(node_types)

    @property
    @abc.abstractmethod
    def relations(self) -> tuple[str, ...]:
        """Names of all relations, in the order of their ids."""

    @property
    def edge_types(self) -> list[EdgeType]:
        """Canonical edge types; by default every relation stays within its node type."""
        return [(node, relation, node) for node in self.node_types for relation in self.relations]

    @abc.abstractmethod
    def edges(self, conversation: Conversation) -> Edges:
        """Return, for every canonical edge type, sources and targets as int64 arrays of utterance numbers."""

    def count_nodes(self, node_type: str, conversation: Conversation) -> int:
        """Return how many nodes of a type of its own a conversation has; override it for a `per` of your own."""
        per = self.nodes[node_type].per
        if isinstance(per, int):
            return per
        if per not in ("dialogue", "speaker"):
            raise MerZooError(f"nodes: '{node_type}' is per {per}. Say how many these are: override `count_nodes`.")
        return 1 if per == "dialogue" else int(conversation.speaker_index.max()) + 1

    def count_edges(self, length: int) -> int:
        """Upper bound of the number of edges for a dialogue of this length; complete graphs override it."""
        return 0

    def __call__(self, conversation: Conversation) -> Any:
        """Return the `dgl.DGLGraph` of a conversation."""
        from mer_zoo.graph.dgl_import import dgl

        length = len(conversation)
        if self.count_edges(length) > self.max_edges:
            raise MerZooError(
                f"dialogue '{conversation.id}': {length} utterances would need {self.count_edges(length):,} edges in "
                f"{type(self).__name__}, more than {self.max_edges:,}. Use a windowed graph, or split the dialogue."
            )
        try:
            edges = self.edges(conversation)
        except MerZooError:
            raise
        except Exception as error:
            raise MerZooError(
                f"dialogue '{conversation.id}': {type(self).__name__} fails: {registry.raised(error)}."
            ) from error
        if undeclared := [key for key in edges if key not in self.edge_types]:
            declared = ", ".join(sorted({relation for _, relation, _ in self.edge_types}))
            raise MerZooError(
                f"dialogue '{conversation.id}': {type(self).__name__} makes edges of {undeclared[0]}, which are not "
                f"among its `edge_types` (relations: {declared}), so that no layer would see them. Declare them."
            )
        counts = dict.fromkeys(self.node_types, length)
        counts |= {node: self.count_nodes(node, conversation) for node in self.nodes}
        for (a, relation, b), ends in edges.items():
            for node, numbers in zip((a, b), ends, strict=True):
                if len(numbers) and not 0 <= np.min(numbers) <= np.max(numbers) < counts[node]:
                    raise MerZooError(
                        f"dialogue '{conversation.id}': {type(self).__name__} makes an edge of {relation} at a node of "
                        f"type {node} that is not there: there are {counts[node]}, numbered from 0."
                    )
        # a conversation's own arrays are read-only, of which torch warns
        own = {kind: tuple(np.require(end, requirements="W") for end in ends) for kind, ends in edges.items()}
        return dgl.heterograph(own, num_nodes_dict=counts)


def speaker_numbers(conversation: Conversation, known: int) -> np.ndarray:
    """Return who says each utterance, numbered by first appearance, for builders with relations by speaker.

    Any beyond the known number share the last one's place.

    Example:
        >>> dialogue = Conversation("d", ("A", "B", "C"), [0] * 3, {"text": np.zeros((3, 2))})
        >>> speaker_numbers(dialogue, 2).tolist()
        [0, 1, 1]
    """
    return np.minimum(conversation.speaker_index, known - 1)


def window_pairs(length: int, past: int, future: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all (source, target) with `-past <= source - target <= future`, ordered by target, then source.

    Example:
        >>> source, target = window_pairs(3, past=1, future=0)
        >>> list(zip(source.tolist(), target.tolist()))
        [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2)]
    """
    if past < 0 or future < 0:
        raise MerZooError(f"a window of {past} past and {future} future utterances: want 0 or more of each.")
    target = np.arange(length)
    first, last = np.maximum(target - past, 0), np.minimum(target + future, length - 1)
    count = last - first + 1
    targets = np.repeat(target, count)
    sources = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    return sources, targets
