"""The results of a comparison, as Python gets them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mer_zoo.comparison import summary
from mer_zoo.comparison.report import comparison_table
from mer_zoo.results.result import Result
from mer_zoo.showing import Shown, Table, Words


class Results(Shown, list[Result]):
    """A list of results that shows itself as their comparison; its data frame has a row per run.

    Example:
        >>> print(Results())
        no results
    """

    def shown(self) -> Iterator[Words | Table]:
        """Yield the comparison."""
        yield from comparison_table(self).shown() if self else [Words("no results")]

    def records(self) -> list[dict[str, Any]]:
        """Return what `summary.csv` holds, with None where nothing is known."""
        return [{key: None if value == "" else value for key, value in row.items()} for row in summary.rows(self)]
