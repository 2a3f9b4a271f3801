"""What trackers share: a package that is imported once it is used."""

from __future__ import annotations

import importlib
from typing import Any

from mer_zoo.errors import MerZooError


def imported(name: str) -> Any:
    """Return a module of the extra `track`.

    Args:
        name: of the module.

    Raises:
        MerZooError: it is not installed.

    Example:
        >>> imported("sacred")
        Traceback (most recent call last):
        mer_zoo.errors.MerZooError: sacred is not installed. Run `pip install 'mer-zoo[track]'`.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MerZooError(f"{error.name} is not installed. Run `pip install 'mer-zoo[track]'`.") from None
