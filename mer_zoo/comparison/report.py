"""A comparison for people: a table in the terminal, and one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mer_zoo.comparison import table, utterances
from mer_zoo.comparison.findings import findings
from mer_zoo.comparison.statistics import Comparison, Model, compare_all
from mer_zoo.data.conversation import Dataset
from mer_zoo.errors import MerZooError
from mer_zoo.results import metrics
from mer_zoo.results.result import Result
from mer_zoo.results.writing import write_atomically
from mer_zoo.showing import Shown, Table, Words


def comparison_table(results: Sequence[Result], *, control: str | None = None, all_pairs: bool = False) -> Tables:
    """Return the comparison as terminals and notebooks show it.

    Per dataset a table in percent, its warnings, and what is clear.

    Args:
        results: of any number of datasets; each dataset and protocol gets a table of its own.
        control: the model that the others are compared with; None: the first one of the suite.
        all_pairs: compare every two models.

    Returns:
        `Tables`; print it. In a narrow terminal the costs go to a second table.

    Raises:
        MerZooError: results cannot share a table, see `statistics.compare`.
    """
    return Tables(compare_all(results, control=control, all_pairs=all_pairs))


class Tables(Shown):
    """Comparisons, each with its table, its pairs, its warnings and remarks."""

    def __init__(self, comparisons: Sequence[Comparison]) -> None:
        self.comparisons = comparisons

    def shown(self) -> Iterator[Words | Table]:
        """Yield them one after the other."""
        for comparison in self.comparisons:
            yield Words(f"{table.title(comparison, self.comparisons)}, in %", "title")
            if comparison.protocol == "test-oracle":
                yield Words(f"{table.WATERMARK}: {table.WATERMARK_MEANING}", "alarm")
            yield _table(table.rows(comparison), table.SCORE_COLUMNS | table.COST_COLUMNS)
            if pairs := table.pair_rows(comparison):
                yield _table(pairs, table.PAIR_COLUMNS)
            yield from (Words(f"Warning about this data: {text}", "warning") for text in comparison.dataset.warnings)
            yield from (Words(text, "note") for text in table.remarks(comparison))
            yield Words()


def _table(rows: Sequence[table.Row], columns: Mapping[str, str]) -> Table:
    columns = table.used(columns, rows)
    return Table(
        list(columns.values()),
        [[row[key] for key in columns] for row in rows],
        numbers=[i for i, key in enumerate(columns) if key not in ("model", "verdict")],
        aside=[i for i, key in enumerate(columns) if key in table.COST_COLUMNS],
        styles=["italic" if table.is_ceiling(row) else "red" if table.is_oracle(row) else "" for row in rows],
    )


def write_html(
    results: Sequence[Result],
    path: str | Path,
    *,
    published: Sequence[Mapping[str, Any]] = (),
    datasets: Sequence[Dataset] = (),
    control: str | None = None,
    all_pairs: bool = False,
) -> Path:
    """Write the comparison with its plots as one HTML file that loads nothing from elsewhere.

    Args:
        results: of any number of datasets.
        published: scores from papers, as mappings with `model`, `metric`, `value`, `where`, `selected_on`, `seeds`
            and, if it helps, `dataset`; shown in a table of their own, apart from measured ones.
        datasets: those that the results are of, as far as they are at hand; they know who speaks and what is said.
        control: the model that the others are compared with; None: the first one of the suite.
        all_pairs: compare every two models.

    Returns:
        the path. Tables that lie beside it (`summary.csv`, `.md`, `.tex`) are linked.

    Raises:
        MerZooError: matplotlib or jinja2 is not installed, results cannot share a table, or the file cannot be written.
    """
    try:
        import jinja2
        from markupsafe import Markup

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
        finalize=lambda value: table.visible(value) if type(value) is str else value,  # not what is escaped already
    )
    path, known = Path(path), {dataset.fingerprint: dataset for dataset in datasets}
    source, script = (
        resources.files("mer_zoo.comparison").joinpath(name).read_text(encoding="utf-8")
        for name in ("report.html.jinja", "report.js")
    )
    text = environment.from_string(source).render(
        sections=[
            _section(one, comparisons, plots.figures(one), known.get(one.dataset.fingerprint)) for one in comparisons
        ],
        beside=[name for name in ("summary.csv", "summary.md", "summary.tex") if path.with_name(name).exists()],
        script=Markup(script),
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


def _section(
    comparison: Comparison, among: Sequence[Comparison], figures: Sequence[Any], dataset: Dataset | None
) -> dict[str, Any]:
    rows, pairs = table.rows(comparison), table.pair_rows(comparison)
    names, dialogues = comparison.dataset.label_names, utterances.judged(comparison, dataset)
    models = [model.name for model in comparison.models]
    settings = {model.name: _settings(model.all_runs[0]) for model in comparison.models}
    return {
        "findings": findings(comparison),
        "models": models,
        "settings": settings,
        "dialogues": [
            {**one, "name": table.visible(one["name"]), "turns": [_visible(turn) for turn in one["turns"]]}
            for one in utterances.shown(dialogues, names)
        ],
        "all_dialogues": len(dialogues),
        "slices": [
            [one["name"], one["utterances"], *(f"{100 * one['values'][name]:.1f}" for name in models)]
            for one in utterances.slices(dialogues, names)
        ],
        "calibration": [f"{100 * utterances.calibration(dialogues, name):.1f}" for name in models],
        "disagreement": _matrix(models, utterances.disagreement(dialogues)),
        "title": table.title(comparison, among),
        "oracle": comparison.protocol == "test-oracle",
        "rows": [row | {"kind": "oracle" if table.is_oracle(row) else ""} for row in rows],
        "columns": table.used(table.SCORE_COLUMNS | table.COST_COLUMNS, rows),
        "warnings": comparison.dataset.warnings,
        "remarks": table.remarks(comparison),
        "pairs": pairs,
        "pair_columns": table.used(table.PAIR_COLUMNS, pairs),
        "per_class": {
            "models": models,
            "rows": list(_per_class(comparison)),
        },
        "figures": figures,
        "environments": sorted({_environment(run) for model in comparison.models for run in model.all_runs}),
        "modalities": ", ".join(f"{name} {width}" for name, width in comparison.dataset.modalities.items()),
    }


def _settings(run: Result) -> str:
    return yaml.safe_dump(run.recipe, sort_keys=False, allow_unicode=True, width=100)


def _visible(turn: dict[str, Any]) -> dict[str, Any]:
    return {key: table.visible(value) if isinstance(value, str) else value for key, value in turn.items()}


def _matrix(models: Sequence[str], shares: Mapping[tuple[str, str], float]) -> list[list[str]]:
    both = {**shares, **{(b, a): share for (a, b), share in shares.items()}}
    return [[f"{100 * both[a, b]:.1f}" if a != b else table.MISSING for b in models] for a in models]


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
