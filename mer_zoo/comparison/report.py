"""A comparison for people: a table in the terminal, and one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mer_zoo.comparison import table
from mer_zoo.comparison.statistics import Comparison, Model, compare_all
from mer_zoo.errors import MerZooError
from mer_zoo.results import metrics
from mer_zoo.results.result import Result
from mer_zoo.results.writing import write_atomically


def comparison_table(
    results: Sequence[Result], *, control: str | None = None, all_pairs: bool = False
) -> RenderableType:
    """Return the comparison as rich renders it: per dataset a table in percent, its warnings, and what is clear.

    Args:
        results: of any number of datasets; each dataset and protocol gets a table of its own.
        control: the model that the others are compared with; None: the first one of the suite.
        all_pairs: compare every two models.

    Returns:
        a rich renderable; `rich.print` it. In a narrow terminal the costs go to a second table.

    Raises:
        MerZooError: results cannot share a table, see `statistics.compare`.
    """
    return _Tables(compare_all(results, control=control, all_pairs=all_pairs))


class _Tables:
    def __init__(self, comparisons: Sequence[Comparison]) -> None:
        self.comparisons = comparisons

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for comparison in self.comparisons:
            rows, pairs = table.rows(comparison), table.pair_rows(comparison)
            both = _table(rows, table.SCORE_COLUMNS | table.COST_COLUMNS, gap=2)
            yield _text(f"{table.title(comparison, self.comparisons)}, in %", style="bold")
            if comparison.protocol == "test-oracle":
                yield _text(f"{table.WATERMARK}: {table.WATERMARK_MEANING}", style="bold red")
            if Measurement.get(console, options.update(max_width=1000), both).maximum <= options.max_width:
                yield both
            else:
                yield _table(rows, table.SCORE_COLUMNS)
                costs = [row for row in rows if row["epoch"] != table.MISSING]
                yield _table(costs, {"model": "Model"} | table.COST_COLUMNS)
            if pairs:
                yield _table(pairs, table.PAIR_COLUMNS)
            for warning in comparison.dataset.warnings:
                yield _text(f"Warning about this data: {warning}", style="yellow")
            for remark in table.remarks(comparison):
                yield _text(remark, style="dim")
            yield Padding("", (0, 0))


def _text(text: str, style: str = "") -> Text:
    """A name is shown as it is: neither rich's markup nor the terminal's escapes are obeyed."""
    return Text(table.visible(text), style=style)


def _table(rows: Sequence[table.Row], columns: Mapping[str, str], gap: int = 1) -> Table:
    made = Table(box=None, padding=(0, gap, 0, 0), header_style="bold")
    columns = table.used(columns, rows)
    for key, header in columns.items():
        # Numbers stay whole; a long name is folded, a long header or verdict wrapped.
        width = max([len(row[key]) for row in rows] + [max(len(word) for word in header.split())])
        if key in ("model", "verdict"):
            made.add_column(header, overflow="fold", min_width=min(width, 14))
        else:
            made.add_column(header, justify="right", min_width=width)
    for row in rows:
        style = "italic" if table.is_ceiling(row) else "red" if table.is_oracle(row) else None
        made.add_row(*(_text(row[key]) for key in columns), style=style)
    return made


def write_html(
    results: Sequence[Result],
    path: str | Path,
    *,
    published: Sequence[Mapping[str, Any]] = (),
    control: str | None = None,
    all_pairs: bool = False,
) -> Path:
    """Write the comparison with its plots as one HTML file that loads nothing from elsewhere.

    Args:
        results: of any number of datasets.
        published: scores from papers, as mappings with `model`, `metric`, `value`, `where`, `selected_on`, `seeds`
            and, if it helps, `dataset`; shown in a table of their own, apart from measured ones.
        control: the model that the others are compared with; None: the first one of the suite.
        all_pairs: compare every two models.

    Returns:
        the path.

    Raises:
        MerZooError: matplotlib or jinja2 is not installed, results cannot share a table, or the file cannot be written.
    """
    try:
        import jinja2

        from mer_zoo.comparison import plots
    except ImportError as error:
        raise MerZooError(
            f"the HTML report needs {error.name}, which is not installed. Install it: pip install mer-zoo[report]"
        ) from None
    comparisons = compare_all(results, control=control, all_pairs=all_pairs)
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        finalize=lambda value: table.visible(value) if isinstance(value, str) else value,
    )
    source = resources.files("mer_zoo.comparison").joinpath("report.html.jinja").read_text(encoding="utf-8")
    text = environment.from_string(source).render(
        sections=[_section(comparison, comparisons, plots.figures(comparison)) for comparison in comparisons],
        is_ceiling=table.is_ceiling,
        watermark=table.WATERMARK,
        watermark_meaning=table.WATERMARK_MEANING,
        published=[{key: _shown(row.get(key)) for key in PUBLISHED_COLUMNS} for row in published],
        published_columns={
            key: header
            for key, header in PUBLISHED_COLUMNS.items()
            if key == "model" or any(row.get(key) is not None for row in published)
        },
        runs=len(results),
        finished=max(result.finished for result in results),
    )
    path = Path(path)
    write_atomically(path, text)
    return path


PUBLISHED_COLUMNS = {
    "model": "Model",
    "dataset": "Dataset",
    "metric": "Metric",
    "value": "Value",
    "where": "Where",
    "selected_on": "Selected on",
    "seeds": "Seeds",
}


def _shown(value: Any) -> str:
    return table.MISSING if value is None else str(value)


def _section(comparison: Comparison, among: Sequence[Comparison], figures: Sequence[Any]) -> dict[str, Any]:
    rows, pairs = table.rows(comparison), table.pair_rows(comparison)
    return {
        "title": table.title(comparison, among),
        "oracle": comparison.protocol == "test-oracle",
        "rows": [row | {"kind": "oracle" if table.is_oracle(row) else ""} for row in rows],
        "columns": table.used(table.SCORE_COLUMNS | table.COST_COLUMNS, rows),
        "warnings": comparison.dataset.warnings,
        "remarks": table.remarks(comparison),
        "pairs": pairs,
        "pair_columns": table.used(table.PAIR_COLUMNS, pairs),
        "per_class": {
            "models": [model.name for model in comparison.models],
            "rows": list(_per_class(comparison)),
        },
        "figures": figures,
        "environments": sorted({_environment(run) for model in comparison.models for run in model.all_runs}),
        "modalities": ", ".join(f"{name} {width}" for name, width in comparison.dataset.modalities.items()),
    }


def class_f1(model: Model) -> np.ndarray:
    """F1 of every class, mean over seeds, float64 `[C]`, 0 to 1."""
    return metrics.per_class(model.confusion.sum(1))["f1"].mean(0)


def _per_class(comparison: Comparison) -> Iterator[dict[str, Any]]:
    scores = [class_f1(model) for model in comparison.models]
    support = comparison.models[0].confusion[0].sum((0, 2))
    for i, name in enumerate(comparison.dataset.label_names):
        yield {"name": name, "support": int(support[i]), "values": [f"{100 * score[i]:.1f}" for score in scores]}


def _environment(run: Result) -> str:
    e = run.environment
    return (
        f"mer_zoo {e.mer_zoo} ({e.git_commit[:12] if e.git_commit else 'release'}), Python {e.python}, "
        f"torch {e.torch}, dgl {e.dgl}, numpy {e.numpy}; {e.device}, {e.cpu_count} CPU cores, {e.platform}"
    )
