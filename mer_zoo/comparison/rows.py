"""The models of a suite as its file gives them, written out: one row per recipe of a wildcard, per point of a grid."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from mer_zoo.errors import MerZooError, nearest
from mer_zoo.model import recipe
from mer_zoo.registry.faults import short

MOST = 1000
"""Rows of a suite."""


@dataclass
class Rows:
    """What `models` of a suite stands for.

    Attributes:
        models: title -> recipe name, or `{recipe, change}`; anything else is as it was given, for others to refuse.
        places: title -> the keys that lead to what the row was made from.
        gridded: title -> the keys of the recipe that its grid changes.
    """

    models: Any
    places: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    gridded: dict[str, set[str]] = field(default_factory=dict)

    def origin(self, keys: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the keys in the file of keys in what was written out.

        Example:
            >>> rows = written_out({"A": {"recipe": "bilstm", "grid": {"training.epochs": [1, 2]}}})
            >>> rows.origin(("models", "A, epochs=2", "change", "training.epochs"))
            ('models', 'A', 'grid', 'training.epochs')
        """
        if len(keys) < 2 or keys[0] != "models" or keys[1] not in self.places:
            return keys
        rest = keys[2:]
        if rest[:1] == ("change",) and rest[1:2] and rest[1] in self.gridded.get(keys[1], ()):
            rest = ("grid", *rest[1:])
        return (*self.places[keys[1]], *rest)


def written_out(models: Any, place: Callable[..., str] | None = None) -> Rows:
    """Write out wildcards and grids.

    Args:
        models: a list of recipe names, which may hold `*` and `?`; or title -> recipe name, or `{recipe, change, grid}`
            with `grid: {key: [value, ...]}`, of which every combination becomes a row.
        place: gives where a value stands from the keys that lead to it; by default, the keys.

    Raises:
        MerZooError: a wildcard that fits no recipe, a grid that is none, or more than `MOST` rows.

    Example:
        >>> grid = {"training.epochs": [1, 2], "balancing": ["none"]}
        >>> list(written_out({"A": {"recipe": "amb_dsgdn", "grid": grid}}).models)
        ['A, epochs=1, balancing=none', 'A, epochs=2, balancing=none']
        >>> list(written_out(["bilstm", "dialogue*"]).models)
        ['bilstm', 'dialoguecrn', 'dialoguegcn', 'dialoguernn']
    """
    where = place or (lambda *keys: ".".join(map(str, keys)))
    rows = Rows({})
    if isinstance(models, list):
        for number, name in enumerate(models):
            if not isinstance(name, str):
                raise MerZooError(f"{where('models', number)}: want the name of a recipe, or a mapping of titles.")
            for found in expanded(name, where("models", number)):
                _add(rows, found, found, ("models", number), where)
    elif isinstance(models, Mapping):
        for title, entry in models.items():
            if isinstance(entry, Mapping) and entry.get("grid") is not None:
                _add_grid(rows, str(title), entry, where)
            else:
                _add(rows, title, entry, ("models", title), where)
    else:
        rows.models = models
    return rows


def matching(pattern: str, names: Iterable[str], place: str) -> list[str]:
    """Return the names that fit a pattern with `*` and `?`; variants only where it has a `/`.

    Raises:
        MerZooError: none does.

    Example:
        >>> matching("dialogue*", ["dialoguernn", "dialoguernn/iemocap", "mmgcn"], "--models")
        ['dialoguernn']
    """
    names = list(names)
    found = [n for n in names if n == pattern or (fnmatchcase(n, pattern) and n.count("/") <= pattern.count("/"))]
    if not found:
        raise MerZooError(f"{place}: nothing fits '{short(pattern)}'.{nearest(pattern, names)}")
    return found


def expanded(name: str, place: str) -> list[str]:
    """Return the recipes that a name with wildcards stands for; a name without any stands for itself."""
    return matching(name, recipe.names(), place) if "*" in name or "?" in name else [name]


def _add(rows: Rows, title: Any, entry: Any, keys: tuple[Any, ...], where: Callable[..., str]) -> None:
    if title in rows.models:
        raise MerZooError(f"{where(*keys)}: '{short(str(title))}' is there twice. Leave it out once.")
    if len(rows.models) == MOST:
        raise MerZooError(f"{where('models')}: more than {MOST} rows. Split the suite.")
    rows.models[title] = entry
    rows.places[title] = keys


def _add_grid(rows: Rows, title: str, entry: Mapping[str, Any], where: Callable[..., str]) -> None:
    keys = ("models", title)
    grid, change = entry["grid"], entry.get("change") or {}
    if not isinstance(grid, Mapping) or not grid or not all(isinstance(key, str) for key in grid):
        raise MerZooError(f"{where(*keys, 'grid')}: want a mapping of keys of the recipe to lists of values.")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise MerZooError(f"{where(*keys, 'grid', key)}: want a list of values, such as [4, 8, 16].")
        if len({json.dumps(value, default=str) for value in values}) < len(values):
            raise MerZooError(f"{where(*keys, 'grid', key)}: a value is there twice. Leave it out once.")
        if isinstance(change, Mapping) and key in change:
            raise MerZooError(
                f"{where(*keys, 'grid', key)}: it is in `change` as well. Leave it out of one of the two."
            )
    if math.prod(map(len, grid.values())) > MOST:
        raise MerZooError(f"{where(*keys, 'grid')}: more than {MOST} rows. Give fewer values.")
    last = [key.rpartition(".")[2] for key in grid]
    called = {key: end if last.count(end) == 1 else key for key, end in zip(grid, last, strict=True)}
    for point in itertools.product(*grid.values()):
        chosen = dict(zip(grid, point, strict=True))
        name = ", ".join([title, *(f"{called[key]}={_shown(value)}" for key, value in chosen.items())])
        row = {key: value for key, value in entry.items() if key != "grid"}
        _add(rows, name, {**row, "change": {**change, **chosen}} if isinstance(change, Mapping) else row, keys, where)
        rows.gridded[name] = set(grid)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
