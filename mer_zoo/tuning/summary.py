"""What a search found: its best recipe, its history, and which settings mattered; its trials as trackers see them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import timezone
from pathlib import Path
from typing import TYPE_CHECKING

import pydantic
import yaml

from mer_zoo.model import recipe
from mer_zoo.results.run import Run, Setting, settings_of
from mer_zoo.results.writing import write_atomically
from mer_zoo.tuning.search import Search
from mer_zoo.tuning.space import changed

if TYPE_CHECKING:
    import optuna

FILE = "search.json"


class Trial(pydantic.BaseModel):
    """One trial: its changes of the recipe, and its validation score from 0 to 1; null: it was stopped, or failed."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    number: int
    changes: dict[str, pydantic.JsonValue]
    score: float | None
    seconds: float
    failed: bool = False


class Found(pydantic.BaseModel):
    """What a search found, as plain data.

    Attributes:
        model: what tables call it.
        data: name of the dataset.
        metric: validation score that was searched for, the mean over `seeds`.
        seeds: of every trial.
        trials: those that trained, in their order.
        refused: draws that did not fit together; they cost nothing.
        importance: share of the variance of the score that each setting explains (fANOVA, Hutter et al., ICML 2014);
            empty where fewer than ten trials ended.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    model: str
    data: str
    metric: str
    seeds: tuple[int, ...]
    trials: tuple[Trial, ...]
    refused: int
    importance: dict[str, float]

    @property
    def best(self) -> Trial:
        """The trial with the highest score; the earlier one on a tie."""
        return max(self.ended, key=lambda trial: (trial.score, -trial.number))

    @property
    def ended(self) -> list[Trial]:
        """The trials that were not stopped early."""
        return [trial for trial in self.trials if trial.score is not None]

    @property
    def default(self) -> Trial | None:
        """The trial of the recipe as it is, unless that failed."""
        return next((trial for trial in self.ended if not trial.changes), None)

    @property
    def change(self) -> dict[str, pydantic.JsonValue]:
        """What the best trial changes in the recipe, for `train` and `compare`."""
        return self.best.changes

    def __str__(self) -> str:
        """Return the search in words."""
        failed = sum(trial.failed for trial in self.trials)
        text = f"{self.model} on {self.data}: {len(self.trials)} trial{'s' * (len(self.trials) > 1)}, "
        text += f"{len(self.trials) - len(self.ended) - failed} stopped early{f', {failed} failed' if failed else ''}; "
        text += f"best validation {self.metric} {100 * (self.best.score or 0):.1f}"
        if self.default is not None:
            text += f", the recipe as it is {100 * (self.default.score or 0):.1f}"
        return f"{text} (mean of {len(self.seeds)} seed{'s' * (len(self.seeds) > 1)})."


def found(search: Search) -> Found:
    """Return what a search found so far.

    Args:
        search: with at least one trial that ended.
    """
    study = search.study()
    trials = [
        Trial(
            number=trial.number,
            changes=trial.user_attrs.get("changes", {}),
            score=trial.value if trial.state.name == "COMPLETE" else None,
            seconds=trial.user_attrs.get("seconds", 0.0),
            failed="failed" in trial.user_attrs,
        )
        for trial in search.trained()
    ]
    return Found(
        model=search.name,
        data=search.data,
        metric=search.metric.replace("_", " "),
        seeds=search.seeds,
        trials=tuple(trials),
        refused=sum("refused" in trial.user_attrs for trial in study.trials),
        importance=_importance(study),
    )


def tracked(search: Search, trial: optuna.trial.FrozenTrial) -> Run:
    """Return a trial that has trained as trackers are told of it.

    Args:
        search: of the trial.
        trial: of `search.trained()`.
    """
    changes, failure = trial.user_attrs.get("changes", {}), trial.user_attrs.get("failed", "")
    complete = trial.state.name == "COMPLETE"
    state = "failed" if failure else "complete" if complete else "stopped early"
    about: dict[str, Setting] = {
        "search": search.key,
        "trial": trial.number,
        "state": state,
        "seeds": json.dumps(search.seeds),
    }
    score = {f"validation/{search.metric}": trial.value} if complete and trial.value is not None else {}
    seconds, ended = trial.user_attrs.get("seconds", 0.0), trial.datetime_complete
    return Run(
        id=hashlib.sha256(f"{search.key} {trial.number}".encode()).hexdigest()[:16],
        name=f"{search.name} on {search.data}, trial {trial.number}",
        settings=settings_of(search.blind(changes).identity, search.name, search.data) | about,
        epochs={epoch: {f"validation_{search.metric}": value} for epoch, value in trial.intermediate_values.items()},
        measures={**score, "cost/seconds": seconds},
        seconds=0.0 if failure else seconds,
        finished=ended.astimezone(timezone.utc) if ended and not failure else None,
        failure=failure,
    )


def write_best(search: Search, one: Found, path: Path) -> Path:
    """Write the recipe of the best trial, whole: it extends no other."""
    file = recipe.read(search.recipe, [*search.changes, *changed(one.best.changes)])
    plain = file.recipe.model_dump(mode="json", exclude_defaults=True, exclude={"published", "search"})
    plain["title"] = f"{search.name}, tuned on {one.data}"
    plain["notes"] = [*plain.get("notes", ()), f"Found by `mer-zoo tune`. {one}"]
    write_atomically(path, yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110))
    return path


def write_found(all_found: Sequence[Found], path: Path) -> Path:
    """Write what searches found, as JSON."""
    write_atomically(path, json.dumps([one.model_dump() for one in all_found], indent=1) + "\n")
    return path


def _importance(study: optuna.Study) -> dict[str, float]:
    import optuna

    ended = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    drawn = [trial for trial in ended if trial.params]
    shared = set.intersection(*(set(trial.params) for trial in drawn)) if drawn else set()
    if len(drawn) < 10 or not shared or len({trial.value for trial in drawn}) < 2:
        return {}
    apart = optuna.create_study(direction="maximize")  # without the trial of the recipe, which has no parameters
    apart.add_trials(drawn)
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(apart, evaluator=evaluator, params=sorted(shared))
