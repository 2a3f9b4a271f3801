"""Windows within each modality by time, and the modalities of one utterance: the graph of CORECT."""

from __future__ import annotations

import numpy as np

from mer_zoo.data.conversation import Conversation
from mer_zoo.graph.base import Edges, EdgeType, GraphBuilder, window_pairs


class TemporalModality(GraphBuilder):
    """Within every modality a window with relations by time, and all modalities of an utterance (CORECT §3.3).

    As published, an edge runs from a window's centre u to its neighbour v in [u − past, u + future]. The published
    window leaves out its last turn, so its "5 future" is `future: 4` here. For a causal model set `past: 0`.

    | relation | edge u→v |
    |---|---|
    | `text_past` | modality `text`, u before v, at most `future` turns |
    | `text_future` | u after v, at most `past` turns |
    | `text_present` | u = v |
    | `text_to_audio` | `text` and `audio` of one utterance |

    and alike for every modality and every ordered pair.

    Args:
        node_types: modalities (a fact).
        past: turns before the centre, at least 0.
        future: turns after the centre, at least 0.

    Example:
        >>> import numpy as np
        >>> features = {"text": np.zeros((3, 2)), "audio": np.zeros((3, 2))}
        >>> dialogue = Conversation("d", ("A", "B", "A"), [0, 0, 0], features)
        >>> graph = TemporalModality(("text", "audio"), past=1, future=2)(dialogue)
        >>> graph.num_edges("text_past"), graph.num_edges("text_future"), graph.num_edges("text_to_audio")
        (3, 2, 3)
    """

    def __init__(self, node_types: tuple[str, ...], *, past: int = 11, future: int = 4) -> None:
        super().__init__(node_types)
        self.past, self.future = past, future

    @property
    def relations(self) -> tuple[str, ...]:
        """Names in the order of the published ids."""
        return tuple(relation for _, relation, _ in self.edge_types)

    @property
    def edge_types(self) -> list[EdgeType]:
        """Each time for each modality, then each ordered pair."""
        every = self.node_types
        within = [(m, f"{m}_{time}", m) for time in ("past", "future", "present") for m in every]
        return within + [(a, f"{a}_to_{b}", b) for a in every for b in every if a != b]

    def edges(self, conversation: Conversation) -> Edges:
        """Return the edges."""
        length = len(conversation)
        target, source = window_pairs(length, self.past, self.future)
        times = {"past": source < target, "future": source > target, "present": source == target}
        same = np.arange(length)
        found: Edges = {}
        for a, relation, b in self.edge_types:
            mask = times[relation.removeprefix(f"{a}_")] if a == b else None
            found[a, relation, b] = (same, same) if mask is None else (source[mask], target[mask])
        return found
