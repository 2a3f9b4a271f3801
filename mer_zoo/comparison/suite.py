"""A suite: models × datasets × seeds, planned whole."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import pydantic

from mer_zoo.comparison.rows import Rows, written_out
from mer_zoo.data.conversation import Dataset
from mer_zoo.data.loading import load
from mer_zoo.data.splits import SplitRule
from mer_zoo.errors import MerZooError, nearest
from mer_zoo.model import recipe
from mer_zoo.model.changes import Change, changes_from
from mer_zoo.registry import document, plugins, resources
from mer_zoo.registry.faults import described, short
from mer_zoo.results.identity import Protocol
from mer_zoo.training.experiment import SEEDS, Experiment, dataset_of, folds_of, prepare, why_no_contributions
from mer_zoo.training.options import ComputeOptions

MOST_SEEDS = 1000
LONGEST = 200
"""Characters of a name."""

Title = Annotated[str, pydantic.Field(min_length=1, max_length=LONGEST)]
Seed = Annotated[int, pydantic.Field(strict=True, ge=0, lt=SEEDS)]
SeedCount = Annotated[int, pydantic.Field(strict=True, ge=1, le=MOST_SEEDS)]
SeedList = Annotated[list[Seed], pydantic.Field(min_length=1, max_length=MOST_SEEDS)]


class Entry(pydantic.BaseModel):
    """A model of a suite: a recipe and what to change in it; a bare name, or a whole recipe, is one without changes.

    A grid is written out before a suite is made, see `rows.written_out`.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    recipe: str | dict[str, Any]
    change: dict[str, Any] = {}
    grid: dict[str, list[Any]] | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _without_changes(cls, value: Any) -> Any:
        whole = isinstance(value, Mapping) and "recipe" not in value and {"extends", "model", "learner"} & value.keys()
        return {"recipe": value} if isinstance(value, str) or whole else value


class Suite(pydantic.BaseModel):
    """What is compared.

    Attributes:
        title: one line.
        data: datasets, by name, folder, or `{name, settings}`.
        models: name in the tables -> recipe, or `{recipe, change: {key: value}}`. A file may also give a list of recipe
            names with wildcards, or `{recipe, grid: {key: [value, ...]}}`: see `rows.written_out`.
        seeds: number of seeds (0, 1, ...) or a list of them.
        change: changes of every recipe with a model, such as `training.epochs: 10`; learners have no such settings.
        protocol: `validation`, or `test-oracle` to replay the literature.
        split: how the dialogues are split; by default as the data says.
        baseline: the model that the others are compared with, chosen before any score is seen; by default the first.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    title: Title
    data: Annotated[list[str | dict[str, Any]], pydantic.Field(min_length=1)]
    models: Annotated[dict[Title, Entry], pydantic.Field(min_length=1)]
    seeds: SeedCount | SeedList = 3
    change: dict[str, Any] = {}
    protocol: Protocol = "validation"
    split: SplitRule = SplitRule()
    baseline: str | None = None
    _place: Callable[..., str] = pydantic.PrivateAttr(default_factory=lambda: _by_keys)
    _gridded: dict[str, set[str]] = pydantic.PrivateAttr(default_factory=dict)

    @pydantic.field_validator("data", "seeds")
    @classmethod
    def _nothing_twice(cls, value: Any) -> Any:
        twice = [one for one in value if value.count(one) > 1] if isinstance(value, list) else []
        if twice:
            raise ValueError(f"{twice[0]} is there twice. Leave it out once")
        return value

    @pydantic.field_validator("baseline")
    @classmethod
    def _baseline_is_a_model(cls, value: str | None, info: pydantic.ValidationInfo) -> str | None:
        models = info.data.get("models", {value: None})
        if value is not None and value not in models:
            raise ValueError(f"no model '{value}' is compared.{nearest(value, models)} Choose one of them".strip())
        return value

    def is_learner(self, model: str) -> bool:
        """Whether a model is a learner, which has none of a network's settings."""
        return recipe.read(self.models[model].recipe).recipe.learner is not None

    def changes(self, model: str) -> list[Change]:
        """Return what is changed in a model's recipe, each with its place; a change of its own goes first."""
        own = self.models[model].change
        shared = {} if self.is_learner(model) else {key: v for key, v in self.change.items() if key not in own}
        return [
            Change.make(key, value, self._place(*where, key).removesuffix(f".{short(key)}"))
            for where, given in ((("change",), shared), (("models", model, "change"), own))
            for key, value in given.items()
        ]

    def published(self) -> list[dict[str, Any]]:
        """Return the scores from the literature that the recipes name, as `write_html` shows them."""
        return [
            {"model": name, **score.model_dump()}
            for name, entry in self.models.items()
            for score in recipe.read(entry.recipe).recipe.published
        ]


def data_name(data: str | Mapping[str, Any]) -> str:
    """Return the name of a dataset of a suite.

    Example:
        >>> data_name({"name": "synthetic", "distractor": 1.5})
        'synthetic, distractor 1.5'
    """
    return load(data).name


def names() -> list[str]:
    """Return the suites that ship, and those of plugins.

    Example:
        >>> "default" in names()
        True
    """
    return sorted(_files())


def _files() -> dict[str, Path]:
    ours = (resources.folder("baselines") / "suites").glob("*.yaml")
    return {**plugins.files("suites"), **{path.stem: path for path in ours}}


def title(name: str) -> str:
    """Return the title of a shipped suite."""
    return read(name).title


def read(name: str) -> Suite:
    """Read a suite by shipped name or path; faults are reported with line and column."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in names():
            raise MerZooError(f"no suite named '{short(name)}'.{nearest(short(name), names())} A file ends in .yaml.")
        path = _files()[name]
    if os.path.isdir(path):
        raise MerZooError(f"{path}: a folder, not a file.")
    page = document.read(path)
    return checked(page.data, lambda *keys: f"{page.place(keys)} {_dotted(keys)}".strip())


def checked(data: Any, place: Callable[..., str] | None = None) -> Suite:
    """Return data as a suite.

    Args:
        data: a mapping, see `Suite`.
        place: gives where a value stands from the keys that lead to it; by default, the keys.

    Raises:
        MerZooError: everything that is wrong with it.

    Example:
        >>> checked({"title": "Two", "data": ["synthetic"], "models": {"A": "bilstm"}, "seeds": [0, 0]})
        Traceback (most recent call last):
        mer_zoo.errors.MerZooError: seeds: 0 is there twice. Leave it out once (given: [0, 0]).
    """
    place, rows = place or _by_keys, Rows({})
    if isinstance(data, Mapping) and "models" in data:
        rows = written_out(data["models"], place)
        data, place = {**data, "models": rows.models}, _traced(place, rows)
    try:
        suite = Suite.model_validate(data)
    except pydantic.ValidationError as error:
        raise MerZooError(described(error, Suite, data, place)) from None
    suite._place, suite._gridded = place, rows.gridded
    return suite


def changed(suite: Suite, options: Mapping[str, Any]) -> Suite:
    """Return a suite with some of its fields replaced by options of the command line.

    Args:
        suite: as read.
        options: field -> value; `--field` is what errors call it.
    """

    def place(*keys: Any) -> str:
        return f"--{_dotted(keys)}" if keys and keys[0] in options else suite._place(*keys)

    made = checked({**suite.model_dump(), **options}, place)
    made._gridded |= suite._gridded
    return made


def _traced(place: Callable[..., str], rows: Rows) -> Callable[..., str]:
    """Return what gives where a value of a row stands in what the row was made from."""
    return lambda *keys: place(*rows.origin(keys))


def _by_keys(*keys: Any) -> str:
    return _dotted(keys) or "suite"


def _dotted(keys: Iterable[Any]) -> str:
    return ".".join(short(str(key)) for key in keys)


def experiments(
    suite: Suite,
    *,
    changes: Iterable[str | Change] = (),
    device: str = "cpu",
    options: ComputeOptions | None = None,
    datasets: Mapping[str, Dataset] | None = None,
) -> list[Experiment]:
    """Return every run of a suite. All models are made and tried first, so a mistake costs no training.

    Args:
        suite: models, data and seeds.
        changes: further changes of every recipe with a model, which go before the suite's own.
        device, options: where and how to compute; models of which no contributions can be noted are warned of.
        datasets: those in memory, by the names that stand for them in the suite.

    Raises:
        MerZooError: recipes that do not fit the data, all of them at once; the same data twice; or a change that makes
            a row something else than its name says.

    Example:
        >>> [experiment.seed for experiment in experiments(read("default"))][:3]
        [0, 1, 2]
    """
    found: list[Experiment] = []
    faults: list[str] = []
    more = changes_from(changes)
    _refuse_other_names(suite, more)
    _refuse_same_data(suite, datasets or {})
    seeds = range(suite.seeds) if isinstance(suite.seeds, int) else suite.seeds
    how: dict[str, Any] = {"protocol": suite.protocol, "split_rule": suite.split, "device": device}
    options = options or ComputeOptions()
    how["options"], without = replace(options, contributions=False), {}
    for called in suite.data:
        data = (datasets or {}).get(called, called) if isinstance(called, str) else called
        known: dict[str, str] = {}
        for name, entry in suite.models.items():
            try:
                made = [*suite.changes(name), *([] if suite.is_learner(name) else more)]
                first = prepare(entry.recipe, data, name=name, changes=made, **how)
                first.rehearse()
                other = known.setdefault(first.identity.run, name)
                own = entry.change.keys() | suite.models[other].change.keys()
                alike = other != name and suite.models[other].recipe == entry.recipe
                if alike and (taken := [change for change in more if change.key in own]):
                    raise MerZooError(
                        f"{taken[0].place} {taken[0].key} makes it the same model as {other}. Leave one of the two out "
                        "with --models, or the change."
                    )
                if options.contributions and (reason := why_no_contributions(first.plan)) is not None:
                    without[name] = reason
                else:
                    first = replace(first, options=options)
                for fold in folds_of(data, suite.split):
                    replace(first, fold=fold).task()
                    found += [replace(first, fold=fold, seed=seed) for seed in seeds]
            except MerZooError as error:
                faults.append(f"{name} on {called if isinstance(called, str) else called.get('name')}: {error}")
    if faults:
        raise MerZooError("\n".join(faults))
    if without:
        told = "; ".join(f"{name}, for {reason}" for name, reason in without.items())
        warnings.warn(f"No contributions over epochs of {told}.", stacklevel=2)
    return found


def _refuse_other_names(suite: Suite, more: Iterable[Change]) -> None:
    """Refuse changes of what a grid changes: its rows are named after their values."""
    for change in more:
        for name in suite.models:
            if any(f"{key}.".startswith(f"{change.key}.") for key in suite._gridded.get(name, ())):
                raise MerZooError(
                    f"{change.place} {change.key}: the grid of '{short(name)}' sets it, and its name says so. Leave "
                    "the change out, or the row with --models."
                )


def _refuse_same_data(suite: Suite, datasets: Mapping[str, Dataset]) -> None:
    """Refuse the same dialogues under two names, such as a folder by two paths: every run would count twice."""
    known: dict[str, Any] = {}
    for number, called in enumerate(suite.data):
        data = datasets.get(called, called) if isinstance(called, str) else called
        other = known.setdefault(dataset_of(data).fingerprint, called)
        if other is not called:
            raise MerZooError(
                f"{suite._place('data', number)}: the same dialogues as {short(str(other))}. Leave one out."
            )
