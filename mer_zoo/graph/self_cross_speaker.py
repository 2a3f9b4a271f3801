"""Windows of the same and of other speakers, past and future: the graph of AMB-DSGDN."""

from __future__ import annotations

from mer_zoo.data.conversation import Conversation
from mer_zoo.graph.base import Edges, GraphBuilder, window_pairs


class SelfCrossSpeaker(GraphBuilder):
    """Within every modality, edges from the neighbours in a window, by speaker and direction (AMB-DSGDN, §3).

    | relation | edge u→v |
    |---|---|
    | `self_loop` | u = v |
    | `same_speaker_past` | same speaker, u before v, at most `window` turns |
    | `same_speaker_future` | same speaker, u after v, at most `future` turns |
    | `other_speaker_future` | different speaker, u after v |
    | `other_speaker_past` | different speaker, u before v |

    Args:
        node_types: modalities, each with its own copy of the edges (a fact).
        window: turns to look back and ahead, at least 0.
        future: turns to look ahead, if not as many; 0 makes the graph causal.

    Example:
        >>> import numpy as np
        >>> dialogue = Conversation("d", ("A", "B", "A"), [0, 0, 0], {"text": np.zeros((3, 2))})
        >>> graph = SelfCrossSpeaker(("text",), window=1)(dialogue)
        >>> graph.num_edges("same_speaker_past"), graph.num_edges("other_speaker_past")
        (0, 2)
    """

    def __init__(self, node_types: tuple[str, ...], *, window: int = 10, future: int | None = None) -> None:
        super().__init__(node_types)
        self.window, self.future = window, window if future is None else future

    @property
    def relations(self) -> tuple[str, ...]:
        """Names in the order of the published ids 1 to 5."""
        return ("self_loop", "same_speaker_past", "same_speaker_future", "other_speaker_future", "other_speaker_past")

    def edges(self, conversation: Conversation) -> Edges:
        """Return the edges, alike for every node type."""
        source, target = window_pairs(len(conversation), self.window, self.future)
        speaker = conversation.speaker_index
        same, past, loop = speaker[source] == speaker[target], source < target, source == target
        chosen = (loop, same & past, same & ~past & ~loop, ~same & ~past, ~same & past)
        return {
            (node, relation, node): (source[mask], target[mask])
            for node in self.node_types
            for relation, mask in zip(self.relations, chosen, strict=True)
        }
