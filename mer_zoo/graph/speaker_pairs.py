"""Windows by the two who speak, and the modalities of one utterance: the graph of GraphCFC."""

from __future__ import annotations

from itertools import combinations_with_replacement, permutations

import numpy as np

from mer_zoo.data.conversation import Conversation
from mer_zoo.graph.base import Edges, EdgeType, GraphBuilder, speaker_numbers, window_pairs


class SpeakerPairs(GraphBuilder):
    """Within every modality a window by pairs of speakers, and all modalities of an utterance (GraphCFC §3.4).

    | relation | edge u→v |
    |---|---|
    | `p_with_q` | within a modality: one of the two speakers says u, the other v, in either order |
    | `same_utterance` | between modalities: u and v are of one utterance |

    Speakers are numbered by first appearance. `future: 0` is the causal variant.

    Args:
        node_types: modalities (a fact).
        speakers: number of speakers to name relations for; any beyond share the last one's place (a fact).
        past: turns to look back, at least 0.
        future: turns to look ahead, at least 0.

    Example:
        >>> features = {"text": np.zeros((3, 2)), "audio": np.zeros((3, 2))}
        >>> dialogue = Conversation("d", ("A", "B", "A"), [0, 0, 0], features)
        >>> graph = SpeakerPairs(("text", "audio"), 2, past=1, future=1)(dialogue)
        >>> graph.num_edges(("text", "0_with_1", "text")), graph.num_edges(("text", "same_utterance", "audio"))
        (4, 3)
    """

    def __init__(self, node_types: tuple[str, ...], speakers: int, *, past: int = 18, future: int = 18) -> None:
        super().__init__(node_types)
        self.speakers, self.past, self.future = speakers, past, future

    @property
    def relations(self) -> tuple[str, ...]:
        """One per unordered pair of speakers, then the one between modalities."""
        pairs = combinations_with_replacement(range(self.speakers), 2)
        return (*(f"{p}_with_{q}" for p, q in pairs), "same_utterance")

    @property
    def edge_types(self) -> list[EdgeType]:
        """The pairs within each modality, the last relation between any two."""
        *pairs, across = self.relations
        within = [(node, pair, node) for node in self.node_types for pair in pairs]
        return within + [(a, across, b) for a, b in permutations(self.node_types, 2)]

    def edges(self, conversation: Conversation) -> Edges:
        """Return the edges, alike for every modality."""
        source, target = window_pairs(len(conversation), self.past, self.future)
        speaker = speaker_numbers(conversation, self.speakers)
        first, last = (pick(speaker[source], speaker[target]) for pick in (np.minimum, np.maximum))
        every = np.arange(len(conversation))
        found: Edges = {}
        for a, relation, b in self.edge_types:
            if a != b:
                found[a, relation, b] = (every, every)
                continue
            p, _, q = relation.partition("_with_")
            mask = (first == int(p)) & (last == int(q))
            found[a, relation, b] = (source[mask], target[mask])
        return found
