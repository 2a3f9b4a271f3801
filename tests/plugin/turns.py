"""Who answers whom: a graph with relations of its own."""

from __future__ import annotations

import numpy as np

from mer_zoo.data.conversation import Conversation
from mer_zoo.graph.base import Edges, GraphBuilder, window_pairs


class Turns(GraphBuilder):
    """Edges from an utterance to itself, to what the same speaker says later, and to the answers of others.

    | relation | edge u→v |
    |---|---|
    | `itself` | u = v |
    | `goes_on` | u before v, the same speaker, at most `past` turns |
    | `is_answered` | u before v, another speaker, at most `past` turns |

    Args:
        node_types: modalities, each with its own copy of the edges (a fact).
        past: turns to look back, at least 1.
    """

    def __init__(self, node_types: tuple[str, ...], *, past: int = 3) -> None:
        if past < 1:
            raise ValueError(f"past {past} is below 1")
        super().__init__(node_types)
        self.past = past

    @property
    def relations(self) -> tuple[str, ...]:
        """Names of the relations, in the order of the table."""
        return ("itself", "goes_on", "is_answered")

    def edges(self, conversation: Conversation) -> Edges:
        """Return sources and targets for every edge type."""
        source, target = window_pairs(len(conversation), self.past, 0)
        same = conversation.speaker_index[source] == conversation.speaker_index[target]
        relation = np.where(source == target, 0, np.where(same, 1, 2))
        chosen = {name: relation == number for number, name in enumerate(self.relations)}
        return {(a, r, b): (source[chosen[r]], target[chosen[r]]) for a, r, b in self.edge_types}
