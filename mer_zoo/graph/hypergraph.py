"""Hyperedges as cliques: the graph of M3Net."""

from __future__ import annotations

from mer_zoo.data.conversation import Conversation
from mer_zoo.graph.base import Edges
from mer_zoo.graph.complete_multimodal import CompleteMultimodal


class Hypergraph(CompleteMultimodal):
    """One hyperedge per modality and one per utterance, each as the clique of its members (M3Net §3.3).

    The same edges carry M3Net's frequency branch. As `complete_multimodal`, without its self-loops.

    | relation | edge u→v |
    |---|---|
    | `same_modality` | two different utterances of a dialogue in one modality |
    | `same_utterance` | two modalities of one utterance |

    Args:
        node_types: the modalities (a fact).

    Raises:
        MerZooError: the dialogue is so long that a complete graph would not fit in memory.

    Example:
        >>> import numpy as np
        >>> dialogue = Conversation("d", ("A", "B"), [0, 0], {"text": np.zeros((2, 2)), "audio": np.zeros((2, 2))})
        >>> graph = Hypergraph(("text", "audio"))(dialogue)
        >>> graph.num_edges(("text", "same_modality", "text")), graph.num_edges(("text", "same_utterance", "audio"))
        (2, 2)
    """

    def edges(self, conversation: Conversation) -> Edges:
        """Return the edges."""
        found = super().edges(conversation)
        for edge_type, (source, target) in found.items():
            if edge_type[1] == "same_modality":
                found[edge_type] = (source[source != target], target[source != target])
        return found
