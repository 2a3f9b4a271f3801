"""Edges from the utterances with the most similar features."""

from __future__ import annotations

import numpy as np

from mer_zoo.data.conversation import Conversation
from mer_zoo.errors import MerZooError, nearest
from mer_zoo.graph.base import Edges, GraphBuilder

BLOCK = 1024  # targets compared at once, so that memory stays linear in the length of a dialogue


class KNearest(GraphBuilder):
    """Edges from the k utterances of the dialogue whose given features have the largest cosine with the target's.

    Static: chosen once, from the features as they are read. Ties go to the earlier utterance.

    | relation | edge u→v |
    |---|---|
    | `self_loop` | u = v |
    | `nearest_past` | u is among the k nearest of v and before it |
    | `nearest_future` | the same, after it |

    Args:
        node_types: modalities, each with edges by its own features, or `("utterance",)`: by the mean cosine (a fact).
        k: neighbours of every utterance besides itself, at least 1.
        modality: whose features decide for all node types; null: as said above.
        causal: choose among the past only.

    Raises:
        MerZooError: the dialogue has no such modality.

    Example:
        >>> import numpy as np
        >>> dialogue = Conversation("d", ("A", "B", "A"), [0] * 3, {"text": np.array([[1, 0], [0, 1], [0.9, 0.1]])})
        >>> graph = KNearest(("text",), k=1)(dialogue)
        >>> [x.tolist() for x in graph.edges(etype="nearest_past")]
        [[0], [2]]
    """

    def __init__(
        self, node_types: tuple[str, ...], *, k: int = 5, modality: str | None = None, causal: bool = False
    ) -> None:
        super().__init__(node_types)
        if k < 1:
            raise MerZooError(f"k: want at least 1, not {k}.")
        self.k, self.modality, self.causal = k, modality, causal

    @property
    def relations(self) -> tuple[str, ...]:
        """The three names above."""
        return ("self_loop", "nearest_past", "nearest_future")

    def count_edges(self, length: int) -> int:
        """At most `k + 1` for each node."""
        return len(self.node_types) * length * (self.k + 1)

    def edges(self, conversation: Conversation) -> Edges:
        """Return the edges."""
        loop = np.arange(len(conversation))
        chosen: dict[tuple[str, ...], tuple[np.ndarray, np.ndarray]] = {}
        found: Edges = {}
        for node in self.node_types:
            judges = self._judges(node, conversation)
            if judges not in chosen:
                chosen[judges] = self._nearest([conversation.values(m) for m in judges])
            source, target = chosen[judges]
            past = source < target
            found[node, "self_loop", node] = (loop, loop)
            found[node, "nearest_past", node] = (source[past], target[past])
            found[node, "nearest_future", node] = (source[~past], target[~past])
        return found

    def _judges(self, node: str, conversation: Conversation) -> tuple[str, ...]:
        if self.modality is None:
            return (node,) if node in conversation.features else tuple(conversation.features)
        if self.modality not in conversation.features:
            raise MerZooError(
                f"graph/k_nearest: dialogue '{conversation.id}' has no modality '{self.modality}'."
                f"{nearest(self.modality, conversation.features)} Choose one of {', '.join(conversation.features)}."
            )
        return (self.modality,)

    def _nearest(self, features: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return sources and targets, ordered by target."""
        unit = np.concatenate([x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-8) for x in features], axis=1)
        length = len(unit)
        pairs = []
        for start in range(0, length, BLOCK):
            target = np.arange(start, min(start + BLOCK, length))
            cosine = unit[target] @ unit.T
            barred = np.arange(length) >= target[:, None] if self.causal else np.arange(length) == target[:, None]
            cosine[barred] = -np.inf
            order = np.argsort(-cosine, axis=1, kind="stable")[:, : self.k]
            allowed = ~np.take_along_axis(barred, order, 1)
            pairs.append(np.stack([order[allowed], np.broadcast_to(target[:, None], order.shape)[allowed]]))
        source, target = np.concatenate(pairs, axis=1)
        return source, target
