"""What there is to know of a part or a recipe, from its card, its source and its signature.

Neither torch nor dgl is imported but for the table of settings, which needs the class itself.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib.util
import inspect
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mer_zoo import registry
from mer_zoo.commands import terminal
from mer_zoo.errors import MerZooError
from mer_zoo.registry import docstrings
from mer_zoo.registry.references import cited
from mer_zoo.showing import Shown, Table, Words


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("part", metavar="KIND/NAME", help="such as fusion/gated, or recipe/amb_dsgdn")


def run(options: argparse.Namespace) -> None:
    """Show all there is to know of a part or recipe."""
    description = describe(options.part)
    terminal.console().print(description)
    if "fault" in description.data:
        raise MerZooError(description.data["fault"])


@dataclass(frozen=True, repr=False)
class Description(Shown):
    """What is known of one part or recipe; print it, or let a notebook show it.

    Attributes:
        data: all of it, as plain values.
    """

    data: dict[str, Any]

    def shown(self) -> Iterator[Words | Table]:
        """Yield what it is, a line per fact, then tables."""
        data = self.data
        yield from (Words(data["id"], "title"), Words(data["summary"]), Words())
        if data.get("about", "") not in ("", data["summary"]):
            yield from (Words(data["about"]), Words())
        flat = {**data, **data.get("shapes", {})}
        yield Table(("", ""), [(key.lower(), _words(flat[key])) for key in ROWS if flat.get(key)])
        for title, headings, rows in _tables(data):
            if rows:
                yield Words()
                yield Table(headings, [[_words(cell) for cell in row] for row in rows], title)


def describe(name: str) -> Description:
    """Return all there is to know of `kind/name`, or of `recipe/name`.

    Args:
        name: of a part with its kind, or of a recipe.

    Returns:
        `Description`. Of a part, `data` has id, summary, about, contract, equation, paper, tags, dead, version, target,
        shapes (inputs and outputs), raises, example, recipes, source, card, facts, settings (type, default, meaning),
        promises (with their meaning) and, where the class cannot be imported, fault.

    Raises:
        MerZooError: there is no such part or recipe.

    Example:
        >>> known = describe("fusion/concat").data
        >>> "concat.py:" in known["source"], known["shapes"]["Outputs"]
        (True, 'float `[N, sum of widths]`.')
    """
    kind, _, rest = name.partition("/")
    return Description(_recipe(rest) if kind == "recipe" else _part(registry.find(*registry.split(name))))


def type_name(kind: Any) -> str:
    """Return a type as one would write it in a recipe's documentation.

    Args:
        kind: a class, or an annotation that `typing` understands.

    Example:
        >>> from typing import Literal
        >>> type_name(int | None), type_name(Literal["a", "b"]), type_name(dict[str, list[float]])
        ('int | null', "'a' | 'b'", 'dict[str, list[float]]')
    """
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return type_name(inside[0])
    if origin is typing.Literal:
        return " | ".join(map(repr, inside))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(type_name, inside))
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(type_name, inside))}]"
    if kind is Ellipsis:
        return "..."
    return "null" if kind is type(None) else getattr(kind, "__name__", str(kind))


def written(value: Any) -> str:
    """Return a setting's value as a recipe writes it.

    Args:
        value: what YAML can hold.

    Example:
        >>> written([1, None, True])
        '[1, null, true]'
    """
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(written, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _part(card: registry.Card) -> dict[str, Any]:
    """What is known of a part."""
    source, docstring = _source(card)
    data: dict[str, Any] = {
        "id": card.id,
        "summary": card.summary,
        "about": docstring.lead,
        "contract": registry.KINDS[card.kind].contract,
        "equation": card.equation,
        "paper": _paper(card.paper, card.name),
        "tags": list(card.tags),
        "dead": list(card.dead),
        "version": card.version,
        "target": card.target,
        "shapes": {key: docstring.sections[key] for key in ("Inputs", "Outputs") if key in docstring.sections},
        "raises": docstring.sections.get("Raises", ""),
        "example": docstring.sections.get("Example", ""),
        "recipes": _users(card),
        "source": source,
        "card": card.origin,
        "facts": {},
        "settings": {},
        "promises": {promise: registry.PROMISES[promise] for promise in card.promises},
    }
    try:
        if nodes := getattr(registry.load(card), "nodes", None) if card.kind == "graph" else None:
            data["own nodes"] = {name: f"per {of.per}, first {of.state}" for name, of in nodes.items()}
        return data | _signature(card, docstring.items("Args"))
    except MerZooError as fault:
        return data | {"fault": str(fault)}


def _signature(card: registry.Card, meanings: Mapping[str, str]) -> dict[str, Any]:
    """Facts and settings, read from the class."""
    cls = registry.load(card)
    for base in inspect.getmro(cls)[1:] if inspect.isclass(cls) else ():  # meanings of inherited settings
        meanings = {**docstrings.parse(base.__doc__).items("Args"), **meanings}
    return {
        "facts": {name: meanings.get(name, "").replace(" (a fact)", "") for name in registry.facts(card.kind, cls)},
        "settings": {
            setting.name: {
                "type": type_name(setting.type),
                "default": "required" if setting.required else setting.default,
                "meaning": meanings.get(setting.name, ""),
            }
            for setting in registry.settings(card.kind, cls).values()
        },
    }


def _paper(key: str | None, by: str) -> str | None:
    """The paper that a part or recipe cites, written out."""
    return key and str(cited(key, by) or f"'{key}', which is in no references.bib")


def _source(card: registry.Card) -> tuple[str, docstrings.Docstring]:
    """Return `file:line` of a part's class and its docstring, read without running the file."""
    module, _, name = card.target.rpartition(":")
    try:
        spec = None if module.endswith(".py") else importlib.util.find_spec(module)
        path = (spec and spec.origin) or module
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, ImportError, ValueError, SyntaxError):
        return card.target, docstrings.parse("")
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return f"{path}:{node.lineno}", docstrings.parse(ast.get_docstring(node))
    return path, docstrings.parse("")


def _users(card: registry.Card) -> list[str]:
    """Return the recipes that use a part."""
    names = {(card.kind, name) for name in (card.name, *card.aliases)}
    return [recipe for recipe, parts in _parts_by_recipe().items() if names & parts]


@registry.remembered
def _parts_by_recipe() -> dict[str, set[tuple[str, str]]]:
    """Return kind and name of every part of every recipe that can be read."""
    from mer_zoo.model import recipe

    found = {}
    for name in recipe.names():
        with contextlib.suppress(MerZooError):
            read = recipe.read(name).recipe
            parts = [(stage.kind, stage.part) for stage in read.model.values()]
            trained = [("graph", read.graph), ("balancing", read.balancing), ("loss", read.loss)]
            parts += trained if read.learner is None else [("learner", read.learner)]
            found[name] = {(kind, part.name) for kind, part in parts if part}
    return found


def _recipe(name: str) -> dict[str, Any]:
    """What is known of a recipe."""
    from mer_zoo.model import recipe

    read = recipe.read(name).recipe
    stages = {}
    for stage, entry in read.model.items():
        named = entry.part.plain() if entry.part else {"from": list(entry.sources)} if entry.sources else {}
        named |= {key: given for key, given in (("add", entry.add), ("padding", entry.padding)) if given is not None}
        stages[stage] = {"kind": entry.kind, **named, **entry.model_dump(exclude_defaults=True, exclude={entry.kind})}
    parts = {"graph": read.graph, "balancing": read.balancing, "loss": read.loss}
    return {
        "id": f"recipe/{name}",
        "summary": read.title,
        "paper": _paper(read.paper, name),
        "modalities": read.modalities,
        "tasks": dict(read.tasks) or None,
        "normalise": None if read.normalise == "none" else read.normalise,
        **({key: part and part.plain() for key, part in parts.items()} if read.learner is None else {}),
        **({"training": read.training.plain()} if read.learner is None else {"learner": read.learner.plain()}),
        "source": str(recipe.find(name)),
        "stages": stages,
        "notes": list(read.notes),
        "published": [score.model_dump() for score in read.published],
    }


ROWS = (
    *("contract", "own nodes", "equation", "paper", "tags", "dead", "modalities", "tasks", "normalise", "learner"),
    *("graph", "balancing", "loss", "training", "Inputs", "Outputs", "raises", "recipes", "source", "fault"),
)
"""What a terminal shows in a line, in this order; `_tables` has the rest."""


def _tables(data: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[str], Sequence[Sequence[Any]]]]:
    """Yield title, headings and rows of every table."""
    yield "facts, supplied by name", ["", ""], list(data.get("facts", {}).items())
    settings = [(name, *setting.values()) for name, setting in data.get("settings", {}).items()]
    yield "settings", ["", "type", "default", ""], settings
    yield "promises, proved by `mer-zoo check`", ["", ""], list(data.get("promises", {}).items())
    stages = []
    for name, stage in data.get("stages", {}).items():
        rest = {key: value for key, value in stage.items() if key not in ("kind", "name", "from")}
        stages.append((name, stage["kind"], stage.get("name") or stage.get("from"), rest))
    yield "stages", ["", "kind", "part", "settings"], stages
    yield "notes", [""], [(note,) for note in data.get("notes", ())]
    fields = ("dataset", "metric", "value", "where")
    yield "published", fields, [tuple(score[field] for field in fields) for score in data.get("published", ())]


def _words(value: Any) -> str:
    """A value in one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {written(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return " ".join(written(value).split())
