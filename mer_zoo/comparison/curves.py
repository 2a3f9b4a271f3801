"""The figures of what changes from epoch to epoch: scores, losses, balancing rates, contributions and lambda."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from mer_zoo.comparison.plots import Figure, draw, legend, look_of, short
from mer_zoo.comparison.statistics import Comparison, Model
from mer_zoo.results.result import Result

SMOOTHED = 5
"""Epochs whose mean a balancing rate is drawn as: what is noted is that of the last step alone."""

MOST_LINES = 6
"""Lines in a figure; of more, those of the same stage and nodes are averaged, then those of the same stage."""


def curves(comparison: Comparison, ending: str, caption: str, *, percent: bool) -> Iterator[Figure]:
    """One figure per history key with this ending, such as `validation_weighted_f1`."""
    factor = 100 if percent else 1
    keys = dict.fromkeys(k for m in comparison.models for run in m.all_runs for h in run.history for k in h)
    for key in (key for key in keys if key.endswith(ending)):
        shown = [model for model in comparison.models if any(_series(run, key)[0] for run in model.all_runs)]
        if not shown:
            continue
        what = key.removesuffix(ending).replace("_", " ").strip()

        def paint(canvas: Canvas, key: str = key, shown: list[Model] = shown, what: str = what) -> None:
            axes = canvas.subplots()
            for i, model in enumerate(shown):
                look = look_of(comparison.models.index(model))
                marker = look.pop("marker")
                epochs, mean, sd = _band([_series(run, key) for run in model.all_runs])
                mean, sd = factor * mean, factor * sd
                axes.plot(epochs, mean, linewidth=1.6, label=short(model.name), zorder=2 + i, **look)
                low, high = (np.clip(end, 0, 100) if percent else end for end in (mean - sd, mean + sd))
                axes.fill_between(epochs, low, high, color=look["color"], alpha=0.15, linewidth=0)
                if percent:
                    chosen = np.mean([run.chosen_epoch for run in model.all_runs])
                    at = float(np.interp(chosen, epochs, mean))
                    axes.plot(chosen, at, marker, color=look["color"], markersize=5, zorder=50)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_xlabel("Epoch" + (" (mark: mean of the chosen ones)" if percent else ""))
            axes.set_ylabel(f"{what.capitalize()} weighted F1, %" if percent else f"{what} loss".strip().capitalize())
            for line in legend(axes).get_lines():
                line.set(linewidth=2, alpha=1)

        ends = [f"{m.name} after {np.mean([run.epochs_run for run in m.all_runs]):.0f} epochs" for m in shown]
        alt = f"{what} {ending.replace('_', ' ')} over epochs, mean ± standard deviation of the runs; "
        alt += f"training ended for {', '.join(ends)}."
        on_test = what == "test"
        yield draw(f"{caption}, {what}".rstrip(", "), alt.strip().capitalize(), 2.9, paint, oracle=on_test)


def _series(run: Result, key: str) -> tuple[list[float], list[float]]:
    """Epochs and values of a history key where both are numbers."""
    found = [(h.get("epoch"), h.get(key)) for h in run.history]
    numbers = [(e, v) for e, v in found if _number(e) and _number(v)]
    return [e for e, _ in numbers], [v for _, v in numbers]  # type: ignore[misc]


def _band(series: list[tuple[list[float], list[float]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Epochs, mean and standard deviation of the runs; one that has stopped stays where it was.

    Otherwise the mean would jump where the best or the worst run stops.
    """
    epochs = np.unique(np.concatenate([np.array(e, dtype=float) for e, _ in series]))
    each = np.array([np.interp(epochs, e, v) for e, v in series if e])
    return epochs, each.mean(0), each.std(0, ddof=min(len(each) - 1, 1))


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def balancing_rates(model: Model) -> Iterator[Figure]:
    """How far balancing held each modality back, where runs noted it."""
    axis = f"Balancing rate, mean of {SMOOTHED} epochs"
    yield from _noted(model, "rates", "Balancing rate", axis, "of every modality", smoothed=SMOOTHED)


def contributions(model: Model) -> Iterator[Figure]:
    """How much each modality contributes to decisions on validation, where runs noted it."""
    whose = "of every modality, in points of probability, mean of the validation utterances,"
    yield from _noted(model, "contributions", "Contribution", "Probability lost without it, points", whose, factor=100)


def lambdas(model: Model) -> Iterator[Figure]:
    """How much each differential attention takes off with its second map, where it is learnt."""
    yield from _noted(model, "lambda", "Lambda", "Lambda", "of every differential attention, mean of its heads")


def _noted(
    model: Model, key: str, name: str, axis: str, whose: str, *, smoothed: int = 1, factor: int = 1
) -> Iterator[Figure]:
    """One figure of what the runs of a model noted under a key as name -> number; none where nothing moves."""
    found: dict[str, list[tuple[list[float], list[float]]]] = {}
    for run in model.all_runs:
        lines: dict[str, dict[float, float]] = {}
        for entry in run.history:
            noted, epoch = entry.get(key), entry.get("epoch")
            if isinstance(noted, dict) and isinstance(epoch, int | float):
                for place, value in noted.items():
                    if _number(value):
                        lines.setdefault(place, {})[epoch] = value  # type: ignore[assignment]
        for place, line in lines.items():
            found.setdefault(place, []).append((list(line), [factor * value for value in line.values()]))
    for depth in (2, 1):
        if len(found) > MOST_LINES:
            merged: dict[str, list[tuple[list[float], list[float]]]] = {}
            for place, each in found.items():
                merged.setdefault(", ".join(place.split(", ")[:depth]), []).extend(each)
            found = merged
    if not any(np.ptp(values) > 0 for each in found.values() for _, values in each):
        return
    bands = {place: _band(each) for place, each in found.items()}

    def paint(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for i, (place, (epochs, mean, sd)) in enumerate(bands.items()):
            look = look_of(i)
            look.pop("marker")
            mean, sd = _running(mean, smoothed), _running(sd, smoothed)
            axes.plot(epochs, mean, linewidth=1.6, label=short(place), **look)
            axes.fill_between(epochs, mean - sd, mean + sd, color=look["color"], alpha=0.12, linewidth=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("Epoch")
        axes.set_ylabel(axis)
        legend(axes)

    last = ", ".join(f"{place} {mean[-1]:.3g}" for place, (_, mean, _) in bands.items())
    alt = f"{name} {whose} over epochs, mean ± standard deviation of the runs; at the end on average {last}."
    yield draw(f"{name}{'s' * key.endswith('s')} of {model.name}", alt, 3.0, paint)


def _running(values: np.ndarray, count: int) -> np.ndarray:
    """The mean of so many neighbours, of fewer at the ends."""
    half = count // 2
    return np.array([values[max(i - half, 0) : i + half + 1].mean() for i in range(len(values))])
