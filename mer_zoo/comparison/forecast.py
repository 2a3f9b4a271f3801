"""What a suite would run, what is there already, and how long and how large the rest will be by what was measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich import box
from rich.table import Table

from mer_zoo.comparison.executing import whole
from mer_zoo.errors import MerZooError
from mer_zoo.results.identity import Identity
from mer_zoo.results.result import SUFFIX, Result, read_result
from mer_zoo.training.experiment import Experiment, dataset_of


@dataclass(frozen=True)
class Row:
    """The runs of one model on one dataset.

    Attributes:
        model: as tables call it.
        data: name of the dataset.
        runs: all of them.
        there: how many have a result.
        seconds: of one run, the median of those measured with the same recipe, data and device; None: none was.
        memory: megabytes, the most of those runs; None: not known.
    """

    model: str
    data: str
    runs: int
    there: int
    seconds: float | None
    memory: float | None

    @property
    def left(self) -> float | None:
        """Seconds of computation that are left; None: not known."""
        missing = self.runs - self.there
        return 0.0 if not missing else None if self.seconds is None else missing * self.seconds


def forecast(experiments: Sequence[Experiment], folder: Path, keep_weights: bool = False) -> list[Row]:
    """Forecast what is left of experiments from the results in a folder; nothing is written.

    Args:
        experiments: all of a suite.
        folder: where results may lie; they need not be of this suite.
        keep_weights: whether trained models are wanted, too.

    Returns:
        one row per model and dataset, in the order of the experiments.

    Example:
        >>> from mer_zoo.comparison.suite import experiments, read
        >>> forecast(experiments(read("default"))[:3], Path("nowhere"))[0].there
        0
    """
    wanted = {one.identity.run: one for one in experiments}
    measured: dict[str, list[Result]] = defaultdict(list)
    done = set()
    for path in folder.rglob(f"*{SUFFIX}"):
        with suppress(MerZooError):  # what cannot be used will be run again
            result = read_result(path)
            measured[_setting(result.identity, result.environment.device)].append(result)
            if result.run in wanted and whole(path, result, wanted[result.run], keep_weights):
                done.add(result.run)
    groups: dict[tuple[str, str], list[Experiment]] = defaultdict(list)
    for one in experiments:
        groups[one.name, one.fingerprint].append(one)
    rows = []
    for (name, _), group in groups.items():
        first = group[0]
        like = measured[_setting(first.identity, first.device)]
        sizes = [result.peak_memory_mb for result in like if result.peak_memory_mb is not None]
        there = sum(one.identity.run in done for one in group)
        seconds = median(result.seconds.total for result in like) if like else None
        rows.append(Row(name, dataset_of(first.data).name, len(group), there, seconds, max(sizes, default=None)))
    return rows


def table(rows: Sequence[Row]) -> Table:
    """Return a forecast as a table for the terminal."""
    shown = Table(box=box.SIMPLE_HEAD, caption_justify="left", show_edge=False)
    for name in ("Model", "Data"):
        shown.add_column(name, overflow="fold")
    for name in ("Runs", "There", "One run", "Left", "Memory"):
        shown.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        memory = "–" if row.memory is None else f"{row.memory:,.0f} MB"
        shown.add_row(row.model, row.data, str(row.runs), str(row.there), clock(row.seconds), clock(row.left), memory)
    return shown


def sentence(rows: Iterable[Row], workers: int | None) -> str:
    """Return what a forecast comes to.

    Args:
        rows: the forecast.
        workers: how many runs go on at a time; None: not known, as on a cluster.

    Example:
        >>> print(sentence([Row("A", "x", 3, 1, 30.0, 500.0), Row("B", "x", 3, 0, None, None)], workers=2))
        5 of 6 runs are left: about 30 s with 2 workers for what was measured, and 1 model that was never run here (B).
    """
    rows = list(rows)
    runs, there = sum(row.runs for row in rows), sum(row.there for row in rows)
    unknown = list(dict.fromkeys(row.model for row in rows if row.left is None))
    known = sum(row.left or 0.0 for row in rows) / (workers or 1)
    known = max([known, *(row.seconds or 0.0 for row in rows if row.left)])  # a run goes on in one place
    text = f"{runs - there} of {runs} runs are left"
    if runs == there:
        return f"{text}: nothing to do."
    if known:
        by = f"with {workers} worker{'s' * (workers > 1)}" if workers else "one after another"
        text += f": about {clock(known)} {by}" + " for what was measured" * bool(unknown)
    if unknown:
        models = "models that were" if len(unknown) > 1 else "model that was"
        text += f"{', and' if known else ':'} {len(unknown)} {models} never run here ({', '.join(unknown[:5])}"
        text += f", and {len(unknown) - 5} more)" if len(unknown) > 5 else ")"
    return f"{text}."


def clock(seconds: float | None) -> str:
    """Return a time as people say it.

    Example:
        >>> clock(0.34), clock(95.2), clock(7300), clock(None)
        ('0.3 s', '95 s', '2 h 2 min', '–')
    """
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _setting(identity: Identity, device: Any) -> str:
    """What runs that take the same time share."""
    kind = str(device).partition(":")[0]
    return f"{identity.model_copy(update={'seed': 0, 'fold': None}).run} {kind}"
