"""A node for every speaker and one for the dialogue, beside windows over the utterances."""

from __future__ import annotations

import numpy as np

from mer_zoo.data.conversation import Conversation
from mer_zoo.graph.base import Edges, EdgeType, GraphBuilder, Nodes, window_pairs


class SpeakerNodes(GraphBuilder):
    """Every utterance tells its speaker's node and the dialogue's node, and both tell it back; beside them a window.

    What a speaker said earlier, or will say, is two steps away, however long ago it was. The nodes hear the whole
    dialogue, so the graph is not causal.

    | relation | edge u→v |
    |---|---|
    | `past` | u before v, at most `window` turns |
    | `present` | u = v |
    | `future` | u after v, at most `window` turns |
    | `says` | utterance u, its speaker v |
    | `said_by` | speaker u, an utterance v of this speaker |
    | `told` | utterance u, the dialogue v |
    | `heard` | the dialogue u, utterance v |

    Args:
        node_types: modalities that are still apart, or the utterance (a fact).
        window: turns to look back and ahead, at least 0.

    Example:
        >>> dialogue = Conversation("d", ("A", "B", "A"), [0, 0, 0], {"text": np.zeros((3, 2))})
        >>> graph = SpeakerNodes(("text",), window=1)(dialogue)
        >>> graph.num_nodes("speaker"), graph.num_nodes("dialogue")
        (2, 1)
        >>> [end.tolist() for end in graph.edges(etype=("text", "says", "speaker"))]
        [[0, 1, 2], [0, 1, 0]]
    """

    nodes = {"speaker": Nodes(per="speaker"), "dialogue": Nodes(per="dialogue")}  # noqa: RUF012

    def __init__(self, node_types: tuple[str, ...], *, window: int = 4) -> None:
        super().__init__(node_types)
        self.window = window

    @property
    def relations(self) -> tuple[str, ...]:
        """The seven names above."""
        return ("past", "present", "future", "says", "said_by", "told", "heard")

    @property
    def edge_types(self) -> list[EdgeType]:
        """Windows within a node type, and both ways between it and the own nodes."""
        ways = (("says", "said_by", "speaker"), ("told", "heard", "dialogue"))
        within = [(node, name, node) for node in self.node_types for name in self.relations[:3]]
        there = [(node, name, own) for node in self.node_types for name, _, own in ways]
        return within + there + [(own, name, node) for node in self.node_types for _, name, own in ways]

    def edges(self, conversation: Conversation) -> Edges:
        """Return the edges, alike for every node type."""
        source, target = window_pairs(len(conversation), self.window, self.window)
        turn, speaker = np.arange(len(conversation)), conversation.speaker_index
        everyone = np.zeros(len(conversation), np.int64)
        pairs = {
            **{"past": (source[source < target], target[source < target]), "present": (turn, turn)},
            **{"future": (source[source > target], target[source > target])},
            **{"says": (turn, speaker), "said_by": (speaker, turn)},
            **{"told": (turn, everyone), "heard": (everyone, turn)},
        }
        return {edge_type: pairs[edge_type[1]] for edge_type in self.edge_types}
