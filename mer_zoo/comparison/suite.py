"""A suite: models × datasets × seeds, planned whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pydantic

from mer_zoo.data.splits import SplitRule
from mer_zoo.errors import MerZooError, nearest
from mer_zoo.registry import document, resources
from mer_zoo.results.identity import Protocol
from mer_zoo.training.experiment import Experiment, folds_of, prepare
from mer_zoo.training.options import ComputeOptions


class Entry(pydantic.BaseModel):
    """A model of a suite: a recipe and what to change in it; a bare name stands for `{recipe: name}`."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    recipe: str
    change: dict[str, Any] = {}

    @pydantic.model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"recipe": value} if isinstance(value, str) else value


class Suite(pydantic.BaseModel):
    """What is compared.

    Attributes:
        title: one line.
        data: datasets, by name, folder, or `{name, settings}`.
        models: name in the tables -> recipe, or `{recipe, change: {key: value}}`.
        seeds: number of seeds (0, 1, ...) or a list of them.
        change: changes of every recipe, such as `training.epochs: 10`.
        protocol: `validation`, or `test-oracle` to replay the literature.
        split: how the dialogues are split; by default as the data says.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    title: str
    data: list[str | dict[str, Any]]
    models: dict[str, Entry]
    seeds: pydantic.PositiveInt | list[int] = 3
    change: dict[str, Any] = {}
    protocol: Protocol = "validation"
    split: SplitRule = SplitRule()


def names() -> list[str]:
    """Return the suites that ship.

    Example:
        >>> "default" in names()
        True
    """
    return sorted(path.stem for path in (resources.folder("baselines") / "suites").glob("*.yaml"))


def title(name: str) -> str:
    """Return the title of a shipped suite."""
    return read(name).title


def read(name: str) -> Suite:
    """Read a suite by shipped name or path; faults are reported with line and column."""
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        if name not in names():
            raise MerZooError(f"no suite named '{name}'.{nearest(name, names())} A file ends in .yaml.")
        path = resources.folder("baselines") / "suites" / f"{name}.yaml"
    page = document.read(path)
    try:
        return Suite.model_validate(page.data)
    except pydantic.ValidationError as error:
        lines = []
        for fault in error.errors():
            where = [x for x in fault["loc"] if x not in ("str", "dict[str,any]", "list[int]", "constrained-int")]
            hint = nearest(str(where[-1]), Suite.model_fields) if fault["type"] == "extra_forbidden" and where else ""
            lines.append(f"{page.place(where)} {'.'.join(map(str, where))}: {fault['msg']}.{hint}")
        raise MerZooError("\n".join(lines)) from None


def experiments(suite: Suite, *, device: str = "cpu", options: ComputeOptions | None = None) -> list[Experiment]:
    """Return every run of a suite. All recipes are read and filled first, so a typo costs no training.

    Args:
        suite: models, data and seeds.
        device, options: where and how to compute.

    Raises:
        MerZooError: recipes that do not fit the data, all of them at once.

    Example:
        >>> [experiment.seed for experiment in experiments(read("default"))][:3]
        [0, 1, 2]
    """
    found, faults = [], []
    seeds = range(suite.seeds) if isinstance(suite.seeds, int) else suite.seeds
    how: dict[str, Any] = {"protocol": suite.protocol, "split_rule": suite.split, "device": device}
    how["options"] = options or ComputeOptions()
    for data in suite.data:
        for name, entry in suite.models.items():
            changes = {**suite.change, **entry.change}
            try:
                first = prepare(entry.recipe, data, name=name, changes=changes, **how)
            except MerZooError as error:
                faults.append(f"{name} on {data if isinstance(data, str) else data.get('name')}: {error}")
                continue
            found += [replace(first, fold=fold, seed=seed) for fold in folds_of(data, suite.split) for seed in seeds]
    if faults:
        raise MerZooError("\n".join(faults))
    return found
