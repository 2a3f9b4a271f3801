"""The figures of the report: SVG text with a sentence that says the same to those who cannot see it."""

from __future__ import annotations

import io
import textwrap
import warnings
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.legend import Legend
from rich.cells import cell_len

from mer_zoo.comparison.inference import Interval
from mer_zoo.comparison.statistics import Comparison, Model
from mer_zoo.comparison.table import visible

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
LINE = 22  # columns of a name; a Chinese character takes two


@dataclass(frozen=True)
class Figure:
    """A drawn figure: its caption, what it shows in words, and an image address that holds the whole SVG.

    Attributes:
        oracle: whether it shows scores chosen on test, or that a choice on test would be made by.
        against: its difference to another, which is folded away beneath it.
    """

    caption: str
    alt: str
    source: str
    oracle: bool = False
    against: Figure | None = None


def figures(comparison: Comparison) -> list[Figure]:
    """Draw the scores of a comparison, against cost and per class."""
    drawn = [_scores(comparison, "weighted_f1", "Weighted F1")]
    if comparison.dataset.ceiling is not None:
        drawn.append(_scores(comparison, "accuracy", "Accuracy"))
    drawn += [_cost(comparison), _class_f1(comparison)]
    return drawn


def draw(
    caption: str,
    alt: str,
    height: float,
    paint: Callable[[Canvas], None],
    *,
    oracle: bool = False,
    against: Figure | None = None,
) -> Figure:
    """Draw a figure.

    Args:
        caption, alt, oracle, against: of the figure.
        height: in inches.
        paint: draws on the canvas.
    """
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has fonts for it
        canvas = Canvas(figsize=(WIDTH, height), layout="constrained")
        paint(canvas)
        text = io.StringIO()
        canvas.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    # An image of its own: the ids inside one SVG cannot meet those of another.
    return Figure(
        caption, alt, "data:image/svg+xml;base64," + b64encode(text.getvalue().encode()).decode(), oracle, against
    )


def look_of(index: int) -> dict[str, Any]:
    """Colour, marker and line style of the model at this place; the first 28 differ with lines, and with markers."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[(index + index // len(COLOURS)) % len(MARKERS)],
        "linestyle": DASHES[index // len(COLOURS) % len(DASHES)],
    }


def legend(axes: Axes) -> Legend:
    """Put a legend of all that is drawn above the axes, for which the figure grows.

    Args:
        axes: of the figure.
    """
    canvas = axes.get_figure(root=True)
    assert canvas is not None
    for columns in (2, 1):
        made = canvas.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=columns, fontsize=9)
        size = made.get_window_extent()
        if columns == 1 or size.width < canvas.bbox.width:
            break
        made.remove()
    canvas.set_figheight(canvas.get_figheight() + size.height / canvas.dpi)
    return made


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
        axes.set_yticks(range(len(models)), [short(model.name) for model in models])
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
    return draw(caption, alt, 1.1 + len(models) * _room([model.name for model in models], 0.42), paint, oracle=oracle)


def _cost(comparison: Comparison) -> Figure:
    models = comparison.models

    def paint(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for i, model in enumerate(models):
            look = look_of(i) | {"linestyle": "none"}
            spread = 100 * (model.sd("weighted_f1") or 0)
            mean = 100 * model.mean("weighted_f1")
            axes.errorbar(max(model.seconds, 1e-3), mean, yerr=spread, label=short(model.name), capsize=3, **look)
        axes.set_xscale("log")
        axes.margins(x=0.15, y=0.15)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        low, high = axes.get_xlim()
        # over more powers of ten they would run into one another
        between = "2345678" if high < 8 * low else "25" if high < 100 * low else ""
        axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in between else "")
        axes.set_xlabel("Seconds per seed (log scale)")
        axes.set_ylabel("Weighted F1 on test, %")
        legend(axes)

    points = "; ".join(f"{m.name} {100 * m.mean('weighted_f1'):.2f} % in {m.seconds:.3g} s" for m in models)
    return draw("Score against time (bar: ± standard deviation)", f"{points}.", 2.8, paint)


def _class_f1(comparison: Comparison) -> Figure:
    models, names = comparison.models, comparison.dataset.label_names
    support = models[0].confusion[0].sum((0, 2))
    found = [comparison.class_f1(model) for model in models]

    def paint(canvas: Canvas) -> None:
        axes = canvas.subplots()
        for i, model in enumerate(models):
            look = look_of(i) | {"linestyle": "none"}
            places = np.arange(len(names)) + (i - (len(models) - 1) / 2) * min(0.14, 0.7 / len(models))
            value, low, high = (100 * np.array([getattr(one, end) for one in found[i]]) for end in Interval._fields)
            value[support == 0] = np.nan
            reach = np.nan_to_num(np.maximum([value - low.clip(0), high.clip(max=100) - value], 0))
            axes.errorbar(value, places, xerr=reach, label=short(model.name), markersize=5, elinewidth=0.8, **look)
        labels = [f"{short(name)} ({count:,})" for name, count in zip(names, support, strict=True)]
        axes.set_yticks(range(len(names)), labels)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(left=max(axes.get_xlim()[0], -5), right=min(axes.get_xlim()[1], 105))
        axes.set_xlabel("F1 on test, %, mean over seeds")
        legend(axes)

    alt = "F1 per class in percent with its interval; the table below has the same numbers."
    height = 1.2 + len(names) * _room(names, 0.22 + 0.07 * len(models))
    return draw("F1 per class (line: 95 % interval; in brackets: utterances)", alt, height, paint)


def confusions(comparison: Comparison) -> Iterator[Figure]:
    """The confusion matrix of every model; against each, its difference to that of the baseline."""
    names = comparison.dataset.label_names
    base = next((model for model in comparison.models if model.name == comparison.baseline), None)
    for model in comparison.models:
        counts, share = model.confusion.sum((0, 1)) / len(model.seeds), _shares(model)
        words = np.vectorize(lambda value, count: f"{value:.0f}\n({count:.0f})")(share, counts)
        hits = ", ".join(f"{name} {share[i, i]:.0f}" for i, name in enumerate(names))
        yield _matrix(
            share,
            words,
            names,
            f"Confusion of {model.name} (% of true class; in brackets: utterances of a seed)",
            f"Confusion matrix of {model.name} over all seeds; percent of each true class found: {hits}.",
            against=None if base is None or base is model else _difference(model, base, names),
        )


def _difference(model: Model, base: Model, names: list[str]) -> Figure:
    points = _shares(model) - _shares(base)
    words = np.vectorize(lambda value: f"{value:+.0f}".replace("-", "−") if round(value) else "0")(points)
    hits = ", ".join(f"{name} {points[i, i]:+.0f}" for i, name in enumerate(names))
    return _matrix(
        points,
        words,
        names,
        f"Confusion of {model.name} minus that of {base.name} (points)",
        f"Points of each true class that {model.name} finds more than {base.name}: {hits}.",
        signed=True,
    )


def _shares(model: Model) -> np.ndarray:
    """Percent of each true class over all seeds, `[C, C]`."""
    counts = model.confusion.sum((0, 1))
    return 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)


def _matrix(
    values: np.ndarray,
    words: np.ndarray,
    names: list[str],
    caption: str,
    alt: str,
    *,
    signed: bool = False,
    against: Figure | None = None,
) -> Figure:
    """A square of true by predicted classes; a difference in two colours, by its sign."""
    most = max(float(np.abs(values).max()), 1.0) if signed else 100.0

    def paint(canvas: Canvas) -> None:
        axes = canvas.subplots()
        axes.imshow(values, cmap="RdBu_r" if signed else "Blues", vmin=-most if signed else 0, vmax=most)
        size = min(8, 72 / len(names))
        for i, row in enumerate(values):
            for j, value in enumerate(row):
                ink = "white" if abs(value) > (0.5 if signed else 0.7) * most else INK
                axes.text(j, i, words[i, j], ha="center", va="center", color=ink, fontsize=size)
        labels = [short(name) for name in names]
        axes.set_xticks(range(len(names)), labels, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), labels)
        axes.set_xlabel("Predicted")
        axes.set_ylabel("True")
        axes.grid(visible=False)
        axes.tick_params(length=0, labelsize=10 if len(names) < 10 else 8)
        for side in axes.spines.values():
            side.set_visible(False)

    return draw(caption, alt, min(1.6 + 0.5 * len(names), WIDTH + 0.5), paint, against=against)


def reliability(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], errors: Mapping[str, float]) -> Figure:
    """How often models are right where they are so sure.

    Args:
        curves: model -> confidence and accuracy of every bin that holds something, 0 to 1.
        errors: model -> expected calibration error.
    """

    def paint(canvas: Canvas) -> None:
        axes = canvas.subplots()
        axes.plot([0, 100], [0, 100], color="#777777", linewidth=1, linestyle="--")
        for i, (name, (confidence, accuracy)) in enumerate(curves.items()):
            axes.plot(
                100 * confidence,
                100 * accuracy,
                label=short(name),
                markersize=4,
                linewidth=1.2,
                clip_on=False,
                **look_of(i),
            )
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_xlabel("Confidence, %")
        axes.set_ylabel("Right, %")
        legend(axes)

    told = "; ".join(f"{name} {100 * error:.1f}" for name, error in errors.items())
    alt = f"Share of right utterances by confidence; expected calibration error in points: {told}."
    return draw("Calibration (dashed: as sure as right)", alt, 3.1, paint)


def short(name: str) -> str:
    """A name as figures show it, in lines of which two fit beside each other."""
    name = visible(name)  # an SVG cannot hold control characters
    return textwrap.fill(name, max(LINE * len(name) // max(cell_len(name), 1), 1))


def _room(names: Iterable[str], least: float) -> float:
    """Inches from one name beside the axes to the next."""
    return max(least, *(0.17 * (short(name).count("\n") + 1) for name in names))
