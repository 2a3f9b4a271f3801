"""What a comparison shows, in the few sentences that a report begins with; each follows from the tables below it."""

from __future__ import annotations

from collections import Counter

from mer_zoo.comparison.inference import FEWEST_SEEDS, LEVEL, Pair
from mer_zoo.comparison.statistics import Comparison, Model

MOST = 6
"""Differences that are told; the others stand in the table."""

NEARLY_ALL = 0.9
"""A model that predicts one class for a larger share of the utterances is flagged, unless the labels are so too."""


def findings(comparison: Comparison) -> list[str]:
    """Return the findings of a comparison, the most telling first.

    Args:
        comparison: of one dataset.
    """
    best = comparison.models[0]
    has, of = ("has the highest", ":") if len(comparison.models) > 1 else ("has a", " of")
    found = [f"{best.name} {has} mean weighted F1{of} {_percent(best.mean('weighted_f1'))}."]
    ceiling = comparison.dataset.ceiling
    if ceiling is not None:
        top = max(comparison.models, key=lambda model: model.mean("accuracy"))
        below = 100 * (ceiling - top.mean("accuracy"))
        where = f"{below:.1f} points below" if below > 0 else "at"
        found.append(f"By accuracy the best is {top.name}, {where} the ceiling of {_percent(ceiling)}.")
    ranked = sorted(comparison.pairs, key=lambda pair: (not pair.significant, -abs(pair.difference)))
    found += [_told(pair) for pair in ranked[:MOST]]
    if len(ranked) > MOST:
        found.append(f"{len(ranked) - MOST} more differences stand in the table below.")
    lost = Counter(run.model for run in comparison.broken)
    found += [
        f"Careful: {name} failed in {count} run{'s' * (count > 1)}; why stands below." for name, count in lost.items()
    ]
    return found + [flag for model in comparison.models if (flag := _one_class(model, comparison))]


def _told(pair: Pair) -> str:
    first, second, points = pair.first, pair.second, 100 * pair.difference
    interval = pair.interval
    if points < 0:
        first, second, points = second, first, -points
        interval = interval and (-interval[1], -interval[0])
    level = round(points, 1) == 0
    text = f"{first} and {second} are level" if level else f"{first} is ahead of {second} by {points:.1f} points"
    if interval is not None:
        ends = f"[{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]".replace("-", "−")
        text += f" {ends} over seeds and {pair.samples}"
    if pair.significant:
        return f"{text}: clear."
    if pair.seeds < FEWEST_SEEDS:
        unclear = "" if pair.found.p < LEVEL else "not clear, and "
        return f"{text}; {unclear}too few seeds to call it certain ({pair.seeds} of {FEWEST_SEEDS})."
    return f"{text}: {pair.verdict}."


def _one_class(model: Model, comparison: Comparison) -> str:
    """A warning of a model that says the same of nearly everything."""
    counts = model.confusion.sum(1)  # [seed, C, C]
    predicted = counts.sum(1) / counts.sum((1, 2))[:, None].clip(1)
    true = (counts.sum(2) / counts.sum((1, 2))[:, None].clip(1)).max()
    stuck = [seed for seed, share in zip(model.seeds, predicted, strict=True) if share.max() > max(NEARLY_ALL, true)]
    if not stuck:
        return ""
    name = comparison.dataset.label_names[int(predicted.mean(0).argmax())]
    share = f"{len(stuck)} of {len(model.seeds)} seeds"
    return f"Careful: {model.name} predicts one class for nearly every utterance in {share} (mostly {name})."


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
