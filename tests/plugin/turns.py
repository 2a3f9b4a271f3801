"""Who answers whom: a graph with relations and speaker nodes of its own."""

from __future__ import annotations

import numpy as np

from mer_zoo.data.conversation import Conversation
from mer_zoo.graph.base import Edges, EdgeType, GraphBuilder, Nodes, window_pairs


class Turns(GraphBuilder):
    """Edges from an utterance to itself, to what the same speaker says later, to the answers of others, and speakers.

    | relation | edge u→v |
    |---|---|
    | `itself` | u = v |
    | `goes_on` | u before v, the same speaker, at most `past` turns |
    | `is_answered` | u before v, another speaker, at most `past` turns |
    | `says` | utterance u, its speaker v |
    | `said_by` | speaker u, an utterance v of this speaker |

    Args:
        node_types: modalities, each with its own copy of the edges (a fact).
        past: turns to look back, at least 1.
    """

    nodes = {"speaker": Nodes(per="speaker")}  # noqa: RUF012

    def __init__(self, node_types: tuple[str, ...], *, past: int = 3) -> None:
        if past < 1:
            raise ValueError(f"past {past} is below 1")
        super().__init__(node_types)
        self.past = past

    @property
    def relations(self) -> tuple[str, ...]:
        """Names of the relations, in the order of the table."""
        return ("itself", "goes_on", "is_answered", "says", "said_by")

    @property
    def edge_types(self) -> list[EdgeType]:
        """The first three within a node type, the others between it and the speakers."""
        within = [(node, name, node) for node in self.node_types for name in self.relations[:3]]
        there = [(node, "says", "speaker") for node in self.node_types]
        return within + there + [("speaker", "said_by", node) for node in self.node_types]

    def edges(self, conversation: Conversation) -> Edges:
        """Return sources and targets for every edge type."""
        source, target = window_pairs(len(conversation), self.past, 0)
        same = conversation.speaker_index[source] == conversation.speaker_index[target]
        kind = np.where(source == target, 0, np.where(same, 1, 2))
        turn, speaker = np.arange(len(conversation)), conversation.speaker_index
        pairs = {
            name: (source[kind == number], target[kind == number]) for number, name in enumerate(self.relations[:3])
        }
        pairs |= {"says": (turn, speaker), "said_by": (speaker, turn)}
        return {edge_type: pairs[edge_type[1]] for edge_type in self.edge_types}
