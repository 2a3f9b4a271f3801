"""A comparison for people: a table in the terminal, and one HTML file that needs nothing else."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mer_zoo.comparison import insides, summary, table, utterances
from mer_zoo.comparison.broken import Broken
from mer_zoo.comparison.findings import findings
from mer_zoo.comparison.inference import Interval
from mer_zoo.comparison.statistics import Comparison, compare_all
from mer_zoo.data.conversation import Dataset
from mer_zoo.errors import MerZooError
from mer_zoo.results.result import Result
from mer_zoo.results.writing import write_atomically
from mer_zoo.showing import Shown, Table, Words

if TYPE_CHECKING:
    from mer_zoo.comparison.plots import Figure


def comparison_table(
    results: Sequence[Result],
    *,
    baseline: str | None = None,
    all_pairs: bool = False,
    broken: Sequence[Broken] = (),
) -> Tables:
    """Return the comparison as terminals and notebooks show it.

    Per dataset a table in percent, its warnings, and what is clear.

    Args:
        results: of any number of datasets; each dataset and protocol gets a table of its own.
        baseline: the model that the others are compared with; None: the first one of the suite.
        all_pairs: compare every two models.
        broken: runs that left no result, to be told of.

    Returns:
        `Tables`; print it. In a narrow terminal the costs go to a second table.

    Raises:
        MerZooError: results cannot share a table, see `statistics.compare`.
    """
    return Tables(compare_all(results, baseline=baseline, all_pairs=all_pairs, broken=broken))


@dataclass(frozen=True)
class Searched:
    """What a report tells of a search.

    Attributes:
        title: of its section.
        sentences: what was tried, and what came of it.
        figures: of `plots`.
        tables: each a caption, headings, and rows.
    """

    title: str
    sentences: tuple[str, ...]
    figures: tuple[Figure, ...]
    tables: tuple[tuple[str, tuple[str, ...], tuple[tuple[str, ...], ...]], ...]


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
    weights: Mapping[str, Path] | None = None,
    trust: Collection[str] = (),
    searches: Sequence[Searched] = (),
    baseline: str | None = None,
    all_pairs: bool = False,
    broken: Sequence[Broken] = (),
) -> Path:
    """Write the comparison with its plots as one HTML file that loads nothing from elsewhere.

    Args:
        results: of any number of datasets.
        published: scores from papers, as mappings with `model`, `metric`, `value`, `where`, `selected_on`, `seeds`
            and, if it helps, `dataset`; shown in a table of their own, apart from measured ones.
        datasets: those that the results are of, as far as they are at hand; they know who speaks and what is said.
        weights: run -> file of its weights, see `insides.kept`; those models are looked into.
        trust: parts by file or module that may be run for that.
        searches: what is told of searches behind the results.
        baseline: the model that the others are compared with; None: the first one of the suite.
        all_pairs: compare every two models.
        broken: runs that left no result, to be told of.

    Returns:
        the path. The page holds its numbers as CSV, Markdown, LaTeX and JSON too, to be saved from it.

    Raises:
        MerZooError: matplotlib or jinja2 is not installed, results cannot share a table, or the file cannot be written.
    """
    try:
        import jinja2
        import matplotlib  # noqa: F401
        from markupsafe import Markup
    except ImportError as error:
        raise MerZooError(
            f"the HTML report needs {error.name}, which is not installed. Install it: pip install mer-zoo[report]"
        ) from None
    choices: dict[str, Any] = {"baseline": baseline, "all_pairs": all_pairs, "broken": broken}
    comparisons = compare_all(results, **choices)
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
    exports = {
        "csv": summary.as_csv(results),
        "md": table.markdown(results, **choices),
        "tex": table.latex(results, **choices),
        "json": summary.as_json(results),
    }
    text = environment.from_string(source).render(
        sections=[
            _section(one, comparisons, known.get(one.dataset.fingerprint), weights or {}, trust) for one in comparisons
        ],
        searches=searches,
        exports={f"summary.{end}": b64encode(text.encode()).decode() for end, text in exports.items()},
        script=Markup(script),
        rare=f"{100 * utterances.RARE:.0f}",
        long=f"{100 * (1 - utterances.LONG):.0f}",
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
    comparison: Comparison,
    among: Sequence[Comparison],
    dataset: Dataset | None,
    weights: Mapping[str, Path],
    trust: Collection[str],
) -> dict[str, Any]:
    from mer_zoo.comparison import curves, plots

    rows, pairs = table.rows(comparison), table.pair_rows(comparison)
    names, dialogues = comparison.dataset.label_names, utterances.judged(comparison, dataset)
    models = [model.name for model in comparison.models]
    looked = insides.inside(comparison, dialogues, weights, room=insides.ROOM // len(among), trust=trust)
    reliable = {name: utterances.reliability(dialogues, name)[:2] for name in models}
    errors = {name: utterances.calibration(dialogues, name) for name in models}
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
        "calibration": [f"{100 * errors[name]:.1f}" for name in models],
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
        "figures": [
            *plots.figures(comparison),
            *curves.curves(comparison, "weighted_f1", "Weighted F1 per epoch", percent=True),
            *curves.curves(comparison, "loss", "Loss per epoch", percent=False),
            plots.reliability(reliable, errors),
            *plots.confusions(comparison),
        ],
        "inside": looked,
        "over_epochs": [
            figure
            for model in comparison.models
            for draw in (curves.balancing_rates, curves.contributions, curves.lambdas)
            for figure in draw(model)
        ],
        "baseline": comparison.baseline,
        "base": models.index(comparison.baseline) if comparison.baseline in models else None,
        "samples": "folds" if comparison.folds else "dialogues",
        "sizes": _sizes(comparison),
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


def _per_class(comparison: Comparison) -> Iterator[dict[str, Any]]:
    scores = [comparison.class_f1(model) for model in comparison.models]
    support = comparison.models[0].confusion[0].sum((0, 2))
    for i, name in enumerate(comparison.dataset.label_names):
        values = [_within(score[i]) if support[i] else table.MISSING for score in scores]
        yield {"name": name, "support": int(support[i]), "values": values}


def _within(one: Interval) -> str:
    """A score in percent with its interval, which there is not where nothing differs, such as with a single seed."""
    value, low, high = (100 * x for x in one)
    return f"{value:.1f}" + (f" [{max(low, 0):.0f}, {min(high, 100):.0f}]" if low < high else "")


def _sizes(comparison: Comparison) -> str:
    """How many dialogues each split has."""
    splits = [run.split for run in comparison.models[0].all_runs]
    counts = {part: sorted({len(getattr(split, part)) for split in splits}) for part in ("train", "validation", "test")}
    told = [f"{part} {' to '.join(map(str, (each[0], each[-1])[: len(each)]))}" for part, each in counts.items()]
    return "Dialogues: " + ", ".join(told) + (" of every fold." if len(set(comparison.folds)) > 1 else ".")


def _environment(run: Result) -> str:
    e = run.environment
    return (
        f"mer_zoo {e.mer_zoo} ({e.git_commit[:12] if e.git_commit else 'release'}), Python {e.python}, "
        f"torch {e.torch}, dgl {e.dgl}, numpy {e.numpy}; {e.device}, {e.cpu_count} CPU cores, {e.platform}"
    )
