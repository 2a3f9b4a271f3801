"""Importers for the feature pickles of the field's IEMOCAP and MELD releases, which never run what a pickle asks for.

The layouts are tuples, most of whose parts are dicts from dialogue id to one entry per utterance; each is an importer
of its own (`mer_zoo/parts/importer/`). Speakers are `M` or `F` for IEMOCAP and one-hot rows of 9 for MELD. None has a
validation split. Labels of the sentiment (0 negative, 1 neutral, 2 positive) become the label column `sentiment`; where
the emotions are IEMOCAP's, they follow from these, as in GraphSmile.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mer_zoo import registry
from mer_zoo.data.conversation import MODALITIES, Conversation, Dataset
from mer_zoo.data.unpickling import load_plain
from mer_zoo.errors import MerZooError

POLARITY = {"sad": 0, "angry": 0, "frustrated": 0, "neutral": 1, "happy": 2, "excited": 2}
"""Sentiment of an emotion: GraphSmile's reading of IEMOCAP."""
MELD_SPEAKERS = 9
USED = ("speakers", "labels", "sentiment", *MODALITIES, "transcript")
"""Parts that hold a list by dialogue."""
NUMBER = int | float | np.number | np.bool_
LARGEST_ID = 2**63
SHARED = 16  # bytes of features for one of the file: rows may be shared, such as one of zeros
SPARE = 64 << 20  # and what the features of a small file may take anyway


@dataclass(frozen=True)
class PickleLayout:
    """What one released pickle holds.

    Attributes:
        name: what a dataset of it is called.
        parts: of the tuple, in order; those with names that are not used here are not read.
        widths: modality -> width of its features.
        features: modality -> where its features come from.
        label_names: of the classes, in order.
        one_hot_speakers: whether speakers are one-hot rows of 9 instead of letters.
    """

    name: str
    parts: tuple[str, ...]
    widths: dict[str, int]
    features: dict[str, str]
    label_names: tuple[str, ...]
    one_hot_speakers: bool


def import_pickle(path: str | os.PathLike[str], layout: PickleLayout, name: str | None = None) -> Dataset:
    """Read one of the field's feature pickles as a dataset with the splits `train` and `test`.

    Args:
        path: the pickle.
        layout: what it should hold.
        name: the dataset's name, by default the layout's.

    Returns:
        The dataset: train dialogues first, then test, in the pickle's order (sorted where it holds a set).

    Raises:
        MerZooError: the pickle asks for something forbidden, is damaged, or holds something else than the layout says.
    """
    file = Path(path)
    parts = _parts(load_plain(file), layout, file)
    splits = {split: _dialogue_list(parts[split], split, file) for split in ("train", "test")}
    ids = [key for keys in splits.values() for key in keys]
    for part in (part for part in USED if part in layout.parts):
        for key in ids:
            if key not in parts[part]:
                raise MerZooError(f"{file}, part '{part}': has no dialogue {key!r}, which the split lists name.")
    _check_size(parts, ids, layout, file)
    dialogues = [_conversation(parts, key, layout, file) for key in ids]
    unlisted = len(set(parts["labels"]) - set(ids))
    left_out = f"{unlisted} dialogue(s) of {file.name} are in neither its train nor its test list and were left out."
    return Dataset(
        name=name or layout.name,
        conversations=tuple(dialogues),
        label_names=layout.label_names,
        splits={split: tuple(str(key) for key in keys) for split, keys in splits.items() if keys},
        provenance={m: f"{layout.features[m]}, from {file.name} (layout {layout.name})" for m in MODALITIES},
        warnings=(left_out,) if unlisted else (),
    )


def layouts() -> dict[str, PickleLayout]:
    """Return the layouts that importers know, by the importer's name; those of broken plugins are left out.

    Example:
        >>> layouts()["sdt_meld"].widths["audio"]
        300
    """
    found = {}
    for card in registry.cards("importer"):
        try:
            layout = getattr(registry.load(card), "layout", None)
        except MerZooError:
            continue
        if isinstance(layout, PickleLayout):
            found[card.name] = layout
    return found


def _parts(content: object, layout: PickleLayout, file: Path) -> dict[str, Any]:
    """Name the tuple's parts after checking that they are what the layout says."""
    fault = _fault(content, layout)
    if fault:
        fitting = [other.name for other in layouts().values() if _fault(content, other) is None]
        hint = f"It fits the layout '{fitting[0]}'; import it as that." if fitting else "It fits no layout known here."
        raise MerZooError(f"{file}: is not in the layout '{layout.name}': {fault}. {hint}")
    assert isinstance(content, Sequence)
    return dict(zip(layout.parts, content, strict=True))


def _fault(content: object, layout: PickleLayout) -> str | None:
    """Say in what a pickle's content differs from a layout, judged by its first dialogue; None where it fits."""
    if not isinstance(content, tuple | list):
        return f"it holds a {type(content).__name__}, not a tuple of {len(layout.parts)} parts"
    if len(content) != len(layout.parts):
        return f"it has {len(content)} parts, not {len(layout.parts)}"
    parts = dict(zip(layout.parts, content, strict=True))
    for position, (part, value) in enumerate(parts.items(), start=1):
        if part in ("train", "test"):
            if not isinstance(value, list | tuple | set | frozenset | np.ndarray):
                return f"part {position} ('{part}') is a {type(value).__name__}, not a list of dialogue ids"
        elif part in ("speakers", "labels", "sentiment", "transcript", *MODALITIES) and not (
            isinstance(value, dict) and value
        ):
            return f"part {position} ('{part}') is not a dict by dialogue id with something in it"
    for modality, width in layout.widths.items():
        row = _first(_first(parts[modality]))
        found = len(row) if isinstance(row, list | tuple | np.ndarray) and isinstance(_first(row), NUMBER) else None
        if found != width:
            return f"{modality} features have width {found}, not {width}"
    speaker = _first(_first(parts["speakers"]))
    if isinstance(speaker, str) == layout.one_hot_speakers:
        want = f"one-hot rows of {MELD_SPEAKERS}" if layout.one_hot_speakers else "M or F"
        return f"speakers are such as {_shown(speaker)}, not {want}"
    return None


def _shown(value: object) -> str:
    """Return a short text; lists of the same lists would be endless when written out."""
    return reprlib.repr(value) if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def _first(collection: Any) -> Any:
    """Return the first entry of a dict or sequence, None where there is none."""
    try:
        return next(iter(collection.values() if isinstance(collection, dict) else collection), None)
    except TypeError:
        return None


def _dialogue_list(value: Any, split: str, file: Path) -> list[Hashable]:
    keys = value.tolist() if isinstance(value, np.ndarray) else list(value)
    for key in keys:
        if not isinstance(key, str | int | np.integer) or (not isinstance(key, str) and abs(key) > LARGEST_ID):
            raise MerZooError(f"{file}, part '{split}': {_shown(key)} is not a dialogue id; want strings or integers.")
    if isinstance(value, set | frozenset):  # a set has no order of its own that another run would repeat
        keys.sort(key=lambda key: (isinstance(key, str), key))
    return keys


def _conversation(parts: dict[str, Any], key: Hashable, layout: PickleLayout, file: Path) -> Conversation:
    here = f"{file}, dialogue {key!r}"
    labels = _labels(parts["labels"][key], f"{here}, labels")
    targets = {}
    if "sentiment" in layout.parts:
        targets["sentiment"] = _labels(parts["sentiment"][key], f"{here}, sentiment")
    elif POLARITY.keys() >= {*layout.label_names}:
        polarity = np.array([-1, *(POLARITY[name] for name in layout.label_names)])  # the last label, -1, comes first
        targets["sentiment"] = polarity[np.clip(labels, -1, len(layout.label_names) - 1) + 1]
    features = {}
    for modality, width in layout.widths.items():
        features[modality] = _numbers(parts[modality][key], f"{here}, {modality}", width)
    return Conversation(
        id=str(key),
        speakers=_speakers(parts["speakers"][key], layout.one_hot_speakers, here),
        roles=tuple(f"speaker {i}" for i in range(MELD_SPEAKERS)) if layout.one_hot_speakers else ("M", "F"),
        labels=labels,
        features=features,
        targets=targets,
        transcript=_texts(parts["transcript"][key], f"{here}, transcript"),
    )


def _check_size(parts: dict[str, Any], ids: Sequence[Hashable], layout: PickleLayout, file: Path) -> None:
    """Refuse more features than a file of this size has, for a pickle can name one row a million times."""
    size = 0
    for modality, width in layout.widths.items():
        size += sum(4 * width * len(rows) for key in ids if hasattr(rows := parts[modality][key], "__len__"))
    if size > SHARED * file.stat().st_size + SPARE:
        raise MerZooError(f"{file}: its features would take {size:,} bytes, which its own size does not explain.")


def _numbers(value: Any, where: str, width: int | None = None) -> np.ndarray:
    """Return float32 `[utt]`, or `[utt, width]`."""
    try:
        rows = [_row(row, where, width) for row in value]
    except (TypeError, ValueError, OverflowError) as error:
        raise MerZooError(f"{where}: is not an array of numbers, one row per utterance ({error}).") from None
    if not rows:
        raise MerZooError(f"{where}: has no utterance. Give at least one.")
    return np.stack(rows)


def _labels(value: Any, where: str) -> np.ndarray:
    """Return int64 `[utt]`."""
    labels = _numbers(value, where)
    if (labels != np.round(labels)).any():
        raise MerZooError(f"{where}: are not whole numbers.")
    return labels.astype(np.int64)


def _row(row: Any, where: str, width: int | None) -> np.ndarray:
    numbers = [row] if width is None else row if isinstance(row, list | tuple | np.ndarray) else ()
    if isinstance(numbers, np.ndarray) and numbers.ndim != 1:
        raise ValueError(f"a row has {numbers.ndim} dimensions")
    if width is not None and len(numbers) != width:
        raise MerZooError(f"{where}: width {len(numbers)}, the layout wants {width}.")
    if not isinstance(numbers, np.ndarray) and not all(isinstance(number, NUMBER) for number in numbers):
        raise TypeError("it holds other things than numbers")
    return np.asarray(row, dtype=np.float32)


def _texts(value: Any, where: str) -> tuple[str, ...]:
    texts = tuple(value) if isinstance(value, list | tuple | np.ndarray) else ()
    if not texts or not all(isinstance(text, str) for text in texts):
        raise MerZooError(f"{where}: is not a list of strings, one per utterance.")
    return texts


def _speakers(value: Any, one_hot: bool, here: str) -> tuple[str, ...]:
    if one_hot:
        rows = _numbers(value, f"{here}, speakers", MELD_SPEAKERS)
        bad = (np.sort(rows, axis=1) != np.eye(MELD_SPEAKERS)[-1]).any(axis=1)
        if bad.any():
            raise MerZooError(
                f"{here}, utterance {int(bad.argmax())}: speaker {rows[int(bad.argmax())].tolist()} is not a one-hot "
                f"row of {MELD_SPEAKERS}."
            )
        return tuple(f"speaker {number}" for number in rows.argmax(axis=1))
    letters = _texts(value, f"{here}, speakers")
    for utterance, letter in enumerate(letters):
        if letter not in ("M", "F"):
            raise MerZooError(f"{here}, utterance {utterance}: speaker {_shown(letter)} is neither M nor F.")
    return letters
