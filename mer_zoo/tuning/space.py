"""What a search may change in a recipe: its `search` block, or what the types of its settings leave open."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from mer_zoo import registry
from mer_zoo.errors import MerZooError, nearest
from mer_zoo.model import recipe
from mer_zoo.model.changes import Change
from mer_zoo.model.plan import PartChoice, Plan
from mer_zoo.model.recipe import Range
from mer_zoo.registry.signature import settings
from mer_zoo.training.experiment import Experiment, prepare

if TYPE_CHECKING:
    import optuna

SWAPPED = ("graph", "layer", "fusion", "balancing")
"""Kinds of parts for which other parts of the kind are tried."""

PLACE = "search"


@dataclass(frozen=True)
class Choice:
    """One thing that a search may change.

    Attributes:
        key: of the recipe, such as `training.learning_rate`.
        values: plain values, or a range of numbers.
        now: name of the part that stands there; drawn, it is left with the settings it has. None: not a part.
    """

    key: str
    values: list[Any] | Range
    now: str | None = None

    def draw(self, trial: optuna.Trial) -> Any:
        """Draw a value."""
        if isinstance(self.values, list):  # a mapping cannot be drawn, its text can
            return json.loads(trial.suggest_categorical(self.key, [json.dumps(value) for value in self.values]))
        low, high, log, step = self.values.low, self.values.high, self.values.log, self.values.step
        if isinstance(low, int) and isinstance(high, int):
            return trial.suggest_int(self.key, low, high, step=int(step or 1), log=log)
        return trial.suggest_float(self.key, low, high, step=step, log=log)


@dataclass(frozen=True)
class Space:
    """All choices, in the order they are drawn: a part before its settings.

    Example:
        >>> (space,) = narrowed([space_of(prepare("bilstm", "synthetic"), "bilstm")], ["training.*"])
        >>> [choice.key for choice in space.choices]
        ['training.dialogues_per_batch', 'training.learning_rate', 'training.weight_decay']
    """

    choices: tuple[Choice, ...]

    def draw(self, trial: optuna.Trial) -> dict[str, Any]:
        """Draw changes of the recipe, key -> value; a part that is drawn for another keeps none of its settings.

        Args:
            trial: of Optuna.
        """
        drawn: dict[str, Any] = {}
        for choice in self.choices:
            if any(choice.key.startswith(f"{key}.") for key in drawn):
                continue  # a setting of a part that was just replaced
            value = choice.draw(trial)
            if choice.now is None or value != choice.now:
                drawn[choice.key] = value
        return drawn

    def plain(self) -> list[Any]:
        """Return the space as plain data, which tells searches apart."""
        return [[c.key, c.values if isinstance(c.values, list) else c.values.model_dump()] for c in self.choices]


def space_of(experiment: Experiment, name: recipe.Given, *, fixed: Collection[str] = ()) -> Space:
    """Return what a search may change; it may be empty.

    Args:
        experiment: of the recipe as it is; parts that do not fit in its model are left out.
        name: of the recipe, its file, or itself.
        fixed: keys that were given a value already.
    """
    file = recipe.read(name)
    places = _places(experiment.plan, file.recipe)
    named = {key: part.name for _, key, part in places}
    block = file.recipe.search
    choices = (
        [Choice(key, values, named.get(key)) for key, values in block.items()]
        if block
        else _by_types(experiment, name, places)
    )
    chosen = [c for c in choices if not any(f"{c.key}.".startswith(f"{key}.") for key in fixed)]
    return Space(tuple(sorted(chosen, key=lambda choice: choice.key)))


def narrowed(spaces: Sequence[Space], patterns: Sequence[str] | None, place: str = "keys") -> list[Space]:
    """Return what of some spaces has keys that fit one of the patterns; what fits none stays as it is.

    Args:
        spaces: of the models that are searched.
        patterns: of keys; None: all.
        place: what errors call them.

    Raises:
        MerZooError: a pattern that fits nothing in any of them.
    """
    if patterns is None:
        return list(spaces)
    keys = sorted({choice.key for space in spaces for choice in space.choices})
    for pattern in patterns if keys else ():
        if not any(fnmatchcase(key, pattern) for key in keys):
            raise MerZooError(f"{place} {pattern}: nothing that could be searched fits it.{nearest(pattern, keys)}")
    return [Space(tuple(c for c in one.choices if any(fnmatchcase(c.key, p) for p in patterns))) for one in spaces]


def _by_types(
    experiment: Experiment, name: recipe.Given, places: Sequence[tuple[str, str, PartChoice]]
) -> list[Choice]:
    """Choices that the types of the settings leave open, and the parts that fit in place of others."""
    training = experiment.plan.training
    found = []
    if experiment.plan.learner is None:
        found = [
            Choice("training.learning_rate", _around(training.learning_rate, 10)),
            Choice("training.weight_decay", [0.0, 1e-5, 1e-4, 1e-3, 1e-2]),
            Choice("training.dialogues_per_batch", _halved_and_doubled(training.dialogues_per_batch)),
        ]
    for kind, key, part in places:
        others = _that_fit(experiment, name, kind, key, part) if kind in SWAPPED else []
        found += [Choice(key, [part.name, *others], part.name)] if others else []
        for one in settings(kind, registry.load(registry.find(kind, part.name))).values():
            values = _values(one.name, one.type, part.settings.get(one.name))
            found += [Choice(f"{key}.{one.name}", values)] if values is not None else []
    return found


def _places(plan: Plan, written: recipe.Recipe) -> list[tuple[str, str, PartChoice]]:
    """Kind, key in the recipe and filled part of every place that holds a part which may be another."""
    if plan.learner is not None:
        return [("learner", "learner", plan.learner)]
    found = [("graph", "graph", plan.graph)] if plan.graph is not None else []
    for name, stage in written.model.items():
        filled = plan.model[f"{name}_1" if stage.repeat else name]
        if filled.part is not None:
            found.append((filled.kind, f"model.{name}.{filled.kind}", filled.part))
    return [*found, ("balancing", "balancing", plan.balancing)] if len(plan.modalities) > 1 else found


def _that_fit(experiment: Experiment, name: recipe.Given, kind: str, key: str, part: PartChoice) -> list[str]:
    """Names of other parts of a kind with which the model can still be assembled."""
    found = []
    for card in registry.cards(kind):
        if card.name == part.name or card.target.startswith("."):
            continue
        try:
            how: dict[str, Any] = {"fold": experiment.fold, "split_rule": experiment.split_rule}
            prepare(name, experiment.data, changes=[Change.make(key, card.name, PLACE)], **how).rehearse()
        except MerZooError:
            continue
        found.append(card.name)
    return found


def _values(name: str, kind: Any, now: Any) -> list[Any] | Range | None:
    """Return what a setting may be instead of its present value; None: it stays."""
    if kind is bool:
        return [False, True]
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if isinstance(now, bool) or not isinstance(now, (int, float)):
        return None
    if isinstance(now, int):
        return _halved_and_doubled(now) if now > 0 else None
    if name.endswith(("dropout", "probability")):
        return Range(low=0.0, high=0.7)
    return _around(now, 3) if now > 0 else None


def _around(value: float, factor: float) -> Range:
    return Range(low=value / factor, high=value * factor, log=True)


def _halved_and_doubled(value: int) -> list[Any]:
    return sorted({max(1, value // 2), value, 2 * value})


def changed(changes: Mapping[str, Any]) -> list[Change]:
    """Return drawn changes as changes of a recipe."""
    return [Change.make(key, value, PLACE) for key, value in changes.items()]
