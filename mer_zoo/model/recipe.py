"""A recipe: one model, its graph, balancing, loss and training, as checked data."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from mer_zoo.data.normalising import Way
from mer_zoo.errors import MerZooError, nearest
from mer_zoo.model.changes import Change, changes_from
from mer_zoo.model.plan import Name, PartChoice, StageChoice, Strict, Training
from mer_zoo.registry import document, plugins, resources
from mer_zoo.registry.faults import described, short

Given = str | os.PathLike[str] | Mapping[str, Any]
"""A recipe as users give it: by name, by path, or as a mapping."""

LONGEST_CHAIN = 16  # recipes that extend one another


class Published(Strict):
    """A score from the literature, kept apart from anything measured here.

    Attributes:
        dataset: what it was measured on.
        metric: such as `weighted_f1`.
        value: in percent.
        where: table, log or page that says so.
        selected_on: split that chose the epoch.
        seeds: how many runs it is the mean of; null: unknown.
    """

    dataset: str
    metric: str
    value: float
    where: str
    selected_on: Literal["test", "validation", "unknown"]
    seeds: int | None = None


class Range(Strict):
    """Numbers that a search may draw from.

    Attributes:
        low, high: the ends; whole numbers are drawn if both are whole.
        log: draw orders of magnitude alike.
        step: distance of the numbers; null: any, or 1 for whole numbers.

    Raises:
        ValueError: an empty range, or one that `log` cannot have.
    """

    low: pydantic.StrictInt | pydantic.StrictFloat
    high: pydantic.StrictInt | pydantic.StrictFloat
    log: bool = False
    step: Annotated[float, pydantic.Field(gt=0)] | None = None

    @pydantic.model_validator(mode="after")
    def _can_be_drawn(self) -> Range:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}. Swap them")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("`log` needs a low above 0, and no step. Leave `log` out")
        if isinstance(self.low, int) and isinstance(self.high, int) and self.step and self.step != int(self.step):
            raise ValueError(f"step {self.step} between whole numbers. Use a whole step")
        return self


class Recipe(Strict):
    """A whole recipe; `fill` resolves it for a dataset.

    Attributes:
        title: one line for reports.
        paper: key into `references.bib`, or null.
        notes: how the code differs from the paper, and other things worth knowing.
        modalities: `all` that the data has, a list of names, or a mapping to the widths the features must have.
        graph: the graph builder, or null.
        tasks: label columns beside the emotion that heads judge -> how many classes each has.
        model: the stages in the order the data meets them, by name.
        learner: what is fitted without gradient descent; instead of a model, and of all that belongs to one.
        normalise: how features are brought to one scale: one word for all modalities, or modality -> word.
        balancing, loss: the parts.
        training: the loop's settings.
        published: scores from the literature.
        search: what `mer-zoo tune` may change: key -> list of values, or a range of numbers.
    """

    title: str
    paper: str | None = None
    notes: tuple[str, ...] = ()
    modalities: Literal["all"] | list[Name] | dict[Name, Annotated[int, pydantic.Field(strict=True, gt=0)]] = "all"
    graph: PartChoice | None = None
    tasks: dict[Name, pydantic.PositiveInt] = pydantic.Field(default_factory=dict)
    model: dict[Name, StageChoice] = pydantic.Field(default_factory=dict)
    learner: PartChoice | None = None
    normalise: Way | dict[Name, Way] = "none"
    balancing: PartChoice = PartChoice(name="none")
    loss: PartChoice = PartChoice(name="nll")
    training: Training = Training()
    published: tuple[Published, ...] = ()
    search: dict[str, Annotated[list[pydantic.JsonValue], pydantic.Field(min_length=1)] | Range] = pydantic.Field(
        default_factory=dict
    )

    @pydantic.model_validator(mode="after")
    def _one_or_the_other(self) -> Recipe:
        if self.learner is None and not self.model:
            raise ValueError("a recipe has a `model` (its stages) or a `learner`; this one has neither")
        idle = [key for key in ("model", "graph", "balancing", "loss", "training") if key in self.model_fields_set]
        if self.learner is not None and idle:
            raise ValueError(f"a `learner` is fitted as a whole: {', '.join(idle)} would not be used. Leave it out")
        return self

    @pydantic.field_validator("modalities")
    @classmethod
    def _no_modality_twice(cls, value: Any) -> Any:
        twice = [name for name in value if list(value).count(name) > 1] if isinstance(value, list) else []
        if twice:
            raise ValueError(f"'{twice[0]}' is there twice. Name each modality once")
        return value


@dataclass
class RecipeFile:
    """A parsed recipe with the places of its values, over all files it extends."""

    name: str
    recipe: Recipe
    pages: list[document.Document] = field(default_factory=list)
    changes: tuple[Change, ...] = ()

    def place(self, *location: Any) -> str:
        """Return where a value was given, with its dotted path: `mine.yaml:7:3 model.fuse`."""
        dotted = ".".join(short(str(step)) for step in location)
        return f"{_place(self.pages, self.changes, location)} {dotted}".strip()


def _place(pages: Sequence[document.Document], changes: Sequence[Change], location: Sequence[Any]) -> str:
    changed = {change.path: change.place for change in changes}
    for length in range(len(location), 0, -1):
        head = tuple(location[:length])
        if (written := tuple(str(step) for step in head)) in changed:
            return changed[written]
        for page in pages:
            if head in page.marks:
                return page.place(head)
    return pages[0].place() if pages else "recipe"


def names() -> list[str]:
    """Return the recipes that ship, and those of plugins.

    They are called `model` for `model/default.yaml`, `model/variant` for the others; a plugin's begin with its name.

    Example:
        >>> "amb_dsgdn" in names(), "amb_dsgdn/iemocap" in names()
        (True, True)
    """
    root = resources.folder("baselines")
    found = []
    for path in sorted(root.glob("*/*.yaml")):
        if path.parent.name not in ("suites", "parity", "results"):
            found.append(path.parent.name if path.stem == "default" else f"{path.parent.name}/{path.stem}")
    return sorted({*found, *plugins.files("recipes")})


def title(name: str) -> str:
    """Return the title of a recipe."""
    data = document.read(find(name)).data
    return str(data.get("title", "")) if isinstance(data, dict) else ""


def find(name: str) -> Path:
    """Return the file of a recipe: a shipped name, or a path."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if os.path.isfile(path):
            return path
        raise MerZooError(f"{short(name)}: {'a folder, not a file' if os.path.isdir(path) else 'no such file'}.")
    if name in plugins.files("recipes"):
        return plugins.files("recipes")[name]
    if name in names():
        root = resources.folder("baselines") / name
        return root / "default.yaml" if root.is_dir() else root.with_suffix(".yaml")
    raise MerZooError(
        f"no recipe named '{short(name)}'.{nearest(short(name), names())} See `mer-zoo list recipe`; a file ends in "
        ".yaml."
    )


def read(given: Given, changes: Iterable[str | Change] | Mapping[str, Any] = ()) -> RecipeFile:
    """Read a recipe, with changes; every fault of it is reported at once.

    Args:
        given: shipped name, path of a YAML file, or what stands in one as a mapping.
        changes: such as `training.epochs=5` or `model.context.encoder.dropout=0.1`, whose values are YAML; key ->
            value; or ready.

    Raises:
        MerZooError: no such recipe, or what is in it cannot be used.

    Example:
        >>> read({"extends": "bilstm", "title": "Mine"}, {"training.epochs": 5}).recipe.training.epochs
        5
    """
    made = changes_from(changes)
    if isinstance(given, Mapping):
        pages, data = _extended(_plain(given), [], Path(), [])
    else:
        pages, data = _read_chain(find(os.fspath(given)), [])
    for change in made:
        _apply(change, data)
    file = RecipeFile(called(given), Recipe.model_construct(), pages, made)
    try:
        file.recipe = Recipe.model_validate(data)
    except pydantic.ValidationError as error:
        raise MerZooError(described(error, Recipe, data, file.place)) from None
    return file


def called(given: Given) -> str:
    """Return what tables call a recipe: its name, the stem of its file, or the title of a mapping.

    Example:
        >>> called("mmgcn"), called("mine/best.yaml"), called({"title": "Mine"})
        ('mmgcn', 'best', 'Mine')
    """
    if isinstance(given, Mapping):
        return str(given.get("title", "recipe"))
    name = os.fspath(given)
    return Path(name).stem if name.endswith((".yaml", ".yml")) else name


def _read_chain(path: Path, seen: list[Path]) -> tuple[list[document.Document], dict[str, Any]]:
    if len(seen) >= LONGEST_CHAIN:
        raise MerZooError(f"{path}: more than {LONGEST_CHAIN} recipes extend one another. Write some of them out.")
    if path.resolve() in seen:
        raise MerZooError(f"{path}: extends itself through {', '.join(str(p) for p in seen)}.")
    page = document.read(path)
    if not isinstance(page.data, dict):
        raise MerZooError(f"{path}: a recipe is a mapping with 'title' and 'model'.")
    return _extended(copy.deepcopy(page.data), [page], path.parent, [*seen, path.resolve()])


def _extended(
    data: dict[str, Any], pages: list[document.Document], folder: Path, seen: list[Path]
) -> tuple[list[document.Document], dict[str, Any]]:
    """Lay a recipe's data over what they extend."""
    base = data.pop("extends", None)
    if base is None:
        return pages, data
    beside = folder / str(base)
    try:
        parent = beside if os.path.isfile(beside) else find(str(base))
    except MerZooError as error:
        raise MerZooError(f"{_place(pages, (), ['extends'])} extends: {error}") from None
    below, merged = _read_chain(parent, seen)
    return [*pages, *below], _merge(merged, data)


def _plain(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of plain data."""
    try:
        return json.loads(json.dumps(dict(given), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise MerZooError(f"recipe: must be plain data: words, numbers, lists, mappings ({error}).") from None


def _merge(below: Any, above: Any) -> Any:
    """Lay one mapping over another: null removes, a part with another name and anything but a mapping replaces.

    Where the upper mapping names all keys of the lower, its order counts; so a variant may put a stage in between.
    """
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    if "name" in above and above["name"] != below.get("name"):
        return above
    laid = {key: _merge(below[key], value) if key in below else value for key, value in above.items()}
    merged = laid if below.keys() <= above.keys() else {**below, **laid}
    return {key: value for key, value in merged.items() if value is not None}


def _apply(change: Change, data: dict[str, Any]) -> None:
    """Set the value in a recipe's data; mappings on the way are made."""
    here: Any = data
    for number, word in enumerate(change.path[:-1]):
        if number == 0 and word not in Recipe.model_fields:
            known = nearest(short(word), Recipe.model_fields)
            raise MerZooError(f"{change.place} {short(change.key)}: a recipe has no '{short(word)}'.{known}")
        if number == 1 and change.path[0] == "model" and word not in here:
            known = nearest(short(word), here)
            raise MerZooError(f"{change.place} {short(change.key)}: the model has no stage '{short(word)}'.{known}")
        if not isinstance(here.get(word), dict):
            here[word] = {"name": here[word]} if isinstance(here.get(word), str) else {}
        here = here[word]
    here[change.path[-1]] = copy.deepcopy(change.value)
