"""Back to the same speaker's last turn: the graph of DAG-ERC."""

from __future__ import annotations

import numpy as np

from mer_zoo.data.conversation import Conversation
from mer_zoo.errors import MerZooError
from mer_zoo.graph.base import Edges, GraphBuilder


class Dag(GraphBuilder):
    """Edges from every utterance back to the speaker's own last turn, that one included (DAG-ERC §3.2).

    All edges come from the past, so the graph is acyclic and causal. A speaker's first turns see the whole past.

    | relation | edge u→v |
    |---|---|
    | `same_speaker` | same speaker |
    | `other_speaker` | different speaker, since the speaker's turn that ends the search |

    Args:
        node_types: usually `("utterance",)` (a fact).
        turns: own turns to go back, at least 1.

    Raises:
        MerZooError: the dialogue is so long, and its speakers so many, that the edges would not fit in memory.

    Example:
        >>> import numpy as np
        >>> dialogue = Conversation("d", ("A", "B", "A", "B"), [0] * 4, {"text": np.zeros((4, 2))})
        >>> graph = Dag(("utterance",))(dialogue)
        >>> graph.num_edges("same_speaker"), graph.num_edges("other_speaker")
        (2, 3)
    """

    def __init__(self, node_types: tuple[str, ...], *, turns: int = 1) -> None:
        super().__init__(node_types)
        if turns < 1:
            raise MerZooError(f"turns: want at least 1, not {turns}.")
        self.turns = turns

    @property
    def relations(self) -> tuple[str, ...]:
        """The two names above, in the published order."""
        return ("same_speaker", "other_speaker")

    def edges(self, conversation: Conversation) -> Edges:
        """Return the edges, alike for every node type."""
        speaker = conversation.speaker_index
        first = np.zeros(len(conversation), np.int64)  # earliest predecessor
        for s in range(int(speaker.max()) + 1):
            own = np.flatnonzero(speaker == s)
            first[own[self.turns :]] = own[: -self.turns]
        count = np.arange(len(conversation)) - first
        if count.sum() > self.max_edges:
            raise MerZooError(
                f"dialogue '{conversation.id}': the way back to each speaker's last turn makes {count.sum():,} edges, "
                f"more than {self.max_edges:,}. Use a windowed graph, or split the dialogue."
            )
        target = np.repeat(np.arange(len(conversation)), count)
        source = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + first[target]
        same = speaker[source] == speaker[target]
        return {
            (node, relation, node): (source[mask], target[mask])
            for node in self.node_types
            for relation, mask in zip(self.relations, (same, ~same), strict=True)
        }
