"""Telling what an attention looked at, to whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor

Listener = Callable[[Tensor, Any, str, int | None, int], None]
"""Is told of every attention, with the arguments of `looked`."""

LISTENER: ContextVar[Listener | None] = ContextVar("who is told what attention looks at", default=None)


def looked(
    weights: Tensor, edges: Any = None, name: str = "attention", target: int | None = None, source: int = 0
) -> Tensor:
    """Tell what was looked at, and return it as it is; costs nothing while nobody listens.

    `softmax` of every kernel tells by itself, and so do the library's attentions over whole dialogues. A part of your
    own calls this for attention that it makes otherwise, before dropout.

    Args:
        weights: along edges, `[*edges]`, `[heads, *edges]` or `[heads, maps, *edges]`. Over whole dialogues,
            `[dialogues, targets, sources]` or `[dialogues, heads, targets, sources]`, sources modality by modality
            where there are several. Walking along edges, `[relations, dialogues, targets, sources]`.
        edges: the kernel whose edges the weights belong to; None: they are over whole dialogues.
        name: `attention`, whose rows sum to 1; `outgoing`, as it, but along the edges that leave a node, which is the
            one that looks; `mirrored`, with utterances counted from the last; `difference` of the maps before it.
        target, source: first node of those that look, and of those that are looked at, for parts that walk along a
            dialogue and tell row by row.

    Example:
        >>> import torch
        >>> told = []
        >>> with listening(lambda weights, *rest: told.append(weights.shape)):
        ...     weights = looked(torch.ones(1, 2, 2) / 2)
        >>> told, looked(weights) is weights
        ([torch.Size([1, 2, 2])], True)
    """
    listener = LISTENER.get()
    if listener is not None:
        listener(weights, edges, name, target, source)
    return weights


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Have a listener told of all that is looked at meanwhile.

    Args:
        listener: called with the arguments of `looked`.
    """
    token = LISTENER.set(listener)
    try:
        yield
    finally:
        LISTENER.reset(token)
