"""What a Parquet file declares, read in a process of its own: pyarrow aborts on some damaged declarations."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from mer_zoo.errors import MerZooError


class Chunk(NamedTuple):
    """One column of one row group, as the file declares it.

    Attributes:
        path: names from the column to the values, joined by dots; lists have more than one.
        kind: physical type, such as `DOUBLE`.
        values: how many.
        size: bytes, unpacked but still encoded.
        rows: of its row group.
    """

    path: str
    kind: str
    values: int
    size: int
    rows: int


def chunks(path: Path) -> list[Chunk]:
    """Return what a file declares, before room is made for any of it.

    Raises:
        MerZooError: the file is no Parquet file, or its declarations are damaged.
    """
    command = [sys.executable, "-c", READ, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace")
    if done.returncode:
        last = done.stderr.strip().splitlines() or ["no reason given"]
        reason = next((line.partition(":")[2].strip() for line in last if "what():" in line), last[-1])[:200]
        raise MerZooError(f"{path}: cannot be read ({reason}). It is damaged.")
    return [Chunk(*row) for row in json.loads(done.stdout)]


READ = """
import json, sys
import pyarrow.parquet
with pyarrow.parquet.ParquetFile(sys.argv[1]) as opened:
    groups = [opened.metadata.row_group(i) for i in range(opened.metadata.num_row_groups)]
    found = [(group.column(i), group.num_rows) for group in groups for i in range(group.num_columns)]
rows = [(c.path_in_schema, c.physical_type, c.num_values, c.total_uncompressed_size, n) for c, n in found]
print(json.dumps(rows))
"""
"""The process: it imports pyarrow alone, and says what it found as JSON."""
