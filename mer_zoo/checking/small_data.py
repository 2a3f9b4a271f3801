"""Small dialogues, and their edges, for tests and examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mer_zoo.corpus import ConversationBatch, Corpus
from mer_zoo.data.conversation import Conversation
from mer_zoo.graph.self_cross_speaker import SelfCrossSpeaker
from mer_zoo.kernel.base import Kernel

WIDTHS = {"text": 6, "audio": 4, "visual": 8}


def conversations(
    lengths: Sequence[int], speakers: int = 3, classes: int = 6, seed: int = 0, widths: dict[str, int] | None = None
) -> list[Conversation]:
    """Return random dialogues of the given lengths.

    Example:
        >>> [len(dialogue) for dialogue in conversations([7, 3])]
        [7, 3]
    """
    draw = np.random.default_rng(seed)
    return [
        Conversation(
            f"d{i}",
            tuple(f"S{s}" for s in draw.integers(speakers, size=n)),
            draw.integers(classes, size=n),
            {m: draw.normal(size=(n, w)).astype(np.float32) for m, w in (widths or WIDTHS).items()},
        )
        for i, n in enumerate(lengths)
    ]


def tiny_batch(lengths: Sequence[int] = (7, 3)) -> ConversationBatch:
    """Return a batch of random dialogues with a window graph on text.

    Example:
        >>> len(tiny_batch())
        10
    """
    builder = SelfCrossSpeaker(("text",), window=2)
    corpus = Corpus(conversations(lengths), builder, [(("text",), "*")])
    return corpus.batch(range(len(lengths)))


def tiny_edges(kernel: type[Kernel]) -> Kernel:
    """Return the edges of one dialogue A B A, window 1: each sees itself and the turn before.

    Example:
        >>> from mer_zoo.kernel.dense import Dense
        >>> tiny_edges(Dense).nodes
        3
    """
    dialogue = Conversation("d", ("A", "B", "A"), np.zeros(3, int), {"text": np.eye(3, dtype=np.float32)})
    builder = SelfCrossSpeaker(("text",), window=1)
    corpus = Corpus([dialogue], builder, [(("text",), ("self_loop", "*_past"))], kernels=kernel)
    return next(iter(corpus.batch([0]).views.values()))
