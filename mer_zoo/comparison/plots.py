"""The figures of the report: SVG text with a sentence that says the same to those who cannot see it."""

from __future__ import annotations

import io
import textwrap
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.legend import Legend

from mer_zoo.comparison.statistics import Comparison, Model
from mer_zoo.comparison.table import visible
from mer_zoo.results import metrics
from mer_zoo.results.result import Result

# Each has a contrast of at least 3:1 on white and stays apart from its neighbours for the colour-blind.
COLOURS = ("#0072b2", "#d55e00", "#007a5a", "#aa3377", "#332288", "#8a6d00", "#555555")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", "--", ":", "-.")
INK = "#1a1a1a"
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#777777",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e3e3e3",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",  # real text: any script, and small files
    "svg.hashsalt": "mer_zoo",  # the same results give the same file
    "text.parse_math": False,  # a name may hold a dollar sign
}
WIDTH = 5.0  # inches: text stays readable when a phone shrinks the figure to its width


@dataclass(frozen=True)
class Figure:
    """A drawn figure: its caption, what it shows in words, and an image address that holds the whole SVG.

    Attributes:
        oracle: whether it shows scores chosen on test, or that a choice on test would be made by.
    """

    caption: str
    alt: str
    source: str
    oracle: bool = False


def figures(comparison: Comparison) -> list[Figure]:
    """Draw all figures that the results of a comparison allow: curves need a history, rates a balancing strategy."""
    drawn = [_scores(comparison, "weighted_f1", "Weighted F1")]
    if comparison.dataset.ceiling is not None:
        drawn.append(_scores(comparison, "accuracy", "Accuracy"))
    drawn += [_cost(comparison), _class_f1(comparison)]
    drawn += _curves(comparison, "weighted_f1", "Weighted F1 per epoch", percent=True)
    drawn += _curves(comparison, "loss", "Loss per epoch", percent=False)
    drawn += [figure for model in comparison.models for figure in _rates(model)]
    drawn += [_confusion(model, comparison.dataset.label_names) for model in comparison.models]
    return drawn


def _draw(caption: str, alt: str, height: float, paint: Callable[[Canvas], None], *, oracle: bool = False) -> Figure:
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has fonts for it
        canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
        paint(canvas)
        text = io.StringIO()
        canvas.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    # An image of its own: the ids inside one SVG cannot meet those of another.
    return Figure(caption, alt, "data:image/svg+xml;base64," + b64encode(text.getvalue().encode()).decode(), oracle)


def _look(index: int) -> dict[str, Any]:
    """Colour, marker and line style of the model at this place, distinct for the first 28."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index // len(COLOURS) % len(DASHES)],
    }


def _legend(axes: Axes, count: int) -> Legend:
    return axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=2 if count > 1 else 1, fontsize=9, borderaxespad=0.2
    )


def _scores(comparison: Comparison, score: str, name: str) -> Figure:
    models = comparison.models
    ceiling = comparison.dataset.ceiling if score == "accuracy" else None
    oracle = comparison.protocol == "test-oracle"

    def paint(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for row, model in enumerate(models):
            values = 100 * model.values(score)
            axes.plot(values, np.full(len(values), row), "o", color=COLOURS[0], alpha=0.75, markeredgecolor="white")
            axes.plot([values.mean()] * 2, [row - 0.3, row + 0.3], color=INK, linewidth=2)
            if oracle:
                chosen = 100 * model.oracle_values(score)
                axes.plot(chosen, np.full(len(chosen), row + 0.2), "x", color=COLOURS[1])
        if ceiling is not None:
            axes.axvline(100 * ceiling, color=COLOURS[1], linestyle="--")
            axes.annotate(
                f"ceiling {100 * ceiling:.1f}",
                (100 * ceiling, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="right",
                color=COLOURS[1],
            )
        axes.set_yticks(range(len(models)), [_short(model.name) for model in models])
        axes.set_ylim(len(models) - 0.5, -0.5)
        axes.set_xlabel(f"{name} on test, %")
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.08)

    means = "; ".join(f"{model.name} {100 * model.mean(score):.2f}" for model in models)
    alt = f"{name} in percent, mean over seeds: {means}."
    if oracle:
        known = [model for model in models if model.gap is not None]
        best = "; ".join(f"{model.name} {100 * model.oracle_values(score).mean():.2f}" for model in known)
        alt += f" At the best epochs on test: {best or 'not recorded'}."
    alt += "" if ceiling is None else f" The ceiling is {100 * ceiling:.2f}."
    caption = f"{name} (dot: one seed; bar: mean{'; cross: its best epoch on test' if oracle else ''})"
    return _draw(caption, alt, 1.1 + 0.42 * len(models), paint, oracle=oracle)


def _cost(comparison: Comparison) -> Figure:
    models = comparison.models

    def paint(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for i, model in enumerate(models):
            look = _look(i) | {"linestyle": "none"}
            spread = 100 * (model.sd("weighted_f1") or 0)
            mean = 100 * model.mean("weighted_f1")
            axes.errorbar(max(model.seconds, 1e-3), mean, yerr=spread, label=_short(model.name), capsize=3, **look)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
        axes.set_xlabel("Seconds per seed (log scale)")
        axes.set_ylabel("Weighted F1 on test, %")
        axes.margins(x=0.15, y=0.15)
        _legend(axes, len(models))

    points = "; ".join(f"{m.name} {100 * m.mean('weighted_f1'):.2f} % in {m.seconds:.3g} s" for m in models)
    return _draw("Score against time (bar: ± standard deviation)", f"{points}.", 2.9 + 0.1 * len(models), paint)


def _class_f1(comparison: Comparison) -> Figure:
    models, names = comparison.models, comparison.dataset.label_names
    support = models[0].confusion[0].sum((0, 2))
    values = [100 * metrics.per_class(model.confusion.sum(1))["f1"].mean(0) for model in models]

    def paint(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for i, model in enumerate(models):
            look = _look(i) | {"linestyle": "none"}
            offset = (i - (len(models) - 1) / 2) * min(0.14, 0.7 / len(models))
            axes.plot(values[i], np.arange(len(names)) + offset, label=_short(model.name), markersize=5, **look)
        labels = [f"{_short(name)} ({count:,})" for name, count in zip(names, support, strict=True)]
        axes.set_yticks(range(len(names)), labels)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel("F1 on test, %, mean over seeds")
        axes.margins(x=0.05)
        _legend(axes, len(models))

    alt = "F1 per class in percent; the table below has the same numbers."
    height = 1.3 + 0.1 * len(models) + len(names) * (0.22 + 0.07 * len(models))
    return _draw("F1 per class (in brackets: utterances)", alt, height, paint)


def _curves(comparison: Comparison, ending: str, caption: str, *, percent: bool) -> Iterator[Figure]:
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
                look = _look(comparison.models.index(model))
                marker = look.pop("marker")
                epochs, mean, sd = _band([_series(run, key) for run in model.all_runs])
                mean, sd = factor * mean, factor * sd
                axes.plot(epochs, mean, linewidth=1.6, label=_short(model.name), zorder=2 + i, **look)
                axes.fill_between(epochs, mean - sd, mean + sd, color=look["color"], alpha=0.15, linewidth=0)
                if percent:
                    chosen = np.mean([run.chosen_epoch for run in model.all_runs])
                    at = float(np.interp(chosen, epochs, mean))
                    axes.plot(chosen, at, marker, color=look["color"], markersize=5, zorder=50)
            axes.set_xlabel("Epoch" + (" (mark: mean of the chosen ones)" if percent else ""))
            axes.set_ylabel(f"{what.capitalize()} weighted F1, %" if percent else f"{what} loss".strip().capitalize())
            for line in _legend(axes, len(shown)).get_lines():
                line.set(linewidth=2, alpha=1)

        ends = [f"{m.name} after {np.mean([run.epochs_run for run in m.all_runs]):.0f} epochs" for m in shown]
        alt = f"{what} {ending.replace('_', ' ')} over epochs, mean ± deviation of the runs; "
        alt += f"training ended for {', '.join(ends)}."
        height = 3.0 + 0.1 * len(shown)
        on_test = what == "test"
        yield _draw(f"{caption}, {what}".rstrip(", "), alt.strip().capitalize(), height, paint, oracle=on_test)


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
    return epochs, each.mean(0), each.std(0)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rates(model: Model) -> Iterator[Figure]:
    """Balancing rates of a model whose runs logged them."""
    found: dict[str, list[list[tuple[float, float]]]] = {}
    for run in model.all_runs:
        lines: dict[str, list[tuple[float, float]]] = {}
        for entry in run.history:
            rates, epoch = entry.get("rates"), entry.get("epoch")
            if isinstance(rates, dict) and _number(epoch):
                for modality, rate in rates.items():
                    if _number(rate):
                        lines.setdefault(modality, []).append((epoch, rate))  # type: ignore[arg-type]
        for modality, line in lines.items():
            found.setdefault(modality, []).append(line)
    if not found:
        return

    def paint(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for i, (modality, lines) in enumerate(found.items()):
            x, mean, sd = _band([([e for e, _ in line], [r for _, r in line]) for line in lines])
            look: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[i % len(DASHES)]}
            axes.plot(x, mean, linewidth=1.6, label=_short(modality), **look)
            axes.fill_between(x, mean - sd, mean + sd, color=look["color"], alpha=0.15, linewidth=0)
        axes.set_xlabel("Epoch")
        axes.set_ylabel("Balancing rate")
        _legend(axes, len(found))

    last = ", ".join(f"{name} {np.mean([line[-1][1] for line in lines]):.3g}" for name, lines in found.items())
    alt = f"Balancing rate of every modality over epochs, mean ± deviation of the runs; at the end on average {last}."
    yield _draw(f"Balancing rates of {model.name}", alt, 2.8, paint)


def _confusion(model: Model, names: list[str]) -> Figure:
    counts = model.confusion.sum((0, 1))
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)

    def paint(canvas: Canvas) -> None:
        axes = canvas.subplots()
        axes.imshow(share, cmap="Blues", vmin=0, vmax=100)
        size = 8 if len(names) < 10 else 6
        for i, row in enumerate(share):
            for j, value in enumerate(row):
                ink = "white" if value > 70 else INK
                count = counts[i, j] / len(model.seeds)
                axes.text(j, i, f"{value:.0f}\n({count:.0f})", ha="center", va="center", color=ink, fontsize=size)
        short = [_short(name) for name in names]
        axes.set_xticks(range(len(names)), short, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), short)
        axes.set_xlabel("Predicted")
        axes.set_ylabel("True")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(False)

    hits = ", ".join(f"{name} {share[i, i]:.0f}" for i, name in enumerate(names))
    alt = f"Confusion matrix of {model.name} over all seeds; percent of each true class found: {hits}."
    caption = f"Confusion of {model.name} (% of true class; in brackets: utterances of a seed)"
    return _draw(caption, alt, min(1.6 + 0.5 * len(names), 9), paint)


def _short(name: str) -> str:
    name = visible(name)  # an SVG cannot hold control characters
    return textwrap.fill(name, 26)
