"""Datasets from a DataFrame, or from plain arrays, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mer_zoo.data.container import fingerprint_of
from mer_zoo.data.conversation import Dataset
from mer_zoo.data.table import Naming, dataset_of, feature_groups, refuse_unknown
from mer_zoo.errors import MerZooError


def from_dataframe(
    frame: Any, *, name: str = "dataframe", features: Mapping[str, Any] | None = None, **columns: Any
) -> Dataset:
    """Return a DataFrame of pandas or polars, with one row per utterance, as a dataset.

    Args:
        frame: with the columns `dialogue`, `utterance` and `speaker`; `label`, `split`, `text` and further label
            columns are optional. Features are columns `audio_0`, `audio_1`, ..., or one column of lists.
        name: what reports call the dataset.
        features: modality -> array `[row, width]` in the order of the rows, for features that are not in the frame.
        columns: what the columns are called if otherwise, such as `label="Emotion"`; `label_names=[...]` for the order
            of the classes; `ignore=[...]` for columns that are not read.

    Raises:
        MerZooError: a column is missing or means nothing, an utterance is there twice, a dialogue lies in two splits.

    Example:
        >>> import pandas
        >>> rows = {"dialogue": ["a", "a"], "utterance": [0, 1], "speaker": ["Ann", "Bob"], "label": ["sad", "glad"]}
        >>> data = from_dataframe(pandas.DataFrame(rows), features={"audio": np.ones((2, 3))})
        >>> data.label_names, data.widths
        (('glad', 'sad'), {'audio': 3})
    """
    import narwhals  # here, for it is needed by this alone

    try:
        table = narwhals.from_native(frame, eager_only=True)
    except narwhals.exceptions.DuplicateError as error:
        raise MerZooError(f"{name}: {' '.join(str(error).split())}. Rename one of them.") from None
    except TypeError:
        raise MerZooError(f"want a DataFrame of pandas or polars, not a {type(frame).__name__}.") from None
    if strange := [column for column in table.columns if not isinstance(column, str)]:
        raise MerZooError(f"{name}: the name of column {strange[0]!r} is no text. Rename it.")
    given = {column: table[column] for column in table.columns}
    return _dataset(given, dict(features or {}), name, _naming(columns))


def from_arrays(
    *,
    dialogue: Sequence[Any],
    utterance: Sequence[Any],
    speaker: Sequence[Any],
    features: Mapping[str, Any],
    name: str = "arrays",
    label_names: Sequence[str] | None = None,
    **columns: Sequence[Any],
) -> Dataset:
    """Return arrays with one entry per utterance as a dataset.

    Args:
        dialogue: the id of each utterance's dialogue.
        utterance: numbers that increase within a dialogue.
        speaker: who speaks.
        features: modality -> `[row, width]`; rows of NaN where the modality is missing.
        name: what reports call the dataset.
        label_names: names of the classes in the order of their numbers; by default those that occur, sorted.
        columns: `label`, `split`, `text`, and further label columns.

    Raises:
        MerZooError: lengths disagree, an utterance is there twice, a dialogue lies in two splits.

    Example:
        >>> x = np.ones((3, 4))
        >>> data = from_arrays(dialogue=[1, 1, 2], utterance=[0, 1, 0], speaker=list("ABA"), features={"text": x})
        >>> [len(dialogue) for dialogue in data]
        [2, 1]
    """
    given = {"dialogue": dialogue, "utterance": utterance, "speaker": speaker, **columns}
    return _dataset(given, dict(features), name, Naming(label_names=label_names))


def _naming(columns: Mapping[str, Any]) -> Naming:
    try:
        return Naming(**columns)
    except TypeError:
        known = ", ".join(Naming.__dataclass_fields__)
        raise MerZooError(f"from_dataframe takes {known}; given: {', '.join(columns)}.") from None


def _dataset(given: Mapping[str, Any], features: dict[str, Any], name: str, naming: Naming) -> Dataset:
    """Sort columns into features and others."""
    refuse_unknown(given, naming, name)
    groups = feature_groups(given, naming, name)
    grouped = {column for members in groups.values() for column in members}
    found = {
        modality: np.stack([_floats(given[c], c, name) for c in members], 1) for modality, members in groups.items()
    }
    plain: dict[str, Sequence[Any]] = {}
    for column, values in given.items():
        if column in grouped or column in naming.ignore:
            continue
        listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
        first = next((value for value in listed if isinstance(value, (list, tuple, np.ndarray))), None)
        if first is None:
            plain[column] = listed
        elif column in found:
            raise MerZooError(f"{name}: the features of '{column}' are there twice. Rename one.")
        else:
            found[column] = _lists(listed, column, name)
    for modality, values in features.items():
        if modality in found:
            raise MerZooError(f"{name}: the features of '{modality}' are there twice. Rename one.")
        found[modality] = _floats(values, modality, name)
    made = dataset_of(found, plain, name, name, naming)
    return Dataset(**{**{f: getattr(made, f) for f in made.__dataclass_fields__}, "fingerprint": fingerprint_of(made)})


def _floats(values: Any, column: str, name: str) -> np.ndarray:
    try:
        return np.asarray(values, dtype=np.float64).astype(np.float32)
    except (TypeError, ValueError):
        raise MerZooError(
            f"{name}, '{column}': holds other things than numbers, and is named as features are."
        ) from None


def _lists(values: Sequence[Any], column: str, name: str) -> np.ndarray:
    """Return lists of one length as rows; NaN where there is none."""
    lists = [value if isinstance(value, (list, tuple, np.ndarray)) else None for value in values]
    widths = {len(value) for value in lists if value is not None}
    if len(widths) > 1:
        raise MerZooError(
            f"{name}, '{column}': lists have {min(widths)} to {max(widths)} numbers. Give all one length."
        )
    missing = [np.nan] * widths.pop()
    return _floats([missing if value is None else value for value in lists], column, name)
