"""Arrays of numpy, one row per utterance."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mer_zoo.data.conversation import Dataset
from mer_zoo.data.tabular import import_table


class Npz:
    """An `.npz` of plain arrays, one row per utterance; see `mer_zoo.data.tabular` for what its arrays mean.

    Raises:
        MerZooError: an array is missing, unknown, or of the wrong type or length.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as home:
        ...     Npz()(Npz().example(Path(home))).widths
        {'text': 3}
    """

    reads = ("an .npz",)

    def __call__(self, path: Path) -> Dataset:
        """Read a file."""
        return import_table(path)

    def example(self, folder: Path) -> Path:
        """Write a small file."""
        path = folder / "example.npz"
        dialogue, turn = ["a", "a", "b"], [0, 1, 0]
        np.savez(path, dialogue=dialogue, turn=turn, split=["all"] * 3, label=[0, 1, 1], text=np.eye(3))
        return path
