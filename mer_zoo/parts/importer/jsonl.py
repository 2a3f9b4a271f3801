"""Tables of JSON, an object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mer_zoo.data.rows import Columns, Lines
from mer_zoo.data.table import refuse_unknown
from mer_zoo.errors import MerZooError
from mer_zoo.parts.importer.base import EXAMPLE, Parts, TableImporter


class Jsonl(TableImporter):
    """JSON Lines: an object per utterance, its keys the columns; a key that is left out or null is empty.

    Raises:
        MerZooError: a line is no object, a column is missing or means nothing.

    Example:
        >>> import tempfile
        >>> row = '{"dialogue": "d", "utterance": 1, "speaker": "Ann", "audio": [0.5, 1.5]}'
        >>> with tempfile.TemporaryDirectory() as home:
        ...     _ = Path(home, "mine.jsonl").write_text(row)
        ...     Jsonl()(Path(home, "mine.jsonl")).widths
        {'audio': 2}
    """

    reads = ("JSON, an object a line",)

    def read(self, path: Path) -> Parts:
        """Return features and columns."""
        columns: Columns | None = None
        keys: set[str] = set()
        with path.open(encoding="utf-8-sig") as stream:
            lines = Lines(stream, path)
            for line in lines:
                lines.next_row()
                if not line.strip():
                    continue
                row = _object(line, f"{path}:{lines.number}")
                keys |= row.keys()
                columns = columns or Columns(list(row), self.naming, path)
                for key in row.keys() - columns.known:
                    columns.admit(key)
                columns.add(row, lines.number)
        if columns is None:
            raise MerZooError(f"{path}: has no rows.")
        refuse_unknown(keys, self.naming, str(path))
        return columns.finish()

    def example(self, folder: Path) -> Path:
        """Write a small file."""
        path = folder / "example.jsonl"
        path.write_text("".join(f"{json.dumps(row)}\n" for row in EXAMPLE), encoding="utf-8")
        return path


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MerZooError(f"{where}: is not JSON ({error}). Write one object a line.") from None
    if not isinstance(row, dict):
        raise MerZooError(f"{where}: is a {type(row).__name__}, not an object. Write one object a line.")
    return row
