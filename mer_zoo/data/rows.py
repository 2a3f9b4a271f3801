"""Rows of text, one after the other, into columns: features become numbers at once, so that little memory is taken."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from mer_zoo.data.table import Naming, feature_groups
from mer_zoo.errors import MerZooError

LONGEST = 1 << 22  # characters of a row: 300,000 numbers
MOST = 100  # columns that are no features: rows may be far shorter than there are columns


class Lines:
    """The lines of a text file; a row of more than `LONGEST` characters is refused before it is held.

    Args:
        stream: the file, open as text.
        file: what errors call it.
    """

    def __init__(self, stream: IO[str], file: Path) -> None:
        self.stream, self.file = stream, file
        self.number = self.length = 0

    def __iter__(self) -> Iterator[str]:
        while line := self.stream.readline(LONGEST + 1):
            self.number += 1
            self.length += len(line)
            if self.length > LONGEST:
                where = f"{self.file}:{self.number}"
                raise MerZooError(f"{where}: a row of more than {LONGEST:,} characters. Is a quote left open?")
            yield line

    def next_row(self) -> None:
        """A row is complete."""
        self.length = 0


class Columns:
    """What has been read so far, by column.

    Args:
        header: names of the columns.
        naming: what they mean.
        file: what errors call it.
    """

    def __init__(self, header: Sequence[str], naming: Naming, file: Path) -> None:
        self.file, self.naming, self.count = file, naming, 0
        self.groups = feature_groups(header, naming, str(file))
        grouped = {column for members in self.groups.values() for column in members}
        self.numbers = {modality: array("f") for modality in self.groups}
        self.lists: dict[str, array[float]] = {}
        self.values: dict[str, list[Any]] = {}
        self.open: set[str] = set()  # columns without a value so far, which may turn out to hold lists
        self.seen: dict[Any, Any] = {}
        for column in header:
            if column not in grouped and column not in naming.ignore:
                self.admit(column)

    @property
    def known(self) -> set[str]:
        """The columns there are, those that are not read among them."""
        grouped = (column for members in self.groups.values() for column in members)
        return {*self.values, *grouped, *self.naming.ignore}

    def admit(self, column: str) -> None:
        """Begin a column that the rows before did not have."""
        if len(self.values) == MOST:
            raise MerZooError(
                f"{self.file}: more than {MOST} columns besides features in columns NAME_0, NAME_1, ... Leave some out."
            )
        self.values[column] = [None] * self.count
        self.open.add(column)

    def add(self, row: Mapping[str, Any], line: int) -> None:
        """Take a row in.

        Args:
            row: column -> value; text, numbers, true, false, None, or lists of numbers.
            line: where it stands in the file.
        """
        where = f"{self.file}:{line}"
        for modality, members in self.groups.items():
            given = [row.get(column) for column in members]
            nothing = all(value is None or value == "" for value in given)
            self.numbers[modality].extend(self._floats([np.nan] * len(given) if nothing else given, modality, where))
        for column, values in self.values.items():
            value = row.get(column)
            if column in self.naming.required and (value is None or value == ""):
                raise MerZooError(f"{where}: has no {column}. Every utterance needs one.")
            if column in self.open and value is not None and value != "":
                self.open.remove(column)
                if isinstance(_as_list(value), list):
                    self.lists[column] = array("f", [np.nan]) * (len(_as_list(value)) * self.count)
            if column in self.lists:
                self._add_list(column, _as_list(value), where)
            elif isinstance(value, (list, dict)):
                raise MerZooError(f"{where}, column '{column}': a list or mapping, where the rows before have none.")
            else:
                values.append(self.seen.setdefault((type(value), value), value))  # what is said often is kept once
        self.count += 1

    def _add_list(self, column: str, value: Any, where: str) -> None:
        numbers = self.lists[column]
        width = len(numbers) // self.count if self.count else len(value)
        given = [np.nan] * width if value is None or value == "" else value
        if not isinstance(given, list) or not given or len(given) != (width or len(given)):
            shown = f"a list of {len(given)}" if isinstance(given, list) else f"'{str(given)[:60]}'"
            raise MerZooError(f"{where}, column '{column}': {shown}; want a list of {width} numbers, as before.")
        numbers.extend(self._floats(given, column, where))

    def _floats(self, given: Iterable[Any], name: str, where: str) -> list[float]:
        try:
            if any(isinstance(value, bool) for value in given):
                raise TypeError
            return [float(value) for value in given]
        except (TypeError, ValueError, OverflowError):
            bad = next(value for value in given if not _is_number(value))
            raise MerZooError(
                f"{where}: features of '{name}' hold {str(bad)[:60]!r}, which is no number. Where a modality is "
                "missing, leave all of its numbers empty."
            ) from None

    def finish(self) -> tuple[dict[str, np.ndarray], dict[str, Sequence[Any]]]:
        """Return features by modality, `[row, width]`, and the other columns."""
        features: dict[str, np.ndarray] = {}
        for modality, numbers in (*self.numbers.items(), *self.lists.items()):
            if modality in features:
                raise MerZooError(f"{self.file}: the features of '{modality}' are there twice. Rename one.")
            shape = (self.count, len(numbers) // max(self.count, 1))
            features[modality] = np.array(numbers, np.float32).reshape(shape)
        return features, {column: values for column, values in self.values.items() if column not in self.lists}


def _as_list(value: Any) -> Any:
    """Return a list that is written as text; anything else as it is."""
    if isinstance(value, str) and value.startswith("[") and value.rstrip().endswith("]"):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return found if isinstance(found, list) and all(map(_is_number, found)) else value
    return value


def _is_number(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and isinstance(float(value), float)
    except (TypeError, ValueError, OverflowError):
        return False
