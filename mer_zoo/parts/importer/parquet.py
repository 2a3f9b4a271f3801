"""Parquet tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mer_zoo.data.parquet_chunks import chunks
from mer_zoo.data.table import feature_groups, refuse_unknown
from mer_zoo.errors import MerZooError
from mer_zoo.parts.importer.base import EXAMPLE, Parts, TableImporter

UNPACKED = 100  # bytes that one byte of the file may unpack to: dictionaries and zeros pack well
OBJECT = 64  # bytes that a value takes that is not a number among features
SPARE = 64 << 20  # and what a small file may unpack to anyway


def _arrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise MerZooError(
            "Parquet is read by pyarrow, which is not installed: `pip install 'mer-zoo[tables]'`."
        ) from None
    return pyarrow


class Parquet(TableImporter):
    """A Parquet file: a row per utterance; features as columns or as lists. Needs the extra `tables`.

    Raises:
        MerZooError: pyarrow is not installed, the file is damaged or unpacks to more than its size explains, a column
            is missing or means nothing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as home:
        ...     Parquet()(Parquet().example(Path(home))).widths
        {'audio': 3}
    """

    reads = ("a Parquet file",)

    def read(self, path: Path) -> Parts:
        """Return features and columns."""
        pyarrow = _arrow()
        try:
            with pyarrow.parquet.ParquetFile(path) as opened:  # most damaged files end here, at little cost
                texts = [f.name for f in opened.schema_arrow if pyarrow.types.is_string(f.type)]
            _check_size(path)
            with pyarrow.parquet.ParquetFile(path, read_dictionary=texts) as opened:
                names = [field.name for field in opened.schema_arrow]
                if twice := next((name for name in names if names.count(name) > 1), None):
                    raise MerZooError(f"{path}: two columns are called '{twice}'. Rename one.")
                refuse_unknown(names, self.naming, str(path))
                wanted = [name for name in names if name not in self.naming.ignore]
                columns = {name: opened.read(columns=[name]).column(0) for name in wanted}
                for column in columns.values():
                    column.validate(full=True)
                return self._parts(columns, path)
        except pyarrow.ArrowException as error:
            reason = " ".join(str(error).split())[:200]
            raise MerZooError(f"{path}: cannot be read ({reason}). It is damaged.") from None

    def _parts(self, columns: dict[str, Any], path: Path) -> Parts:
        """Sort columns into features and others."""
        types = _arrow().types
        features: dict[str, np.ndarray] = {}
        for modality, members in feature_groups(columns, self.naming, str(path)).items():
            for name in members:
                kind = columns[name].type
                if not (types.is_floating(kind) or types.is_integer(kind) or types.is_null(kind)):
                    raise MerZooError(f"{path}, column '{name}' of '{modality}': is of type {kind}, not numbers.")
            rows = [columns.pop(name).cast("float32", safe=False).to_numpy() for name in members]
            features[modality] = np.stack(rows, 1)
        plain: dict[str, Any] = {}
        for name, column in columns.items():
            if types.is_list(column.type) or types.is_large_list(column.type) or types.is_fixed_size_list(column.type):
                if name in features:
                    raise MerZooError(f"{path}: the features of '{name}' are there twice. Rename one.")
                features[name] = _lists(column, name, path)
            else:
                plain[name] = _values(column, name, path)
        return features, plain

    def example(self, folder: Path) -> Path:
        """Write a small file."""
        pyarrow = _arrow()
        path = folder / "example.parquet"
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(EXAMPLE)), path)
        return path


def _check_size(path: Path) -> None:
    """Compare what a file declares that it unpacks to with its size, before room is made for it."""
    size, declared = 0, chunks(path)
    for chunk in declared:
        is_feature = "." in chunk.path or chunk.kind in ("FLOAT", "DOUBLE")
        size += max((8 if is_feature else OBJECT) * max(chunk.values, chunk.rows), chunk.size)
    if size > UNPACKED * path.stat().st_size + SPARE or any(min(chunk.values, chunk.rows) < 0 for chunk in declared):
        raise MerZooError(f"{path}: unpacks to {size:,} bytes, which its own size does not explain.")


def _lists(column: Any, name: str, path: Path) -> np.ndarray:
    """Return lists of one length as rows; NaN where there is none."""
    types = _arrow().types
    inner = column.type.value_type
    if not (types.is_floating(inner) or types.is_integer(inner)):
        raise MerZooError(f"{path}, column '{name}': holds lists of {inner}, not of numbers.")
    lengths = column.combine_chunks().value_lengths() if len(column) else column
    known = np.asarray(lengths.drop_null()) if len(column) else np.zeros(0, np.int64)
    width = int(known.max(initial=0))
    if (known != width).any() or width < 1:
        least = int(known.min(initial=width))
        raise MerZooError(f"{path}, column '{name}': lists have {least} to {width} numbers. Give all one length.")
    present = ~np.asarray(column.is_null().combine_chunks())
    rows = np.full((len(column), width), np.nan, np.float32)
    numbers = column.drop_null().combine_chunks().flatten().cast("float32", safe=False)
    rows[present] = numbers.to_numpy(zero_copy_only=False).reshape(-1, width)
    return rows


def _values(column: Any, name: str, path: Path) -> list[Any]:
    """Return text, numbers or truth values; what is said often is kept once."""
    types = _arrow().types
    kind = column.type
    if types.is_dictionary(kind):
        found: list[Any] = []
        for chunk in column.chunks:
            words = chunk.dictionary.to_pylist()
            found += [None if i is None else words[i] for i in chunk.indices.to_pylist()]
        return found
    texts = (types.is_string, types.is_large_string)
    plain = (*texts, types.is_integer, types.is_floating, types.is_boolean, types.is_null)
    if any(fits(kind) for fits in plain):
        return column.to_pylist()
    raise MerZooError(f"{path}, column '{name}': is of type {kind}; want text, numbers, or lists of numbers.")
