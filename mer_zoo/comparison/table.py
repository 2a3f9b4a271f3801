"""What a comparison shows, in words and numbers that every export shares; and Markdown and LaTeX made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mer_zoo.comparison.inference import Pair
from mer_zoo.comparison.statistics import Comparison, Model, compare_all
from mer_zoo.results import metrics
from mer_zoo.results.result import Result
from mer_zoo.showing import MISSING, visible

WATERMARK = "SELECTED ON TEST"
WATERMARK_MEANING = (
    "Rows marked (oracle) are the same runs at the epoch that is best on the test split, which is what some published "
    "numbers are. They are too high and do not compare with honest ones. All else here is from the epochs chosen on "
    "validation."
)
GAP_MEANING = "Gap: weighted F1 at the best epoch on test minus that at the epoch chosen on validation."
CEILING_MEANING = "Ceiling: the expected accuracy of exact Bayesian inference; a finite test split may exceed it."
PAIRS_MEANING = (
    "Interval: 95 %, for one comparison alone; excludes 0 exactly where p < 0.05. p: over seeds and {samples} "
    "together, by a jackknife over each."
)
CEILING = "ceiling (exact)"
FAILED = "failed"

SCORE_COLUMNS = {
    "model": "Model",
    **{score: score.replace("_", " ").capitalize().replace("f1", "F1") for score in metrics.SCORES},
    "gap": "Gap",
    "seeds": "Seeds",
}
COST_COLUMNS = {
    "epoch": "Time per epoch",
    "total": "Total per seed",
    "memory": "Peak memory",
    "parameters": "Parameters",
}
PAIR_COLUMNS = {
    "model": "Difference in weighted F1",
    "difference": "Points",
    "interval": "95 % interval",
    "p": "p",
    "p_holm": "p, Holm",
    "verdict": "Verdict",
}

ORACLE = " (oracle)"

Row = dict[str, str]


def title(comparison: Comparison, among: Sequence[Comparison]) -> str:
    """Name a comparison by its dataset, how it was tested, and its fingerprint where the name alone is ambiguous."""
    data, run = comparison.dataset, comparison.models[0].all_runs[0]
    folds = len(set(comparison.folds))
    words = [f"{data.name} ({len(data.label_names)} classes, {len(comparison.dialogues)} test dialogues"]
    words += [f"{folds}-fold cross-validation"] if folds > 1 else []
    words += [f"{key} {value}".replace("_", " ") for key, value in run.split_rule.items()]
    words += [run.precision] if run.precision != "float32" else []
    if any(c.dataset.name == data.name and c.dataset.fingerprint != data.fingerprint for c in among):
        words.append(f"data {data.fingerprint[:8]}")
    return ", ".join(words) + ")" + (f" – oracle rows {WATERMARK}" if comparison.protocol == "test-oracle" else "")


def rows(comparison: Comparison) -> list[Row]:
    """One row per model in percent, best first, under the ceiling; below each, if wanted, its scores chosen on test.

    A model of which every run failed stands at the end.
    """
    columns = SCORE_COLUMNS | COST_COLUMNS
    empty = dict.fromkeys(columns, MISSING)
    found = []
    for view, accuracy in comparison.dataset.ceilings.items():
        found.append(empty | {"model": ceiling_name(view), "accuracy": f"{100 * accuracy:.2f}"})
    for model in comparison.models:
        memory = model.peak_memory_mb
        found.append(
            {
                "model": model.name,
                **{score: spread(model.mean(score), model.sd(score)) for score in metrics.SCORES},
                "gap": MISSING,
                "seeds": _seeds(comparison, model.name, model.seeds),
                "epoch": duration(model.seconds_per_epoch),
                "total": duration(model.seconds),
                "memory": MISSING if memory is None else f"{memory:,.0f} MB",
                "parameters": f"{model.parameters:,}",
            }
        )
        if comparison.protocol == "test-oracle" and model.gap is not None:
            found.append(empty | _oracle(model) | {"gap": signed(model.gap), "seeds": str(len(model.seeds))})
    for name in dict.fromkeys(run.model for run in comparison.broken):
        if name not in {model.name for model in comparison.models}:
            found.append(empty | {"model": name, "weighted_f1": FAILED, "seeds": _seeds(comparison, name, ())})
    return found


def _seeds(comparison: Comparison, name: str, there: Sequence[int]) -> str:
    """How many seeds of a model there are, and of how many where some failed."""
    wanted = {run.seed for run in comparison.broken if run.model == name} | set(there)
    return f"{len(there)} of {len(wanted)}" if len(wanted) > len(there) else str(len(there))


def ceiling_name(view: str) -> str:
    """What tables call the accuracy of an optimal rule.

    Example:
        >>> ceiling_name("full"), ceiling_name("blind to speakers")
        ('ceiling (exact)', 'ceiling, blind to speakers')
    """
    return CEILING if view == "full" else f"ceiling, {view}"


def is_ceiling(row: Row) -> bool:
    """Whether a row is the accuracy of an optimal rule, not of a model."""
    return row["model"] == CEILING or row["model"].startswith("ceiling, ")


def _oracle(model: Model) -> Row:
    values = {score: model.oracle_values(score) for score in metrics.SCORES}
    scores = {name: spread(v.mean(), v.std(ddof=1) if len(v) > 1 else None) for name, v in values.items()}
    return {"model": f"{model.name}{ORACLE}", **scores}


def is_oracle(row: Row) -> bool:
    """Whether the scores of a row were chosen on test."""
    return row["model"].endswith(ORACLE) and row.get("gap", MISSING) != MISSING


def pair_rows(comparison: Comparison) -> list[Row]:
    """One row per pair that is compared: difference in points, interval, p-values and the verdict in words."""
    return [_pair(pair) for pair in comparison.pairs]


def _pair(pair: Pair) -> Row:
    return {
        "model": f"{pair.first} − {pair.second}",
        "difference": signed(pair.difference),
        "interval": MISSING if pair.interval is None else " to ".join(map(signed, pair.interval)),
        "p": _p(float(pair.found.p)),
        "p_holm": _p(pair.p_holm) if pair.comparisons > 1 else MISSING,
        "verdict": pair.verdict,
    }


def _p(value: float) -> str:
    return MISSING if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def used(columns: Mapping[str, str], found: Sequence[Row]) -> dict[str, str]:
    """The columns that hold something in any row.

    Example:
        >>> used({"model": "Model", "gap": "Gap"}, [{"model": "a", "gap": "–"}])
        {'model': 'Model'}
    """
    return {key: header for key, header in columns.items() if any(row[key] != MISSING for row in found)}


def remarks(comparison: Comparison) -> list[str]:
    """What must be said below the table."""
    found = [comparison.significance]
    found += [PAIRS_MEANING.format(samples=comparison.pairs[0].samples)] if comparison.pairs else []
    found += comparison.notes
    found += [CEILING_MEANING] if comparison.dataset.ceiling is not None else []
    if comparison.protocol == "test-oracle":
        unknown = [model.name for model in comparison.models if model.gap is None]
        found += [GAP_MEANING] + ([f"No best epoch on test is recorded for {', '.join(unknown)}."] if unknown else [])
    return [remark for remark in found if remark]


def spread(mean: float, sd: float | None) -> str:
    """Mean ± standard deviation in percent.

    Example:
        >>> spread(0.7567, 0.0045), spread(0.5, None)
        ('75.67 ± 0.45', '50.00')
    """
    return f"{100 * mean:.2f}" + ("" if sd is None else f" ± {100 * sd:.2f}")


def signed(fraction: float) -> str:
    """A difference in points, with its sign.

    Example:
        >>> signed(0.0123), signed(-0.002)
        ('+1.23', '−0.20')
    """
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


def markdown(results: Sequence[Result], **choices: Any) -> str:
    """Return the comparison in Markdown, one section per dataset and protocol.

    Args:
        results: of any number of datasets.
        choices: `baseline`, `all_pairs` and `broken` of `statistics.compare_all`.

    Raises:
        MerZooError: results cannot share a table, see `statistics.compare`.
    """
    comparisons = compare_all(results, **choices)
    parts = []
    for comparison in comparisons:
        parts.append(f"## {markdown_text(title(comparison, comparisons))}, in %")
        if comparison.protocol == "test-oracle":
            parts.append(f"**{WATERMARK}.** {markdown_text(WATERMARK_MEANING)}")
        for columns, found in _tables(comparison, SCORE_COLUMNS | COST_COLUMNS):
            parts.append(markdown_table(columns, found))
        parts += [f"**Warning about this data:** {markdown_text(text)}" for text in comparison.dataset.warnings]
        parts += [markdown_text(remark) for remark in remarks(comparison)]
    return "\n\n".join(parts) + "\n"


def latex(results: Sequence[Result], **choices: Any) -> str:
    r"""Return the comparison as LaTeX tables (of the package booktabs), one or two per dataset and protocol.

    Args:
        results: of any number of datasets.
        choices: `baseline`, `all_pairs` and `broken` of `statistics.compare_all`.

    Raises:
        MerZooError: results cannot share a table, see `statistics.compare`.
    """
    comparisons = compare_all(results, **choices)
    parts = [r"% needs \usepackage{booktabs}; with names beyond Latin letters, XeLaTeX or LuaLaTeX"]
    for comparison in comparisons:
        caption = [f"{title(comparison, comparisons)}, in %."]
        caption += ["Bold: best; underlined: second best."] if len(comparison.models) > 1 else []
        caption += [f"{WATERMARK}: {WATERMARK_MEANING}"] if comparison.protocol == "test-oracle" else []
        caption += [f"Warning about this data: {warning}" for warning in comparison.dataset.warnings]
        for columns, found in _tables(comparison, SCORE_COLUMNS):
            lines = [" & ".join(latex_text(header) for header in columns.values()) + r" \\ \midrule"]
            marks = _marks(comparison, found) if "weighted_f1" in columns else {}
            lines += [
                " & ".join(marks.get((row["model"], key), "%s") % latex_text(row[key]) for key in columns) + r" \\"
                for row in found
            ]
            body = "\n  ".join(lines)
            name = "p{3.1cm}" if max(len(row["model"]) for row in found) > 18 else "l"
            form = "".join({"model": name, "verdict": "p{2.7cm}"}.get(key, "r") for key in columns)
            parts.append(
                "\\begin{table}\n\\centering\\footnotesize\\setlength{\\tabcolsep}{3pt}\n"
                f"\\caption{{{latex_text(' '.join(caption))}}}\n\\begin{{tabular}}{{{form}}}\n  \\toprule\n  {body}\n"
                "  \\bottomrule\n\\end{tabular}\n\\end{table}"
            )
            caption = [caption[0], *remarks(comparison)]
    return "\n\n".join(parts) + "\n"


def _marks(comparison: Comparison, found: Sequence[Row]) -> dict[tuple[str, str], str]:
    """Model and score -> how LaTeX sets it: best bold, second best underlined; what prints alike shares a place."""
    models = [row for row in found if row["model"] in {model.name for model in comparison.models}]
    marks: dict[tuple[str, str], str] = {}
    for score in metrics.SCORES:
        printed = {row["model"]: row[score].partition(" ")[0] for row in models}
        ranks = sorted(set(printed.values()), key=float, reverse=True)
        for form, value in zip((r"\textbf{%s}", r"\underline{%s}"), ranks, strict=False):
            marks |= {(name, score): form for name, own in printed.items() if own == value and len(ranks) > 1}
    return marks


def _tables(comparison: Comparison, columns: Mapping[str, str]) -> list[tuple[dict[str, str], list[Row]]]:
    """The table of models and, if any are compared, the table of pairs; without the columns nobody fills."""
    tables = ((columns, rows(comparison)), (PAIR_COLUMNS, pair_rows(comparison)))
    return [(used(names, found), found) for names, found in tables if found]


def markdown_table(columns: Mapping[str, str], found: Sequence[Mapping[str, str]]) -> str:
    """Return rows as a Markdown table, numbers to the right.

    Example:
        >>> print(markdown_table({"model": "Model", "f1": "F1"}, [{"model": "a|b", "f1": "70.0"}]))
        | Model | F1 |
        |:--|--:|
        | a\\|b | 70.0 |
    """
    sides = [":--" if key in ("model", "verdict") else "--:" for key in columns]
    cells = [list(columns.values()), *([markdown_text(row[key]) for key in columns] for row in found)]
    head, *body = [f"| {' | '.join(line)} |" for line in cells]
    return "\n".join([head, f"|{'|'.join(sides)}|", *body])


def _escaper(replaced: Mapping[str, str]) -> Callable[[str], str]:
    table = str.maketrans(dict(replaced))
    return lambda text: visible(text).translate(table)


markdown_text = _escaper({**{c: f"\\{c}" for c in "\\`*_[]|~$#"}, "<": "&lt;", ">": "&gt;", "&": "&amp;"})
latex_text = _escaper(
    {
        **{c: f"\\{c}" for c in "&%$#_{}"},
        **{c: f"{{{c}}}" for c in "[]*"},  # after a line break they would be an argument of it
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "|": r"\textbar{}",
        "^": r"\textasciicircum{}",
        "<": r"$<$",
        ">": r"$>$",
        "±": r"$\pm$",
        "−": r"$-$",
        "–": "--",
    }
)
