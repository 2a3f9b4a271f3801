"""Whether launching an operation costs more than computing it: so on a GPU at the sizes of this field, not on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_assumed: bool | None = None


def is_costly(device: torch.device) -> bool:
    """Whether to prefer few large operations to small ones on less data.

    Example:
        >>> is_costly(torch.device("cuda")), is_costly(torch.device("cpu"))
        (True, False)
    """
    return device.type != "cpu" if _assumed is None else _assumed


@contextmanager
def assumed(costly: bool) -> Iterator[None]:
    """Compute as if launches were costly, or not, whatever the device: for tests that both ways agree.

    Example:
        >>> with assumed(True):
        ...     is_costly(torch.device("cpu"))
        True
    """
    global _assumed
    before, _assumed = _assumed, costly
    try:
        yield
    finally:
        _assumed = before
