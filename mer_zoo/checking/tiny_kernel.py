"""A three-utterance graph for examples of kernels."""

from __future__ import annotations

import numpy as np

from mer_zoo.corpus import Corpus
from mer_zoo.data.conversation import Conversation
from mer_zoo.graph.self_cross_speaker import SelfCrossSpeaker
from mer_zoo.kernel.base import Kernel


def tiny(kernel: type[Kernel]) -> Kernel:
    """Return the edges of one dialogue A B A, window 1: each sees itself and the turn before.

    Example:
        >>> from mer_zoo.kernel.dense import Dense
        >>> tiny(Dense).nodes
        3
    """
    dialogue = Conversation("d", ("A", "B", "A"), np.zeros(3, int), {"text": np.eye(3, dtype=np.float32)})
    builder = SelfCrossSpeaker(("text",), window=1)
    corpus = Corpus([dialogue], builder, [(("text",), ("self_loop", "*_past"))], kernels=kernel)
    return next(iter(corpus.batch([0]).views.values()))
