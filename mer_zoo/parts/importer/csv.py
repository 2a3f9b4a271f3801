"""Tables of text with separators."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from mer_zoo.data.rows import Columns, Lines
from mer_zoo.data.table import refuse_unknown
from mer_zoo.errors import MerZooError
from mer_zoo.parts.importer.base import EXAMPLE, Parts, TableImporter


class Csv(TableImporter):
    """A table of text: a line with the names of the columns, then one per utterance; UTF-8.

    The separator is the one of comma, semicolon and tab that the first line has most of. Lists are written as
    `"[0.1, 0.2]"`.

    Raises:
        MerZooError: a column is missing or means nothing, a row has too many values, the text is not UTF-8.

    Example:
        >>> import tempfile
        >>> text = "dialogue,utterance,speaker,audio_0,audio_1\\nd,1,Ann,0.5,1.5\\n"
        >>> with tempfile.TemporaryDirectory() as home:
        ...     _ = Path(home, "mine.csv").write_text(text)
        ...     Csv()(Path(home, "mine.csv")).widths
        {'audio': 2}
    """

    reads = ("a CSV table", "a text file")

    def read(self, path: Path) -> Parts:
        """Return features and columns."""
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = Lines(stream, path)
            iterator = iter(lines)
            first = next((line for line in iterator if line.strip()), "")
            separator = max(",;\t", key=first.count)
            try:
                header = [name.strip() for name in next(csv.reader([first], delimiter=separator), [])]
                if twice := next((name for name in header if header.count(name) > 1), None):
                    raise MerZooError(f"{path}:{lines.number}: two columns are called '{twice}'. Rename one.")
                refuse_unknown(header, self.naming, str(path))
                columns = Columns(header, self.naming, path)
                lines.next_row()
                for row in csv.reader(iterator, delimiter=separator):
                    lines.next_row()
                    if not row:
                        continue
                    if len(row) != len(header):
                        raise MerZooError(
                            f"{path}:{lines.number}: {len(row)} values, but {len(header)} columns. Put text that holds "
                            f"a {'tab' if separator == chr(9) else repr(separator)} between quotes."
                        )
                    columns.add(dict(zip(header, row, strict=True)), lines.number)
            except csv.Error as error:
                raise MerZooError(f"{path}:{lines.number}: is not a row of a CSV table ({error}).") from None
        return columns.finish()

    def example(self, folder: Path) -> Path:
        """Write a small file."""
        path = folder / "example.csv"
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(EXAMPLE[0]))
            writer.writeheader()
            writer.writerows({**row, "audio": json.dumps(row["audio"])} for row in EXAMPLE)
        return path
