"""Windows from each modality to every other: the graph of GraphSmile."""

from __future__ import annotations

from mer_zoo.data.conversation import Conversation
from mer_zoo.errors import MerZooError
from mer_zoo.graph.base import Edges, EdgeType, GraphBuilder, window_pairs


class BipartiteWindow(GraphBuilder):
    """Edges between modalities only, from the neighbours in a window (GraphSmile §3.3).

    Hops alternate between the two sides, so two layers reach one's own modality. `future: 0` is the causal variant.

    | relation | edge u→v, from one modality to another |
    |---|---|
    | `cross_past` | u before v, at most `past` turns |
    | `cross_present` | u and v are of the same utterance |
    | `cross_future` | u after v, at most `future` turns |

    Args:
        node_types: modalities, at least two; or pairs of them, such as `text<audio` (a fact).
        past: turns to look back, at least 0.
        future: turns to look ahead, at least 0.

    Raises:
        MerZooError: there is only one modality.

    Example:
        >>> import numpy as np
        >>> features = {"text": np.zeros((3, 2)), "audio": np.zeros((3, 2))}
        >>> dialogue = Conversation("d", ("A", "B", "A"), [0, 0, 0], features)
        >>> graph = BipartiteWindow(("text", "audio"), past=2, future=1)(dialogue)
        >>> graph.num_edges(("text", "cross_past", "audio")), graph.num_edges(("audio", "cross_future", "text"))
        (3, 2)
    """

    def __init__(self, node_types: tuple[str, ...], *, past: int = 17, future: int = 17) -> None:
        super().__init__(node_types)
        if len(node_types) < 2 and "<" not in node_types[0]:
            raise MerZooError(
                f"edges run from one modality to another, but there is only '{node_types[0]}' here. Give the model two "
                "modalities, and put its first layer before the fusion."
            )
        self.past, self.future = past, future

    @property
    def relations(self) -> tuple[str, ...]:
        """The three names above."""
        return ("cross_past", "cross_present", "cross_future")

    @property
    def edge_types(self) -> list[EdgeType]:
        """Each relation between any two modalities, or between the two halves of a pair, both ways."""
        every = self.node_types
        return [(a, relation, b) for a in every for relation in self.relations for b in every if _face(a, b)]

    def edges(self, conversation: Conversation) -> Edges:
        """Return the edges, alike for every pair of modalities."""
        source, target = window_pairs(len(conversation), self.past, self.future)
        masks = dict(zip(self.relations, (source < target, source == target, source > target), strict=True))
        return {(a, r, b): (source[masks[r]], target[masks[r]]) for a, r, b in self.edge_types}


def _face(a: str, b: str) -> bool:
    """Whether edges run between two node types: any two modalities; of pairs, `text<audio` and `audio<text`."""
    return a.split("<") == b.split("<")[::-1] if "<" in a else a != b
