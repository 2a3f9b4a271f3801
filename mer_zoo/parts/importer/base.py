"""What the importers of tables share: names of columns as settings, and features in an `.npz` beside the table."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mer_zoo.data.archive import read_arrays
from mer_zoo.data.conversation import Dataset
from mer_zoo.data.table import Naming, dataset_of
from mer_zoo.errors import MerZooError

Parts = tuple[dict[str, np.ndarray], dict[str, Sequence[Any]]]
"""Features by modality, `[row, width]`, and the other columns by name."""

EXAMPLE: tuple[dict[str, Any], ...] = tuple(
    {"dialogue": f"d{i // 3}", "utterance": i % 3, "speaker": "AB"[i % 2], "label": ("sad", "glad")[i % 2]}
    | {"text": ("Oh no, again!", "Yes?")[i % 2], "audio": [float(i), 0.5, -1.0]}
    for i in range(6)
)
"""Rows of a table, as `example` writes them."""


class TableImporter(abc.ABC):
    """A table with one row per utterance; see `mer_zoo.data.table` for what its columns mean.

    Args:
        dialogue: the column with the dialogue's id.
        utterance: the column with the order within the dialogue.
        speaker: the column that says who speaks.
        label: the column with the emotion.
        split: the column that says what a dialogue is for.
        text: the column with what is said.
        label_names: names of the emotions in the order of their numbers; by default those that occur, sorted.
        ignore: columns that are not read.
        features: an `.npz` with features in the order of the rows; by default the one beside the table, if it is there.
    """

    reads: tuple[str, ...] = ()
    """What the files are, in the words of `mer_zoo.data.sniffing`."""

    def __init__(
        self,
        *,
        dialogue: str = "dialogue",
        utterance: str = "utterance",
        speaker: str = "speaker",
        label: str = "label",
        split: str = "split",
        text: str = "text",
        label_names: list[str] | None = None,
        ignore: list[str] = [],  # noqa: B006 (never changed)
        features: str | None = None,
    ) -> None:
        self.naming = Naming(dialogue, utterance, speaker, label, split, text, label_names, tuple(ignore))
        if len({*self.naming.known}) < len(self.naming.known):
            raise MerZooError(f"one column has two meanings: {', '.join(self.naming.known)}. Name each once.")
        self.features = features

    @abc.abstractmethod
    def read(self, path: Path) -> Parts:
        """Return features by modality, `[row, width]`, and the other columns by name."""

    @abc.abstractmethod
    def example(self, folder: Path) -> Path:
        """Write a small file that can be read, and return it."""

    def __call__(self, path: Path) -> Dataset:
        """Read a file."""
        try:
            features, columns = self.read(path)
        except UnicodeDecodeError as error:
            raise MerZooError(f"{path}: is not text in UTF-8 ({error.reason} at byte {error.start}).") from None
        except OSError as error:
            raise MerZooError(f"{path}: cannot be read: {error.strerror or error}.") from None
        beside = path.with_suffix(".npz") if self.features is None else path.parent / self.features
        sources = {modality: f"{path.name}, '{modality}'" for modality in features}
        if self.features is not None or beside.is_file():
            for name, values in read_arrays(beside).items():
                if name in features or (name in columns and name != self.naming.text):
                    raise MerZooError(f"{beside}: '{name}' is also a column of {path.name}. Keep one of them.")
                if values.ndim == 2:
                    features[name] = values
                    sources[name] = f"{beside.name}, '{name}' ({values.dtype})"
                elif values.ndim == 1 and name.endswith("_present"):
                    columns[name] = values.tolist()
                else:
                    raise MerZooError(
                        f"{beside}, '{name}': has shape {values.shape}; features beside {path.name} are [row, width]. "
                        "If these are not its features, move one of the two files."
                    )
        return dataset_of(features, columns, path.stem, path.name, self.naming, sources)
