"""From what the user wrote to a dataset: a registered name with settings, or a folder."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mer_zoo import registry
from mer_zoo.data.conversation import Dataset
from mer_zoo.errors import MerZooError, nearest


def load(reference: str | Mapping[str, Any], place: str = "") -> Dataset:
    """Return a dataset by its registered name, by `{name: ..., settings}`, or by the folder of a container.

    Raises:
        MerZooError: no such name or folder.

    Example:
        >>> load("synthetic").name
        'synthetic'
    """
    if isinstance(reference, Mapping):
        settings = dict(reference)
        return _make(str(settings.pop("name")), json.dumps(settings, sort_keys=True), place)
    lead = f"{place}: " if place else ""
    names = [card.name for card in registry.cards("dataset")]
    if reference in names or ":" in reference:
        return _make(reference, "{}", place)
    if Path(reference).exists():
        return _read(str(Path(reference).resolve()))
    raise MerZooError(
        f"{lead}no dataset or folder '{reference}'.{nearest(reference, names)} "
        "A folder is made by `mer-zoo import LAYOUT FILE --output FOLDER`."
    )


@functools.lru_cache(maxsize=4)
def _make(name: str, settings: str, place: str) -> Dataset:
    return registry.build(registry.find("dataset", name, place), json.loads(settings), {}, place)


@functools.lru_cache(maxsize=4)
def _read(folder: str) -> Dataset:
    from mer_zoo.data.container import read_dataset

    return read_dataset(Path(folder))
