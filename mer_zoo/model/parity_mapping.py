"""Which published array belongs to which parameter of ours: the mappings in `baselines/parity/`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mer_zoo.errors import MerZooError, nearest
from mer_zoo.model.formula import fill
from mer_zoo.registry import document, resources

ROUNDS = 10_000  # of a loop; no model has as many layers


@dataclass(frozen=True)
class ParityMapping:
    """A mapping, its formulas resolved for one parity file.

    Attributes:
        recipe: name of the recipe; beside it, `compared` lists the recipes of the parity files that tests hold us to.
        settings: overrides that bring the recipe to the file's sizes: dotted path -> value.
        inputs: modality -> published arrays that lie side by side in it.
        tasks: label column beside the emotion -> published array.
        logits: published array of a dialogue's logits.
        weights: our parameter or buffer -> expression over published names.
        cancels: expressions for published parameters that change nothing, such as a bias ahead of a softmax.
    """

    recipe: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Sequence[str]]
    tasks: Mapping[str, str]
    logits: str
    weights: Mapping[str, Any]
    cancels: Sequence[Any]

    def load(self, model: nn.Module, published: Mapping[str, Tensor]) -> None:
        """Give a model the published weights.

        Raises:
            MerZooError: a parameter of ours without a source, a name that does not exist, a shape that does not fit.
        """
        state = model.state_dict(keep_vars=True)
        if missing := state.keys() - self.weights.keys():
            raise MerZooError(f"parity mapping: nothing is mapped to {', '.join(sorted(missing))}.")
        with torch.no_grad():
            for name in self.weights:
                if name not in state:
                    raise MerZooError(f"parity mapping: the model has no parameter '{name}'.{nearest(name, state)}")
                state[name].copy_(self.fit(name, published, state[name]))

    def fit(self, name: str, published: Mapping[str, Tensor], ours: Tensor) -> Tensor:
        """Return what published arrays say of a parameter of ours, in its shape.

        Raises:
            MerZooError: the shapes differ in more than dimensions of size one.
        """
        expression = self.weights[name]
        theirs = evaluate(expression, published, name)
        if _squeezed(theirs) != _squeezed(ours):
            given = ", ".join(f"{key} {list(published[key].shape)}" for key in sources(expression))
            raise MerZooError(
                f"parity mapping: {name} has shape {list(ours.shape)}, but what is mapped to it has shape "
                f"{list(theirs.shape)} (from {given}). Do the mapping's `settings` follow the file's sizes?"
            )
        return theirs.reshape(ours.shape)

    def forgotten(self, published: Mapping[str, Tensor], live: Sequence[str]) -> list[str]:
        """Return which of the live published parameters nothing refers to, entry by entry: `name (4 of 8 entries)`."""
        number, count = {}, 0
        for name, array in published.items():
            number[name] = torch.arange(count, count + array.numel()).view(array.shape)
            count += array.numel()
        used = torch.zeros(count, dtype=torch.bool)
        for expression in (*self.weights.values(), *self.cancels):
            used[evaluate(expression, number, "cancels").flatten()] = True
        unused = {name: int((~used[number[name]]).sum()) for name in live}
        return [f"{n} ({k} of {published[n].numel()} entries)" for n, k in unused.items() if k]


def known() -> list[str]:
    """Return the stems of the parity files that have a mapping.

    Example:
        >>> "mmgcn" in known()
        True
    """
    return sorted(path.stem for path in (resources.folder("baselines") / "parity").glob("*.yaml"))


def find(path: Path) -> Path:
    """Return the mapping of a parity file: that of its name, or of its name's beginning (`mmgcn` for `mmgcn_meld`).

    Args:
        path: the parity file.

    Raises:
        MerZooError: no mapping of this name.
    """
    fitting = [stem for stem in known() if path.stem == stem or path.stem.startswith(f"{stem}_")]
    if not fitting:
        raise MerZooError(
            f"{path}: no mapping for a parity file of this name.{nearest(path.stem, known())} "
            "Add `baselines/parity/<file stem>.yaml`."
        )
    return resources.folder("baselines") / "parity" / f"{max(fitting, key=len)}.yaml"


def read(path: Path, names: Mapping[str, Any]) -> ParityMapping:
    """Read a mapping.

    Args:
        path: of the mapping.
        names: what formulas may refer to: the file's `meta`, and `shape`, the shapes of its weights.

    Raises:
        MerZooError: an unknown key, a formula without a value.
    """
    page = document.read(path)
    keys = ("recipe", "compared", "settings", "inputs", "tasks", "logits", "weights", "cancels")
    for key in page.data:
        if key not in keys:
            raise MerZooError(f"{page.place([key])}: unknown key '{key}'.{nearest(key, keys)}")
    data = {"inputs": {}, "tasks": {}, "logits": "logits", "cancels": [], **page.data}
    try:
        return ParityMapping(
            recipe=str(fill(data["recipe"], names)).lower(),
            settings=fill(data["settings"], names),
            inputs=fill(data["inputs"], names),
            tasks=fill(data["tasks"], names),
            logits=fill(data["logits"], names),
            weights=dict(_expanded(data["weights"], names)),
            cancels=[value for group in data["cancels"] for value in _each(group, "leave", names)],
        )
    except MerZooError as error:
        raise MerZooError(f"{page.place()}: {error}") from None


def _expanded(groups: Sequence[Mapping[str, Any]], names: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for group in groups:
        for entry in _each(group, "map", names):
            yield from entry.items()


def _each(group: Mapping[str, Any], key: str, names: Mapping[str, Any]) -> Iterator[Any]:
    """Yield what stands under a key of a group, once for every round of its loops, if its condition holds.

    `for:` is a list of mappings, one a round; or a mapping of variables to counts or lists, all combinations a round.
    An item of such a list may be a mapping of several variables.
    """
    if not fill(group.get("when", True), names):
        return
    loops = group.get("for", [{}])
    if isinstance(loops, list):
        loops = {"": loops}
    rounds: list[list[Any]] = []
    for variable, values in loops.items():
        values = fill(values, names)
        values = range(values) if isinstance(values, int) else values
        if not isinstance(values, (list, range)) or len(values) * math.prod(map(len, rounds)) > ROUNDS:
            raise MerZooError(f"`for: {variable}` is no list, or goes round more than {ROUNDS:,} times.")
        rounds.append([value if isinstance(value, Mapping) else {variable: value} for value in values])
    for chosen in itertools.product(*rounds):
        yield fill(group[key], {**names, **{k: v for values in chosen for k, v in values.items()}})


def sources(expression: Any) -> list[str]:
    """Return the published names in an expression."""
    if isinstance(expression, str):
        return [expression]
    items = expression if isinstance(expression, list) else expression.values() if isinstance(expression, dict) else ()
    return [name for item in items for name in sources(item)]


def evaluate(expression: Any, arrays: Mapping[str, Tensor], whose: str) -> Tensor:
    """Return the value of an expression over published arrays.

    A name is that array; a list stacks; `{columns: [...]}` and `{rows: [...]}` join; `{transpose: x}` transposes;
    `{cut: x, rows: [first, behind]}` and `{cut: x, columns: ...}` take a part.

    Args:
        expression: the expression.
        arrays: by published name.
        whose: what errors say it is for.

    Raises:
        MerZooError: a name that the file lacks, or shapes that do not go together.

    Example:
        >>> evaluate({"cut": "w", "columns": [1, 2]}, {"w": torch.tensor([[1, 2], [3, 4]])}, "ours").tolist()
        [[2], [4]]
    """
    if isinstance(expression, str):
        if expression not in arrays:
            near = nearest(expression, arrays)
            raise MerZooError(f"parity mapping: the file has no '{expression}', which is mapped to {whose}.{near}")
        return arrays[expression]
    try:
        if isinstance(expression, list):
            return torch.stack([evaluate(item, arrays, whose) for item in expression])
        if "cut" in expression:
            dim = int("columns" in expression)
            first, behind = (int(place) for place in expression["columns" if dim else "rows"])
            return evaluate(expression["cut"], arrays, whose).narrow(dim, first, behind - first)
        for key, dim in (("rows", 0), ("columns", 1)):
            if key in expression:
                return torch.cat([evaluate(item, arrays, whose) for item in expression[key]], dim)
        return evaluate(expression["transpose"], arrays, whose).t()
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        shapes = ", ".join(f"{name} {list(arrays[name].shape)}" for name in sources(expression))
        raise MerZooError(f"parity mapping: {whose} cannot be made of {shapes}: {error}.") from None


def _squeezed(x: Tensor) -> list[int]:
    return [size for size in x.shape if size != 1]
