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

from mer_zoo.comparison.statistics import Comparison, Model, compare_all
from mer_zoo.errors import MerZooError
from mer_zoo.results import metrics
from mer_zoo.results.result import Result, write_atomically

WATERMARK = "SELECTED ON TEST"
WATERMARK_MEANING = (
    "The epoch of every run was chosen by its score on the test split, as some published numbers were. "
    "These scores are too high and do not compare with honest ones."
)
GAP_MEANING = (
    "Gap: weighted F1 at the best epoch on test minus that at the epoch chosen on validation; never selected on."
)
CEILING = "ceiling (exact)"
MISSING = "–"

SCORE_COLUMNS = {
    "model": "Model",
    "weighted_f1": "Weighted F1",
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "unweighted_recall": "Unweighted recall",
    "gap": "Gap",
    "seeds": "Seeds",
}
COST_COLUMNS = {
    "epoch": "Time per epoch",
    "total": "Total per seed",
    "memory": "Peak memory",
    "parameters": "Parameters",
}


def comparison_table(results: Sequence[Result]) -> RenderableType:
    """Return the comparison as rich renders it: per dataset a table in percent, its warnings, and what is significant.

    Args:
        results: of any number of datasets; each dataset and protocol gets a table of its own.

    Returns:
        a rich renderable; `rich.print` it. In a narrow terminal the costs go to a second table.

    Raises:
        MerZooError: results cannot share a table, see `statistics.compare`.
    """
    return _Tables(compare_all(results))


class _Tables:
    def __init__(self, comparisons: Sequence[Comparison]) -> None:
        self.comparisons = comparisons

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for comparison in self.comparisons:
            rows = _rows(comparison)
            both = _table(rows, SCORE_COLUMNS | COST_COLUMNS, gap=2)
            yield Text(f"{title(comparison, self.comparisons)}, in %", style="bold")
            if comparison.protocol == "test-oracle":
                yield Text(f"{WATERMARK}: {WATERMARK_MEANING}", style="bold red")
            if Measurement.get(console, options.update(max_width=1000), both).maximum <= options.max_width:
                yield both
            else:
                yield _table(rows, SCORE_COLUMNS)
                yield _table([row for row in rows if row["model"] != CEILING], {"model": "Model"} | COST_COLUMNS)
            for warning in comparison.dataset.warnings:
                yield Text(f"Warning about this data: {warning}", style="yellow")
            for note in _remarks(comparison):
                yield Text(note, style="dim")
            yield Padding("", (0, 0))


def _table(rows: Sequence[Mapping[str, str]], columns: Mapping[str, str], gap: int = 1) -> Table:
    table = Table(box=None, padding=(0, gap, 0, 0), header_style="bold")
    for key, header in columns.items():
        # Numbers stay whole; a long name is folded, a long header wrapped.
        width = max([len(row[key]) for row in rows] + [max(len(word) for word in header.split())])
        if key == "model":
            table.add_column(header, overflow="fold")
        else:
            table.add_column(header, justify="right", min_width=width)
    for row in rows:
        table.add_row(*(Text(row[key]) for key in columns), style="italic" if row["model"] == CEILING else None)
    return table


def title(comparison: Comparison, among: Sequence[Comparison]) -> str:
    """Name a comparison by its dataset, how it was tested, and its fingerprint where the name alone is ambiguous."""
    data = comparison.dataset
    folds = len({run.fold for run in comparison.models[0].all_runs})
    words = [f"{data.name} ({len(data.label_names)} classes, {len(comparison.dialogues)} test dialogues"]
    words += [f"{folds}-fold cross-validation"] if folds > 1 else []
    if any(c.dataset.name == data.name and c.dataset.fingerprint != data.fingerprint for c in among):
        words.append(f"data {data.fingerprint[:8]}")
    return ", ".join(words) + ")" + (f" – {WATERMARK}" if comparison.protocol == "test-oracle" else "")


def _rows(comparison: Comparison) -> list[dict[str, str]]:
    columns = SCORE_COLUMNS | COST_COLUMNS
    rows = []
    if comparison.dataset.ceiling is not None:
        ceiling = dict.fromkeys(columns, MISSING)
        rows.append(ceiling | {"model": CEILING, "accuracy": f"{100 * comparison.dataset.ceiling:.2f}"})
    for model in comparison.models:
        memory = model.peak_memory_mb
        rows.append(
            {
                "model": model.name,
                **{score: spread(model.mean(score), model.sd(score)) for score in metrics.SCORES},
                "gap": MISSING if model.gap is None else _signed(model.gap),
                "epoch": duration(model.seconds_per_epoch),
                "total": duration(model.seconds),
                "memory": MISSING if memory is None else f"{memory:,.0f} MB",
                "parameters": f"{model.parameters:,}",
                "seeds": str(len(model.seeds)),
            }
        )
    return rows


def _remarks(comparison: Comparison) -> list[str]:
    gap = any(model.gap is not None for model in comparison.models)
    remarks = [comparison.significance, *comparison.notes]
    if comparison.dataset.ceiling is not None:
        remarks.append("Ceiling: the expected accuracy of exact Bayesian inference; a finite test split may exceed it.")
    return [remark for remark in [*remarks, GAP_MEANING if gap else ""] if remark]


def spread(mean: float, sd: float | None) -> str:
    """Mean ± standard deviation in percent.

    Example:
        >>> spread(0.7567, 0.0045), spread(0.5, None)
        ('75.67 ± 0.45', '50.00')
    """
    return f"{100 * mean:.2f}" + ("" if sd is None else f" ± {100 * sd:.2f}")


def _signed(fraction: float) -> str:
    return f"{100 * fraction:+.2f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds as a person writes them.

    Example:
        >>> duration(0.0391), duration(4.82), duration(83), duration(7260)
        ('39 ms', '4.8 s', '1:23 min', '2:01 h')
    """
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    large, small = divmod(round(seconds), 60) if seconds < 3599.5 else divmod(round(seconds / 60), 60)
    return f"{large}:{small:02d} " + ("min" if seconds < 3599.5 else "h")


def write_html(results: Sequence[Result], path: str | Path, *, published: Sequence[Mapping[str, Any]] = ()) -> Path:
    """Write the comparison with its plots as one HTML file that loads nothing from elsewhere.

    Args:
        results: of any number of datasets.
        published: scores from papers, as mappings with `model`, `metric`, `value`, `where`, `selected_on`, `seeds`
            and, if it helps, `dataset`; shown in a table of their own, apart from measured ones.

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
    comparisons = compare_all(results)
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    source = resources.files("mer_zoo.comparison").joinpath("report.html.jinja").read_text(encoding="utf-8")
    text = environment.from_string(source).render(
        sections=[_section(comparison, comparisons, plots.figures(comparison)) for comparison in comparisons],
        columns=SCORE_COLUMNS | COST_COLUMNS,
        ceiling=CEILING,
        watermark=WATERMARK,
        watermark_meaning=WATERMARK_MEANING,
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
    return MISSING if value is None else str(value)


def _section(comparison: Comparison, among: Sequence[Comparison], figures: Sequence[Any]) -> dict[str, Any]:
    return {
        "title": title(comparison, among),
        "oracle": comparison.protocol == "test-oracle",
        "rows": _rows(comparison),
        "warnings": comparison.dataset.warnings,
        "remarks": _remarks(comparison),
        "pairs": [
            {
                "names": f"{pair.first} − {pair.second}",
                "difference": _signed(pair.difference),
                "interval": " to ".join(map(_signed, pair.interval)),
                "p": f"{pair.p:.3g}",
                "p_holm": f"{pair.p_holm:.3g}",
                "seeds": str(len(pair.seeds)),
                "verdict": "significant" if pair.significant else "not significant",
            }
            for pair in comparison.pairs
        ],
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
