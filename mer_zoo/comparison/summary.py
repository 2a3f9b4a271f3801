"""One row per run: the small file that is committed, and that leaderboards are made from."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Sequence
from pathlib import Path

from mer_zoo.results.metrics import SCORES
from mer_zoo.results.result import Result, write_atomically

COLUMNS = (
    "dataset", "model", "seed", "fold", "protocol", *SCORES, "ceiling", "validation_weighted_f1", "chosen_epoch",
    "epochs_run", "parameters", "seconds_per_epoch", "seconds_total", "peak_memory_mb", "device", "platform",
    "cpu_count", "python", "torch", "dgl", "mer_zoo", "finished", "run",
)  # fmt: skip


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
        found.append(
            {
                "dataset": r.dataset.name,
                "model": r.recipe_name,
                "seed": r.seed,
                "fold": "" if r.fold is None else r.fold,
                "protocol": r.protocol,
                **{score: round(getattr(r.metrics.test, score), 6) for score in SCORES},
                "ceiling": "" if r.dataset.ceiling is None else round(r.dataset.ceiling, 6),
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


def write_csv(results: Sequence[Result], path: Path) -> Path:
    """Write the rows as CSV, atomically."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows(results))
    write_atomically(path, text.getvalue())
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read rows that `write_csv` wrote."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def markdown(table: Sequence[dict[str, str]]) -> str:
    """Return a Markdown table of mean ± standard deviation per model, best first, the ceiling on top.

    Folds of one seed are averaged here; `comparison_table` pools their predictions instead.
    """
    by_model: dict[str, dict[str, list[dict[str, str]]]] = {}
    for row in table:
        by_model.setdefault(row["model"], {}).setdefault(row["seed"], []).append(row)

    def spread(model: str, column: str) -> tuple[float, str]:
        seeds = [statistics.fmean(float(row[column]) for row in rows) for rows in by_model[model].values()]
        sd = f" ± {100 * statistics.stdev(seeds):.1f}" if len(seeds) > 1 else ""
        return statistics.fmean(seeds), f"{100 * statistics.fmean(seeds):.1f}{sd}"

    lines = ["| model | weighted F1 | accuracy | parameters | seconds per epoch |", "|---|---|---|---|---|"]
    if table[0]["ceiling"]:
        lines.append(f"| *exact ceiling* | – | *{100 * float(table[0]['ceiling']):.1f}* | – | – |")
    for model in sorted(by_model, key=lambda m: -spread(m, "weighted_f1")[0]):
        rows = [row for seed in by_model[model].values() for row in seed]
        seconds = statistics.median(float(row["seconds_per_epoch"]) for row in rows)
        scores = " | ".join(spread(model, column)[1] for column in ("weighted_f1", "accuracy"))
        lines.append(f"| {model} | {scores} | {int(rows[0]['parameters']):,} | {seconds:.2f} |")
    return "\n".join(lines)
