"""Whether launching an operation costs more than computing it: so on a GPU at the sizes of this field, not on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

ASSUMED: ContextVar[bool | None] = ContextVar("whether launches are assumed to be costly", default=None)


def is_costly(device: torch.device) -> bool:
    """Whether to prefer few large operations to small ones on less data.

    Example:
        >>> is_costly(torch.device("cuda")), is_costly(torch.device("cpu"))
        (True, False)
    """
    assumed = ASSUMED.get()
    return device.type != "cpu" if assumed is None else assumed


@contextmanager
def assumed(costly: bool) -> Iterator[None]:
    """Compute as if launches were costly, or not, whatever the device: for tests that both ways agree.

    Example:
        >>> with assumed(True):
        ...     is_costly(torch.device("cpu"))
        True
    """
    token = ASSUMED.set(costly)
    try:
        yield
    finally:
        ASSUMED.reset(token)
