"""One row per run: the small file that is committed, and that leaderboards are made from."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from mer_zoo.comparison.metrics import SCORES
from mer_zoo.comparison.results import Result, write_atomically

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
