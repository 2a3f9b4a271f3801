"""A run as trackers are told of it: flat names, numbers and files, nothing to look up."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from mer_zoo.results.identity import Identity
from mer_zoo.results.metrics import SCORES
from mer_zoo.results.result import Metrics, Result, file_word

Setting = str | int | float | bool | None


@dataclass(frozen=True)
class Run:
    """A finished or broken run, or a trial of a search, which has no test scores.

    Attributes:
        id: `Identity.run`, the same for the same recipe, data, seed and fold; of a trial, a hash of search and number.
        name: for people, such as "BiLSTM on synthetic, seed 0".
        settings: all that decided the run, such as `recipe.training.epochs`; and `model` and `dataset`, their names. Of
            a trial also `search`, `trial` and `state`: complete, stopped early or failed.
        epochs: step -> what was measured in that epoch, such as `train_loss` and `validation_weighted_f1`.
        chosen_epoch: the epoch that the scores are of. By the protocol, which is a setting, validation alone chose it.
        measures: at the end: `validation/...`, `test/...`, `cost/...`, `chosen_epoch`; and `test_chosen_on_test/...`,
            scores whose epoch was chosen on the test split, where that was asked for.
        files: name -> path: `result.json`, and `model.safetensors` where weights are kept. Give a copy this name: one
            that ends as the path does would be taken for a result of its own.
        seconds: it took; 0 if it broke.
        finished: when; None if it broke.
        failure: why it broke; "" if it did not.

    Example:
        >>> identity = Identity(recipe={"training": {"epochs": 5}}, data="f00d", seed=0)
        >>> run = Run.broken(identity, "BiLSTM", "synthetic", "no memory left.")
        >>> run.name, run.settings["recipe.training.epochs"], run.failure
        ('BiLSTM on synthetic, seed 0', 5, 'no memory left.')
    """

    id: str
    name: str
    settings: Mapping[str, Setting]
    epochs: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    chosen_epoch: int | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    seconds: float = 0.0
    finished: datetime | None = None
    failure: str = ""

    @property
    def file_name(self) -> str:
        """The name as any disk takes it, and the id.

        Example:
            >>> Run("f00d", "a/b, seed 0", {}).file_name
            'a_b_seed_0-f00d'
        """
        return f"{file_word(self.name, 150)}-{self.id}"

    @classmethod
    def done(cls, result: Result, files: Mapping[str, Path]) -> Run:
        """Return a finished run.

        Args:
            result: of the run.
            files: see `Run`.
        """
        scored = {"validation": result.metrics.validation, "test": result.metrics.test}
        scored |= {"test_chosen_on_test": result.oracle_metrics}
        measures = {f"{split}/{name}": value for split, of in scored.items() if of for name, value in _scores(of)}
        measures["chosen_epoch"] = result.chosen_epoch
        for name in ("parameters", "peak_memory_mb"):
            if (value := getattr(result, name)) is not None:
                measures[f"cost/{name}"] = float(value)
        return cls(
            id=result.run,
            name=_name(result.identity, result.recipe_name, result.dataset.name),
            settings=settings_of(result.identity, result.recipe_name, result.dataset.name),
            epochs={number: dict(_numbers(record)) for number, record in enumerate(result.history)},
            chosen_epoch=result.chosen_epoch,
            measures={**measures, "cost/seconds": result.seconds.total},
            files=files,
            seconds=result.seconds.total,
            finished=result.finished,
        )

    @classmethod
    def broken(cls, identity: Identity, model: str, dataset: str, failure: str) -> Run:
        """Return a run that broke.

        Args:
            identity: what decided it.
            model: what tables call the model.
            dataset: the dataset's name.
            failure: why.
        """
        name, settings = _name(identity, model, dataset), settings_of(identity, model, dataset)
        return cls(identity.run, name, settings, failure=failure or "unknown")


def _name(identity: Identity, model: str, dataset: str) -> str:
    fold = "" if identity.fold is None else f", fold {identity.fold}"
    return f"{model} on {dataset}, seed {identity.seed}{fold}"


def settings_of(identity: Identity, model: str, dataset: str) -> dict[str, Setting]:
    """Return all that decided a run, by flat names.

    Args:
        identity: what decided it.
        model: what tables call the model.
        dataset: the dataset's name.
    """
    return {"model": model, "dataset": dataset, **dict(_flat(identity.model_dump(mode="json")))}


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Setting]]:
    """Every value that is no mapping, by its dotted key; a list as JSON."""
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from _flat(inner, f"{before}{key}.")
        else:
            plain = inner is None or isinstance(inner, str | int | float)
            yield f"{before}{key}", inner if plain else json.dumps(inner, ensure_ascii=False)


def _scores(metrics: Metrics) -> Iterator[tuple[str, float]]:
    yield from ((name, getattr(metrics, name)) for name in SCORES)
    yield from metrics.others.items()


def _numbers(record: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """Every finite number of an epoch's record, by its key; what is in a mapping behind a slash."""
    for key, inner in record.items():
        if isinstance(inner, Mapping):
            yield from _numbers(inner, f"{before}{key}/")
        elif isinstance(inner, int | float) and math.isfinite(inner) and key not in ("epoch", "seed"):
            yield f"{before}{key}", float(inner)
