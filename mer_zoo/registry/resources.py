"""Where the data folders that belong to the library lie: beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

Read = TypeVar("Read", bound=Callable[[], Any])

_PACKAGE = Path(__file__).resolve().parent.parent
_remembering: list[Any] = []


def folder(name: str) -> Path:
    """Return the folder `registry` or `baselines`, from the wheel or from the checkout.

    Example:
        >>> (folder("registry") / "references.bib").exists()
        True
    """
    packed = _PACKAGE / f"_{name}"
    return packed if packed.is_dir() else _PACKAGE.parent / name


def remembered(read: Read) -> Read:
    """Decorate a function so that it remembers what it read from disk until `refresh`."""
    kept = functools.cache(read)
    _remembering.append(kept)
    return kept  # type: ignore[return-value]


def refresh() -> None:
    """Forget what was read from disk (for tests and notebooks that add cards while running)."""
    for read in _remembering:
        read.cache_clear()
