"""From a file of features to a checked dataset: the importer by name, and a wrong file called what it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mer_zoo import registry
from mer_zoo.data.container import fingerprint_of
from mer_zoo.data.conversation import Dataset
from mer_zoo.data.sniffing import ARCHIVES, what_is
from mer_zoo.data.validation import describe_dataset
from mer_zoo.errors import MerZooError, at, nearest


def import_dataset(
    layout: str,
    path: str | os.PathLike[str],
    name: str | None = None,
    settings: Mapping[str, Any] | None = None,
    place: str = "",
) -> Dataset:
    """Read a file by an importer, check it once, and let what was found follow the data as its warnings.

    Args:
        layout: an importer's name, such as `csv` or `npz`; dashes stand for underscores.
        path: the file.
        name: the dataset's name; by default the importer says.
        settings: of the importer.
        place: where the settings were given, for errors.

    Returns:
        The dataset with `fingerprint` and `warnings` filled in, ready for `write_dataset`.

    Raises:
        MerZooError: there is no such importer, or the file is not in its layout.

    Example:
        >>> import_dataset("sdt-iemocop", "features.pkl")
        Traceback (most recent call last):
        ...
        mer_zoo.errors.MerZooError: no layout named 'sdt-iemocop'. Did you mean 'sdt_iemocap'?
    """
    known = [card.name for card in registry.cards("importer")]
    spelt = layout if layout in known or registry.names_class(layout) else layout.replace("-", "_")
    if spelt not in known and not registry.names_class(spelt):
        raise MerZooError(f"no layout named '{layout}'.{nearest(spelt, known)}")
    card = registry.find("importer", spelt)
    importer = registry.build(card, settings or {}, {}, place)
    refuse_other(Path(path), card.name, importer)
    dataset = importer(Path(path))
    if not isinstance(dataset, Dataset):
        raise MerZooError(f"{at(place)}{card.id} returns a {type(dataset).__name__}, not a `Dataset`.")
    dataset = replace(dataset, name=name or dataset.name)
    return replace(dataset, warnings=describe_dataset(dataset).warnings, fingerprint=fingerprint_of(dataset))


def refuse_other(file: Path, name: str, importer: Any) -> None:
    """Refuse a file that is not what an importer reads, and name the importer that reads it.

    Args:
        file: what was given.
        name: the importer's.
        importer: made, or its class; `reads` holds what its files are in the words of `what_is`, if it says.

    Raises:
        MerZooError: the file is something else.
    """
    found, wanted = what_is(file), getattr(importer, "reads", ())
    if not wanted or found in wanted:
        return
    others = [card.name for card in registry.cards("importer") if found in _reads(card)]
    remedy = f" Import it by: {', '.join(others)}." if others else ""
    if found in ARCHIVES:
        remedy = " Unpack it first."
    raise MerZooError(f"{file}: is {found}; '{name}' reads {' or '.join(wanted)}.{remedy}")


def _reads(card: registry.Card) -> tuple[str, ...]:
    """What an importer's files are; a broken plugin's are nothing."""
    try:
        return tuple(getattr(registry.load(card), "reads", ()))
    except MerZooError:
        return ()
