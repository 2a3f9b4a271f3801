"""One row per run: the small file that is committed, and that leaderboards are made from."""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from mer_zoo.comparison.table import (
    MISSING,
    WATERMARK,
    WATERMARK_MEANING,
    ceiling_name,
    markdown_table,
    markdown_text,
    signed,
    used,
)
from mer_zoo.errors import MerZooError
from mer_zoo.results.metrics import SCORES
from mer_zoo.results.result import Result
from mer_zoo.results.writing import write_atomically

ORACLE = tuple(f"oracle_{score}" for score in SCORES)
"""The same runs at the epoch that is best on test; the gap is the difference in weighted F1."""

COLUMNS = (
    "dataset", "model", "seed", "fold", "protocol", "split", "precision", *SCORES, *ORACLE, "gap", "watermark",
    "ceilings", "validation_weighted_f1", "chosen_epoch", "epochs_run", "parameters", "seconds_per_epoch",
    "seconds_total", "peak_memory_mb", "device", "platform", "cpu_count", "python", "torch", "dgl", "mer_zoo",
    "finished", "run",
)  # fmt: skip


FORMULA = ("=", "+", "-", "@", "\t", "\r")

MARKDOWN_COLUMNS = {
    "model": "model",
    "weighted_f1": "weighted F1",
    "accuracy": "accuracy",
    "gap": "gap",
    "parameters": "parameters",
    "seconds_per_epoch": "seconds per epoch",
}


def rows(results: Sequence[Result]) -> list[dict[str, object]]:
    """Return what tells runs apart and what they scored, one mapping per run.

    Example:
        >>> rows([])
        []
    """
    found = []
    for r in results:
        validation = r.metrics.validation
        where = r.environment
        oracle = r.oracle_metrics
        found.append(
            {
                "dataset": r.dataset.name,
                "model": r.recipe_name,
                "seed": r.seed,
                "fold": "" if r.fold is None else r.fold,
                "protocol": r.protocol,
                "split": json.dumps(r.split_rule) if r.split_rule else "",
                "precision": r.precision,
                **{score: round(getattr(r.metrics.test, score), 6) for score in SCORES},
                **{f"oracle_{score}": round(getattr(oracle, score), 6) if oracle else "" for score in SCORES},
                "gap": round(oracle.weighted_f1 - r.metrics.test.weighted_f1, 6) if oracle else "",
                "watermark": f"oracle scores {WATERMARK}" if r.protocol == "test-oracle" else "",
                "ceilings": "; ".join(f"{view}: {accuracy:.6f}" for view, accuracy in r.dataset.ceilings.items()),
                "validation_weighted_f1": "" if validation is None else round(validation.weighted_f1, 6),
                "chosen_epoch": r.chosen_epoch,
                "epochs_run": r.epochs_run,
                "parameters": r.parameters,
                "seconds_per_epoch": round(r.seconds.per_epoch, 4),
                "seconds_total": round(r.seconds.total, 2),
                "peak_memory_mb": "" if r.peak_memory_mb is None else round(r.peak_memory_mb),
                "device": where.device,
                "platform": where.platform,
                "cpu_count": where.cpu_count,
                "python": where.python,
                "torch": where.torch,
                "dgl": where.dgl,
                "mer_zoo": where.mer_zoo,
                "finished": r.finished.date().isoformat(),
                "run": r.run,
            }
        )
    return found


def as_csv(results: Sequence[Result]) -> str:
    """Return the rows as CSV; a name that a spreadsheet would run as a formula gets an apostrophe first.

    Example:
        >>> as_csv([])[:19]
        'dataset,model,seed,'
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows(results):
        writer.writerow({key: _harmless(value) if isinstance(value, str) else value for key, value in row.items()})
    return text.getvalue()


def write_csv(results: Sequence[Result], path: Path) -> Path:
    """Write the rows as CSV, atomically."""
    write_atomically(path, as_csv(results))
    return path


def _harmless(text: str) -> str:
    return f"'{text}" if text.startswith(FORMULA) else text


def as_json(results: Sequence[Result]) -> str:
    """Return the rows as JSON, null where nothing is known.

    Example:
        >>> as_json([])
        '[]\\n'
    """
    found = [{key: None if value == "" else value for key, value in row.items()} for row in rows(results)]
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read rows that `write_csv` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    return [{key: v[1:] if v[:1] == "'" and v[1:].startswith(FORMULA) else v for key, v in r.items()} for r in found]


def markdown(table: Sequence[Mapping[str, str]]) -> str:
    """Return a Markdown table of mean ± standard deviation per model, best first, the ceiling on top.

    Scores chosen on test stand in rows of their own, with the gap, under a watermark. Folds of one seed are averaged
    here; `comparison_table` pools their predictions instead.

    Raises:
        MerZooError: the rows are of several datasets, protocols, split rules or precisions.
    """
    for kind in ("dataset", "protocol", "split", "precision"):
        kinds = sorted({row.get(kind, "") for row in table})
        if len(kinds) > 1:
            raise MerZooError(f"{kind}: {', '.join(kinds)} cannot share a table. Give the rows of one.")
    by_model: dict[str, dict[str, list[Mapping[str, str]]]] = {}
    for row in table:
        by_model.setdefault(row["model"], {}).setdefault(row["seed"], []).append(row)

    def mean(model: str, column: str) -> tuple[float, str]:
        seeds = [statistics.fmean(float(row[column]) for row in rows) for rows in by_model[model].values()]
        sd = f" ± {100 * statistics.stdev(seeds):.1f}" if len(seeds) > 1 else ""
        return statistics.fmean(seeds), f"{100 * statistics.fmean(seeds):.1f}{sd}"

    found, empty = [], dict.fromkeys(MARKDOWN_COLUMNS, MISSING)
    for view, _, accuracy in (entry.rpartition(": ") for entry in table[0]["ceilings"].split("; ") if entry):
        found.append(empty | {"model": ceiling_name(view), "accuracy": f"{100 * float(accuracy):.1f}"})
    for model in sorted(by_model, key=lambda name: -mean(name, "weighted_f1")[0]):
        runs = [row for seed in by_model[model].values() for row in seed]
        scores = {score: mean(model, score)[1] for score in ("weighted_f1", "accuracy")}
        seconds = statistics.median(float(row["seconds_per_epoch"]) for row in runs)
        costs = {"parameters": f"{int(runs[0]['parameters']):,}", "seconds_per_epoch": f"{seconds:.2f}"}
        found.append(empty | {"model": model} | scores | costs)
        if all(row.get("watermark") and row["gap"] for row in runs):
            scores = {score: mean(model, f"oracle_{score}")[1] for score in ("weighted_f1", "accuracy")}
            found.append(empty | {"model": f"{model} (oracle)"} | scores | {"gap": signed(mean(model, "gap")[0])})
    watermarked = any(row.get("watermark") for row in table)
    mark = f"**{WATERMARK}.** {markdown_text(WATERMARK_MEANING)}\n\n" if watermarked else ""
    return mark + markdown_table(used(MARKDOWN_COLUMNS, found), found)
