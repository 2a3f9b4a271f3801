"""Windows whose relations are speaker pair × direction: the graph of DialogueGCN."""

from __future__ import annotations

from mer_zoo.data.conversation import Conversation
from mer_zoo.graph.base import Edges, GraphBuilder, speaker_numbers, window_pairs


class SpeakerWindow(GraphBuilder):
    """Edges from every window centre to its neighbours, one relation per speaker pair and direction (DialogueGCN §3.3).

    The published code stores an edge as (source = centre i, target = neighbour j in [i − past, i + future]), so a
    target sees the centres whose windows it lies in.

    | relation | edge u→v |
    |---|---|
    | `p_to_q_later` | speaker p says u, speaker q says v, u before v |
    | `p_to_q_earlier` | the same, u after v or u = v |

    Speakers are numbered by first appearance; the id is `2 (S p + q) + [u >= v]`.

    Args:
        node_types: usually `("utterance",)` (a fact).
        speakers: number of speakers S to name relations for; any beyond share the last one's place (a fact).
        past: turns before the centre, at least 0.
        future: turns after the centre, at least 0.

    Example:
        >>> import numpy as np
        >>> dialogue = Conversation("d", ("A", "B"), [0, 0], {"text": np.zeros((2, 2))})
        >>> graph = SpeakerWindow(("utterance",), 2, past=1, future=1)(dialogue)
        >>> graph.num_edges("0_to_1_later"), graph.num_edges("0_to_0_earlier")
        (1, 1)
    """

    def __init__(self, node_types: tuple[str, ...], speakers: int, *, past: int = 10, future: int = 10) -> None:
        super().__init__(node_types)
        self.speakers, self.past, self.future = speakers, past, future

    @property
    def relations(self) -> tuple[str, ...]:
        """Names in the order of the published ids."""
        every = range(self.speakers)
        return tuple(f"{p}_to_{q}_{way}" for p in every for q in every for way in ("later", "earlier"))

    def edges(self, conversation: Conversation) -> Edges:
        """Return the edges, alike for every node type."""
        target, source = window_pairs(len(conversation), self.past, self.future)
        speaker = speaker_numbers(conversation, self.speakers)
        relation = 2 * (self.speakers * speaker[source] + speaker[target]) + (source >= target)
        return {
            (node, name, node): (source[relation == r], target[relation == r])
            for node in self.node_types
            for r, name in enumerate(self.relations)
        }
