"""What a report tells of a search: how it went, what mattered, and what the best is against the recipe as it is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydantic
from matplotlib.figure import Figure as Canvas

from mer_zoo.comparison.plots import COLOURS, INK, Figure, draw, legend
from mer_zoo.comparison.report import Searched
from mer_zoo.errors import MerZooError
from mer_zoo.showing import visible
from mer_zoo.tuning.summary import FILE, Found, Trial

MOST = 10
"""Trials and settings that are listed."""


def read_found(path: Path) -> list[Found]:
    """Read what `summary.write_found` wrote.

    Raises:
        MerZooError: the file cannot be read, or is damaged.
    """
    try:
        return pydantic.TypeAdapter(list[Found]).validate_json(path.read_bytes())
    except OSError as error:
        raise MerZooError(f"{path}: cannot be read ({error.strerror}).") from None
    except pydantic.ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "it"
        raise MerZooError(
            f"{path}: damaged ({where}: {fault['msg']}). Run `mer-zoo tune` again: trials that ended are kept."
        ) from None


def searched(place: Path) -> list[Searched]:
    """Return what there is to tell of the searches whose file lies in a folder; nothing where there is none."""
    path = place / FILE
    return [told(found) for found in read_found(path)] if path.is_file() else []


def told(found: Found) -> Searched:
    """Return a search as a report tells of it.

    Args:
        found: what `summary.found` returns.
    """
    failed = sum(trial.failed for trial in found.trials)
    stopped = len(found.trials) - len(found.ended) - failed
    counts = (
        f"{len(found.trials)} trials trained: {len(found.ended)} complete, {stopped} stopped early, {failed} failed."
    )
    counts += f" {found.refused} draws did not fit together and cost nothing." if found.refused else ""
    seeds = len(found.seeds)
    score = f"validation {_metric(found)}, mean of {seeds} seed{'s' * (seeds > 1)}"
    sentences = [counts, f"A trial is judged by its {score}; no trial saw a test dialogue."]
    figures: list[Figure] = []
    if found.ended:
        sentences.append(_against_default(found))
        figures += [_history(found, score), *_importance(found)]
    tables = [("Best trials", ("Trial", "Score, %", "Seconds", "Changes"), tuple(_rows(found)))] if found.ended else []
    title = f"Search of {found.model} on {found.data}"
    return Searched(title, tuple(sentences), tuple(figures), tuple(tables))


def _against_default(found: Found) -> str:
    best, default = found.best, found.default
    text = f"The best, trial {best.number}, has {100 * (best.score or 0):.1f} %"
    if default is None:
        return f"{text}; the recipe as it is did not end."
    gain = 100 * ((best.score or 0) - (default.score or 0))
    if best is default:
        return f"{text}: it is the recipe as it is, which no change improved."
    return (
        f"{text}, the recipe as it is {100 * (default.score or 0):.1f} %: {gain:.1f} points more, on the dialogues "
        "that chose it. What that is worth on others, the comparison of test scores says."
    )


def _rows(found: Found) -> Iterator[tuple[str, ...]]:
    ranked = sorted(found.ended, key=lambda trial: (-(trial.score or 0), trial.number))
    for trial in ranked[:MOST]:
        yield str(trial.number), f"{100 * (trial.score or 0):.1f}", f"{trial.seconds:.1f}", _changes(trial)


def _changes(trial: Trial) -> str:
    def plain(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)

    words = [f"{key} {plain(value)}" for key, value in trial.changes.items()]
    return "; ".join(words) or "none: the recipe as it is"


def _metric(found: Found) -> str:
    return found.metric.replace("f1", "F1")


def _broken(key: str) -> str:
    """A long key in two lines, broken at its last dot."""
    head, dot, tail = visible(key).rpartition(".")
    return f"{head}{dot}\n{tail}" if len(key) > 24 else head + dot + tail


def _history(found: Found, score: str) -> Figure:
    numbers = np.array([trial.number for trial in found.ended])
    scores = 100 * np.array([trial.score for trial in found.ended], dtype=np.float64)
    best = np.maximum.accumulate(scores)
    without = {
        "stopped early": [trial.number for trial in found.trials if trial.score is None and not trial.failed],
        "failed": [trial.number for trial in found.trials if trial.failed],
    }

    def paint(canvas: Canvas) -> None:
        axes = canvas.subplots()
        axes.plot(numbers, scores, "o", color=COLOURS[0], alpha=0.75, markersize=4, label="a trial")
        axes.step(numbers, best, where="post", color=INK, linewidth=1.6, label="best so far")
        if found.default is not None:
            level = 100 * (found.default.score or 0)
            axes.axhline(level, color=COLOURS[1], linestyle="--", linewidth=1.2, label="the recipe as it is")
        floor = axes.get_ylim()[0]
        for marker, colour, (name, places) in zip("x|", (COLOURS[6], COLOURS[3]), without.items(), strict=True):
            if places:
                axes.plot(places, [floor] * len(places), marker, color=colour, clip_on=False, markersize=6, label=name)
        axes.set_xlabel("Trial")
        axes.set_ylabel(f"{_metric(found).capitalize().replace('f1', 'F1')} on validation, %")
        legend(axes)

    alt = f"{score}, by trial; best so far at the end {best[-1]:.1f}."
    return draw("Trials, and the best so far", alt, 2.9, paint)


def _importance(found: Found) -> Iterator[Figure]:
    ranked = sorted(found.importance.items(), key=lambda item: -item[1])[:MOST]
    if not ranked:
        return

    def paint(canvas: Canvas) -> None:
        axes = canvas.subplots()
        axes.barh(range(len(ranked)), [100 * share for _, share in ranked], color=COLOURS[0], height=0.6)
        axes.set_yticks(range(len(ranked)), [_broken(key) for key, _ in ranked])
        axes.set_ylim(len(ranked) - 0.5, -0.5)
        axes.set_xlabel("Share of the variance of the score, %")
        axes.grid(axis="y", visible=False)

    shares = ", ".join(f"{key} {100 * share:.0f}" for key, share in ranked)
    alt = f"Percent of the variance of the score that each setting explains: {shares}."
    yield draw("What mattered (fANOVA)", alt, 1.0 + 0.34 * len(ranked), paint)
