"""What users give: recipes, data, changes, and trackers."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_zoo.data.conversation import Dataset

if TYPE_CHECKING:
    from mer_zoo.comparison.tracking import Tracking

Recipe = str | os.PathLike[str] | Mapping[str, Any]
"""A name of `mer-zoo list recipe`, a YAML file, or what stands in one as a mapping."""

Data = str | os.PathLike[str] | Mapping[str, Any] | Dataset | Any
"""A registered name, the folder that `mer-zoo import` made, `{name: ..., settings}`, a dataset, or a data frame of
pandas or polars with a row per utterance, see `from_dataframe`."""

Change = Mapping[str, Any] | Iterable[str]
"""What is set anew in a recipe: `{"training.epochs": 5}`, or `["training.epochs=5"]`."""

Track = str | Mapping[str, Any] | Iterable[str | Mapping[str, Any]]
"""Where runs are logged: a name of `mer-zoo list tracker`, `{name: ..., settings}`, or several of these."""


def load_data(reference: str | Mapping[str, Any]) -> Dataset:
    """Return a dataset by registered name, by `{name: ..., settings}`, or by the folder that `mer-zoo import` made.

    Example:
        >>> load_data("synthetic").widths
        {'text': 32, 'audio': 24, 'visual': 16}
    """
    from mer_zoo.data.loading import load

    return load(reference)


def tracking(track: Track, folder: Path) -> Tracking:
    """Return what tells trackers of runs, and warns of those that fail."""
    from mer_zoo.comparison.tracking import Tracking, choose

    return Tracking(choose(track), folder, lambda message: warnings.warn(message, stacklevel=2))


def plain_data(data: Data) -> Any:
    """Return data as `prepare` takes it."""
    if isinstance(data, Dataset | Mapping | str):
        return data
    if isinstance(data, os.PathLike):
        return os.fspath(data)
    from mer_zoo.data.frames import from_dataframe

    return from_dataframe(data)
