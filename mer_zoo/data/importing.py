"""From a file of features in a known layout to a checked dataset: the table of layouts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from mer_zoo.data.container import fingerprint_of
from mer_zoo.data.conversation import Dataset
from mer_zoo.data.pickles import PICKLE_LAYOUTS, import_pickle
from mer_zoo.data.tabular import import_table
from mer_zoo.data.validation import describe_dataset
from mer_zoo.errors import MerZooError, nearest

LAYOUTS: dict[str, Callable[..., Dataset]] = {
    "npz": import_table,
    **{name: partial(import_pickle, layout=layout) for name, layout in PICKLE_LAYOUTS.items()},
}


def import_dataset(layout: str, path: str | os.PathLike[str], name: str | None = None) -> Dataset:
    """Read a file of the named layout, check it once, and let what was found follow the data as its warnings.

    Args:
        layout: `npz` (one row per utterance), `mmgcn-iemocap`, `mmgcn-meld`, `sdt-iemocap`, `sdt-meld` or
            `graphsmile-meld`.
        path: the file.
        name: the dataset's name; by default the file's (`npz`) or the layout's.

    Returns:
        The dataset with `fingerprint` and `warnings` filled in, ready for `write_dataset`.

    Raises:
        MerZooError: there is no such layout, or the file is not in it.

    Example:
        >>> import_dataset("sdt-iemocop", "features.pkl")
        Traceback (most recent call last):
        ...
        mer_zoo.errors.MerZooError: no layout named 'sdt-iemocop'. Did you mean 'sdt-iemocap'?
    """
    if layout not in LAYOUTS:
        raise MerZooError(f"no layout named '{layout}'.{nearest(layout, LAYOUTS)}")
    dataset = LAYOUTS[layout](path, name=name)
    return replace(dataset, warnings=describe_dataset(dataset).warnings, fingerprint=fingerprint_of(dataset))
