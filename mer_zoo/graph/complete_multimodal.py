"""Everything within a modality, and the modalities of one utterance with each other: the graph of MMGCN."""

from __future__ import annotations

import numpy as np

from mer_zoo.data.conversation import Conversation
from mer_zoo.graph.base import Edges, EdgeType, GraphBuilder, window_pairs


class CompleteMultimodal(GraphBuilder):
    """Complete graph within every modality, and edges between the modalities of the same utterance (MMGCN §3.3).

    | relation | edge u→v |
    |---|---|
    | `same_modality` | any two utterances of a dialogue in one modality, u = v included |
    | `same_utterance` | two modalities of one utterance |

    Args:
        node_types: the modalities (a fact).

    Raises:
        MerZooError: the dialogue is so long that a complete graph would not fit in memory.

    Example:
        >>> import numpy as np
        >>> dialogue = Conversation("d", ("A", "B"), [0, 0], {"text": np.zeros((2, 2)), "audio": np.zeros((2, 2))})
        >>> graph = CompleteMultimodal(("text", "audio"))(dialogue)
        >>> graph.num_edges(("text", "same_modality", "text")), graph.num_edges(("text", "same_utterance", "audio"))
        (4, 2)
    """

    def __init__(self, node_types: tuple[str, ...]) -> None:
        super().__init__(node_types)

    @property
    def relations(self) -> tuple[str, ...]:
        """The two names above."""
        return ("same_modality", "same_utterance")

    @property
    def edge_types(self) -> list[EdgeType]:
        """`same_modality` within each modality, `same_utterance` between any two."""
        every = self.node_types
        return [(m, "same_modality", m) for m in every] + [
            (a, "same_utterance", b) for a in every for b in every if a != b
        ]

    def count_edges(self, length: int) -> int:
        """`M L^2 + M (M - 1) L`."""
        modalities = len(self.node_types)
        return modalities * length * (length + modalities - 1)

    def edges(self, conversation: Conversation) -> Edges:
        """Return the edges."""
        length = len(conversation)
        every, same = window_pairs(length, length, length), np.arange(length)
        found: Edges = {(m, "same_modality", m): every for m in self.node_types}
        found |= {(a, "same_utterance", b): (same, same) for a in self.node_types for b in self.node_types if a != b}
        return found
