"""Windows, and four topics that every utterance asks and hears from."""

import numpy as np

from mer_zoo.graph.base import GraphBuilder, Nodes, window_pairs


class Topics(GraphBuilder):
    """Windows over utterances, and learned topics beside them.

    Args:
        node_types: modalities that are still apart, or the utterance (a fact).
        window: turns to look back and ahead.
    """

    nodes = {"topic": Nodes(per=4, state="learned")}  # noqa: RUF012
    relations = ("near", "asks", "answers")

    def __init__(self, node_types: tuple[str, ...], *, window: int = 3) -> None:
        super().__init__(node_types)
        self.window = window

    @property
    def edge_types(self):
        """Windows within a node type; to the topics and back."""
        return [
            edge_type
            for node in self.node_types
            for edge_type in ((node, "near", node), (node, "asks", "topic"), ("topic", "answers", node))
        ]

    def edges(self, conversation):
        """Return (sources, targets) for every edge type."""
        count = len(conversation)
        turn, topic = np.repeat(np.arange(count), 4), np.tile(np.arange(4), count)
        near = window_pairs(count, self.window, self.window)
        pairs = {"near": near, "asks": (turn, topic), "answers": (topic, turn)}
        return {edge_type: pairs[edge_type[1]] for edge_type in self.edge_types}
