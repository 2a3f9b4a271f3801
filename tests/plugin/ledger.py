"""A book of all runs, one file for each."""

from __future__ import annotations

import json
from pathlib import Path

from mer_zoo.results.run import Run


class Ledger:
    """A JSON file per run, called by its id.

    Args:
        results: folder of the result files (a fact).
        folder: its name, beside the result files.
        digits: of numbers.
    """

    def __init__(self, results: str, *, folder: str = "ledger", digits: int = 4) -> None:
        self.folder, self.digits = Path(results, folder), digits

    def log(self, run: Run) -> None:
        """Write a run, over an earlier one of the same id."""
        self.folder.mkdir(parents=True, exist_ok=True)
        numbers = {name: round(value, self.digits) for name, value in run.measures.items()}
        text = json.dumps({"name": run.name, "numbers": numbers, "failure": run.failure})
        (self.folder / f"{run.id}.json").write_text(text, encoding="utf-8")
