"""Who looks at whom, and how much, in one attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Node(NamedTuple):
    """What looks, or is looked at: an utterance, by one of its modalities or as a whole; or a graph's own node.

    Attributes:
        utterance: its number; of an own node, its number among those of its type.
        type: node type.
        own: whether it is a node of the graph builder's own, such as one per speaker.
    """

    utterance: int
    type: str
    own: bool = False


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """Who looks at whom, and how much.

    Attributes:
        stage: its name in the recipe.
        part: node types that the stage's part works on, such as `text`, `text+audio` or `utterance`.
        place: the module within the part, such as `layers.0`; "" for the part itself.
        name: `attention`; `map 1`, `map 2` and their `difference` for differential attention.
        weights: float64 `[relations, heads, targets, sources]`. Over relations and sources they sum to 1, or to 0 for
            one that has nobody to look at; a difference sums to 1 minus what its second map counts.
        relations: their names; `("dialogue",)` for attention that sees the whole dialogue without a graph.
        targets, sources: who looks, and who is looked at: (utterance, node type).
    """

    stage: str
    part: str
    place: str
    name: str
    weights: np.ndarray
    relations: tuple[str, ...]
    targets: tuple[Node, ...]
    sources: tuple[Node, ...]

    @property
    def matrix(self) -> np.ndarray:
        """All relations together, the mean of the heads, float64 `[targets, sources]`."""
        return self.weights.sum(0).mean(0)

    @property
    def title(self) -> str:
        """Where it is, and what.

        Example:
            >>> one = AttentionMap("context", "text", "layers.0", "attention", np.ones((1, 1, 1, 1)), (), (), ())
            >>> one.title
            'context, text, layers.0: attention'
        """
        return ", ".join(word for word in (self.stage, self.part, self.place) if word) + f": {self.name}"
