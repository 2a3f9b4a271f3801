"""A recipe: one model, its graph, balancing, loss and training, as checked data."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pydantic

from mer_zoo.data.normalising import Way
from mer_zoo.errors import MerZooError, nearest
from mer_zoo.model.plan import PartChoice, StageChoice, Strict, Training
from mer_zoo.registry import document, resources


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


class Recipe(Strict):
    """A whole recipe; `fill` resolves it for a dataset.

    Attributes:
        title: one line for reports.
        paper: key into `references.bib`, or null.
        notes: how the code differs from the paper, and other things worth knowing.
        modalities: `all` that the data has, a list of names, or a mapping to the widths the features must have.
        graph: the graph builder, or null.
        model: the stages in the order the data meets them, by name.
        learner: what is fitted without gradient descent; instead of a model, and of all that belongs to one.
        normalise: how features are brought to one scale: one word for all modalities, or modality -> word.
        balancing, loss: the parts.
        training: the loop's settings.
        published: scores from the literature.
    """

    title: str
    paper: str | None = None
    notes: tuple[str, ...] = ()
    modalities: Literal["all"] | list[str] | dict[str, int] = "all"
    graph: PartChoice | None = None
    model: dict[str, StageChoice] = pydantic.Field(default_factory=dict)
    learner: PartChoice | None = None
    normalise: Way | dict[str, Way] = "none"
    balancing: PartChoice = PartChoice(name="none")
    loss: PartChoice = PartChoice(name="nll")
    training: Training = Training()
    published: tuple[Published, ...] = ()

    @pydantic.model_validator(mode="after")
    def _one_or_the_other(self) -> Recipe:
        if self.learner is None and not self.model:
            raise ValueError("a recipe has a `model` (its stages) or a `learner`; this one has neither")
        idle = [key for key in ("model", "graph", "balancing", "loss", "training") if key in self.model_fields_set]
        if self.learner is not None and idle:
            raise ValueError(f"a `learner` is fitted as a whole: {', '.join(idle)} would not be used. Leave it out")
        return self


@dataclass
class RecipeFile:
    """A parsed recipe with the places of its values, over all files it extends."""

    name: str
    recipe: Recipe
    pages: list[document.Document] = field(default_factory=list)
    overrides: tuple[tuple[str, ...], ...] = ()

    def place(self, *location: Any) -> str:
        """Return where a value was given, with its dotted path: `mine.yaml:7:3 model.fuse`."""
        return f"{_place(self.pages, self.overrides, location)} {'.'.join(str(x) for x in location)}".strip()


def _place(pages: Sequence[document.Document], overrides: Sequence[tuple[str, ...]], location: Sequence[Any]) -> str:
    for length in range(len(location), 0, -1):
        head = tuple(location[:length])
        if tuple(str(x) for x in head) in overrides:
            return "-o"
        for page in pages:
            if head in page.marks:
                return page.place(head)
    return pages[0].place() if pages else "recipe"


def names() -> list[str]:
    """Return the recipes that ship: `model` for `model/default.yaml`, `model/variant` for the others.

    Example:
        >>> "amb_dsgdn" in names(), "amb_dsgdn/iemocap" in names()
        (True, True)
    """
    root = resources.folder("baselines")
    found = []
    for path in sorted(root.glob("*/*.yaml")):
        if path.parent.name not in ("suites", "parity", "results"):
            found.append(path.parent.name if path.stem == "default" else f"{path.parent.name}/{path.stem}")
    return sorted(found)


def title(name: str) -> str:
    """Return the title of a recipe."""
    return str(document.plain(find(name).read_text(encoding="utf-8")).get("title", ""))


def find(name: str) -> Path:
    """Return the file of a recipe: a shipped name, or a path."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    if name in names():
        root = resources.folder("baselines") / name
        return root / "default.yaml" if root.is_dir() else root.with_suffix(".yaml")
    raise MerZooError(
        f"no recipe named '{name}'.{nearest(name, names())} See `mer-zoo list recipe`; a file ends in .yaml."
    )


def read(name: str, overrides: Iterable[str] = ()) -> RecipeFile:
    """Read a recipe by name or path, with `key=value` overrides; every fault of the file is reported at once.

    Args:
        name: shipped name, or path of a YAML file.
        overrides: such as `training.epochs=5` or `model.context.encoder.dropout=0.1`; values are YAML.
    """
    pages, data = _read_chain(find(name), [])
    changed = tuple(_override(data, text) for text in overrides)
    try:
        recipe = Recipe.model_validate(data)
    except pydantic.ValidationError as error:
        raise MerZooError("\n".join(_describe(fault, pages, changed) for fault in error.errors())) from None
    return RecipeFile(_short(name), recipe, pages, changed)


def _short(name: str) -> str:
    return Path(name).stem if name.endswith((".yaml", ".yml")) else name


def _read_chain(path: Path, seen: list[Path]) -> tuple[list[document.Document], dict[str, Any]]:
    if path.resolve() in seen:
        raise MerZooError(f"{path}: extends itself through {', '.join(str(p) for p in seen)}.")
    page = document.read(path)
    if not isinstance(page.data, dict):
        raise MerZooError(f"{path}: a recipe is a mapping with 'title' and 'model'.")
    data = copy.deepcopy(page.data)
    base = data.pop("extends", None)
    if base is None:
        return [page], data
    beside = path.parent / str(base)
    try:
        parent = beside if beside.is_file() else find(str(base))
    except MerZooError as error:
        raise MerZooError(f"{page.place(['extends'])} extends: {error}") from None
    pages, merged = _read_chain(parent, [*seen, path.resolve()])
    return [page, *pages], _merge(merged, data)


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


def _override(data: dict[str, Any], text: str) -> tuple[str, ...]:
    key, equals, value = text.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise MerZooError(f"-o {text}: want key=value, such as training.epochs=5.")
    here: Any = data
    for i, word in enumerate(path[:-1]):
        if i == 0 and word not in Recipe.model_fields:
            raise MerZooError(f"-o {text}: a recipe has no '{word}'.{nearest(word, Recipe.model_fields)}")
        if i == 1 and path[0] == "model" and word not in here:
            raise MerZooError(f"-o {text}: the model has no stage '{word}'.{nearest(word, here)}")
        if not isinstance(here.get(word), dict):
            here[word] = {"name": here[word]} if isinstance(here.get(word), str) else {}
        here = here[word]
    try:
        here[path[-1]] = document.plain(value)
    except Exception:
        raise MerZooError(f"-o {text}: '{value}' is not valid YAML.") from None
    return path


def _describe(fault: Any, pages: Sequence[document.Document], overrides: Sequence[tuple[str, ...]]) -> str:
    location = [x for x in fault["loc"] if x not in ("Part", "dict[str,int]", "list[str]", "literal['all']", "str")]
    where = f"{_place(pages, overrides, location)} {'.'.join(str(x) for x in location)}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        known: Any = {1: Recipe, 2: Training, 3: StageChoice}.get(len(location), Recipe)
        return f"{where}: unknown key.{nearest(str(location[-1]), known.model_fields)}"
    if fault["type"] == "missing":
        return f"{where}: is missing. Add it."
    return f"{where}: {message} (given: {json.dumps(fault['input'], default=str)[:80]})."
