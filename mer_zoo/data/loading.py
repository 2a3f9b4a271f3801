"""From what the user wrote to a dataset: a registered name with settings, or a folder."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mer_zoo import registry
from mer_zoo.data.container import FEATURES, MANIFEST, read_dataset
from mer_zoo.data.conversation import Dataset
from mer_zoo.errors import MerZooError, at, nearest
from mer_zoo.registry.faults import short


def load(reference: str | Mapping[str, Any], place: str = "") -> Dataset:
    """Return a dataset by its registered name, by `{name: ..., settings}`, or by the folder of a container.

    What is on disk is read again when it has changed since; a folder goes before a class of the same spelling.

    Raises:
        MerZooError: no such name or folder, settings without a name, or a class that makes no dataset.

    Example:
        >>> load("synthetic").name
        'synthetic'
    """
    lead = at(place)
    names = [card.name for card in registry.cards("dataset")]
    if isinstance(reference, Mapping):
        settings = dict(reference)
        name = settings.pop("name", None)
        if not isinstance(name, str):
            raise MerZooError(f"{lead}data {short(str(settings))} has no name. Add one, such as `name: synthetic`.")
        return _make(name, settings, place)
    if not isinstance(reference, str):
        raise MerZooError(f"{lead}data {short(repr(reference))} is neither a name, nor a folder, nor `{{name: ...}}`.")
    if reference in names:
        return _make(reference, {}, place)
    folder = Path(reference)
    if os.path.exists(folder):  # False for names too long to be one
        return _read(folder.resolve(), tuple(_stamp(folder / file) for file in (MANIFEST, FEATURES)))
    if registry.names_class(reference):
        return _make(reference, {}, place)
    raise MerZooError(
        f"{lead}no dataset or folder '{short(reference)}'.{nearest(short(reference), names)} "
        "A folder is made by `mer-zoo import LAYOUT FILE --output FOLDER`."
    )


def _make(name: str, settings: Mapping[str, Any], place: str) -> Dataset:
    card = registry.find("dataset", name, place)
    try:
        text = json.dumps(settings, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise MerZooError(f"{at(place)}settings of dataset '{name}' must be plain data: {error}.") from None
    return _made(card, registry.load(card, place), text, place)


@functools.lru_cache(maxsize=4)
def _made(card: registry.Card, cls: type, settings: str, place: str) -> Dataset:
    """Build a dataset once for each class, which is a new one when its file was edited."""
    made = registry.build(card, json.loads(settings), {}, place)
    if not isinstance(made, Dataset):
        raise MerZooError(f"{at(place)}{card.id} makes a {type(made).__name__}, not a dataset. Name a dataset's class.")
    return made


def _stamp(file: Path) -> tuple[int, ...]:
    """Return what changes when a file is written anew."""
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


@functools.lru_cache(maxsize=4)
def _read(folder: Path, stamps: tuple[tuple[int, ...], ...]) -> Dataset:
    return read_dataset(folder)
