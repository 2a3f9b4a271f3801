"""The same window twice, by time and by speakers: the two graphs of GCNet."""

from __future__ import annotations

from mer_zoo.data.conversation import Conversation
from mer_zoo.graph.base import Edges, GraphBuilder, speaker_numbers, window_pairs


class TemporalSpeaker(GraphBuilder):
    """Edges from the neighbours in a window, once with relations by time, once by the two speakers (GCNet §3.3).

    A layer usually sees one of the two, by `relations: time_*` or `relations: speaker_*`; the other half stands in a
    second branch. `future: 0` is the causal variant.

    | relation | edge u→v |
    |---|---|
    | `time_past`, `time_present`, `time_future` | u before, at or after v, at most `past` or `future` turns |
    | `speaker_p_to_q` | the same pairs: speaker p says u, speaker q says v |

    Speakers are numbered by first appearance.

    Args:
        node_types: usually `("utterance",)` (a fact).
        speakers: number of speakers to name relations for; any beyond share the last one's place (a fact).
        past: turns to look back, at least 0.
        future: turns to look ahead, at least 0.

    Example:
        >>> import numpy as np
        >>> dialogue = Conversation("d", ("A", "B"), [0, 0], {"text": np.zeros((2, 2))})
        >>> graph = TemporalSpeaker(("utterance",), 2)(dialogue)
        >>> graph.num_edges("time_past"), graph.num_edges("speaker_0_to_1")
        (1, 1)
    """

    def __init__(self, node_types: tuple[str, ...], speakers: int, *, past: int = 2, future: int = 2) -> None:
        super().__init__(node_types)
        self.speakers, self.past, self.future = speakers, past, future

    @property
    def relations(self) -> tuple[str, ...]:
        """Three by time, then one per ordered pair of speakers."""
        every = range(self.speakers)
        return ("time_past", "time_present", "time_future", *(f"speaker_{p}_to_{q}" for p in every for q in every))

    def edges(self, conversation: Conversation) -> Edges:
        """Return the edges, alike for every node type."""
        source, target = window_pairs(len(conversation), self.past, self.future)
        speaker = speaker_numbers(conversation, self.speakers)
        masks = [source < target, source == target, source > target]
        masks += [
            (speaker[source] == p) & (speaker[target] == q) for p in range(self.speakers) for q in range(self.speakers)
        ]
        return {
            (node, relation, node): (source[mask], target[mask])
            for node in self.node_types
            for relation, mask in zip(self.relations, masks, strict=True)
        }
