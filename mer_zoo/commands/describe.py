"""What there is to know of a part or a recipe, from its card, its source and its signature.

Neither torch nor dgl is imported but for the table of settings, which needs the class itself.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_zoo import registry
from mer_zoo.errors import MerZooError
from mer_zoo.registry.references import references

if TYPE_CHECKING:
    from rich.console import Group

CONTRACTS: dict[str, str] = {
    "dataset": "makes a `Dataset`, or gives one when called; a setting `seed` decides what is random",
    "extractor": "utterances of a dialogue → float32 `[utterances, out_width]`; tells its `modality` and `out_width`",
    "encoder": "x float `[N, width]`, dialogues → float `[N, out_width]`",
    "graph": "`edges(conversation)` → edge type -> (sources, targets); tells `relations` and `edge_types`",
    "edge_weight": "x float `[nodes, width]`, edges, dialogues → masked edge tensor `[*edges]`",
    "layer": "x float `[nodes, width]`, edges, weights `[*edges]` or None → float `[nodes, out_width]`",
    "fusion": "states: modality -> float `[N, width]`, dialogues → float `[N, out_width]`",
    "balancing": "hooks on the training loop, see `mer_zoo.parts.balancing.base`; no effect in evaluation",
    "head": "x float `[N, width]`, dialogues → logits float `[N, classes]`",
    "loss": "output, labels int64 `[N]` (-1: none) → scalar",
    "kernel": "message passing on the lowered edges of a batch, see `mer_zoo.kernel.base`",
    "learner": "`fit(train, validation, label_names, seed=)`, `predict_proba(conversation)` → float64 `[utt, classes]`",
}
"""What every kind of part takes and gives."""


def _text(shown: Any) -> str:
    """Return what rich would print, as plain text."""
    from rich.console import Console

    console = Console(width=100)
    with console.capture() as capture:
        console.print(shown)
    return capture.get()


@dataclass(frozen=True)
class Description:
    """What is known of one part or recipe; `data` is plain, printing it by rich shows it in the terminal."""

    data: dict[str, Any]

    def __rich__(self) -> Group:
        return _shown(self.data)

    def __str__(self) -> str:
        return _text(self)


@dataclass(frozen=True)
class Listing:
    """Cards as rows; `data` is plain, printing it by rich shows a table for every kind."""

    data: list[dict[str, Any]]

    def __str__(self) -> str:
        return _text(self)

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.table import Table

        tables = []
        for kind in dict.fromkeys(row["kind"] for row in self.data):
            table = Table("name", "", "paper", title=kind.replace("_", " "), title_justify="left", box=None)
            for row in self.data:
                if row["kind"] == kind:
                    paper = references().get(row["paper"] or "")
                    table.add_row(row["name"], row["summary"], paper.short if paper else "")
            tables.append(table)
        return Group(*tables)


def listing(kind: str | None = None, pattern: str = "*", tag: str | None = None) -> Listing:
    """List cards.

    Args:
        kind: of this kind only.
        pattern: wildcard on the name, or on `kind/name`.
        tag: with this tag only.

    Example:
        >>> [row["name"] for row in listing("fusion", "conc*").data]
        ['concat']
    """
    if kind is None and "/" in pattern:
        kind, pattern = registry.split(pattern)
    keys = ("kind", "name", "summary", "paper", "tags", "promises", "version", "aliases")
    return Listing([{key: _plain(getattr(card, key)) for key in keys} for card in registry.cards(kind, pattern, tag)])


def describe(name: str) -> Description:
    """Tell all there is to know of `kind/name`, or of `recipe/name`.

    Returns:
        `Description`. Of a part, `data` has id, summary, contract, about, equation, paper, tags, promises (with their
        meaning), dead, facts, settings (type, default, meaning), shapes (inputs and outputs), raises, example, source,
        card, recipes and, where the class cannot be imported, fault.

    Raises:
        MerZooError: there is no such part or recipe.

    Example:
        >>> known = describe("fusion/concat").data
        >>> "concat.py:" in known["source"], known["shapes"]["Outputs"]
        (True, 'float `[N, sum of widths]`.')
    """
    kind, _, rest = name.partition("/")
    if kind == "recipe":
        return Description(_recipe(rest))
    card = registry.find(*registry.split(name))
    source, docstring = _source(card)
    sections = _sections(docstring)
    paper = references().get(card.paper or "")
    data: dict[str, Any] = {
        "id": card.id,
        "summary": card.summary,
        "contract": CONTRACTS[card.kind],
        "about": sections.pop("", ""),
        "equation": card.equation,
        "paper": None if card.paper is None else str(paper or card.paper),
        "tags": list(card.tags),
        "promises": {promise: registry.PROMISES[promise] for promise in card.promises},
        "dead": list(card.dead),
        "version": card.version,
        "target": card.target,
        "source": source,
        "card": card.origin,
        "shapes": {key: sections[key] for key in ("Inputs", "Outputs") if key in sections},
        "raises": sections.get("Raises", ""),
        "example": sections.get("Example", ""),
        "recipes": _users(card),
    }
    try:
        data |= _signature(card, _items(sections.get("Args", "")))
    except MerZooError as fault:
        data |= {"facts": {}, "settings": {}, "fault": str(fault)}
    return Description(data)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _signature(card: registry.Card, meanings: Mapping[str, str]) -> dict[str, Any]:
    """Facts and settings, read from the class."""
    cls = registry.load(card)
    for base in inspect.getmro(cls)[1:] if inspect.isclass(cls) else ():  # meanings of inherited settings
        inherited = _sections(inspect.getdoc(base) or "").get("Args", "")
        meanings = {**_items(inherited), **meanings}
    return {
        "facts": {n: re.sub(r" \(a fact\)|^facts\.$", "", meanings.get(n, "")) for n in registry.facts(card.kind, cls)},
        "settings": {
            s.name: {
                "type": type_name(s.type),
                "default": "required" if s.required else s.default,
                "meaning": meanings.get(s.name, ""),
            }
            for s in registry.settings(card.kind, cls).values()
        },
    }


def type_name(kind: Any) -> str:
    """Return a type as one would write it.

    Example:
        >>> from typing import Literal
        >>> type_name(int | None), type_name(Literal["a", "b"]), type_name(list[float])
        ('int | null', "'a' | 'b'", 'list[float]')
    """
    text = kind.__name__ if inspect.isclass(kind) and not hasattr(kind, "__args__") else str(kind)
    text = re.sub(r"(?:typing\.)?Literal\[([^\]]*)\]", lambda m: m[1].replace(", ", " | "), text)
    text = re.sub(r"(?:typing\.)?Optional\[(.*)\]$", r"\1 | None", text)
    text = re.sub(r"(?:typing\.)?Union\[(.*)\]$", lambda m: m[1].replace(", ", " | "), text)
    return text.replace("NoneType", "None").replace("None", "null")


def _source(card: registry.Card) -> tuple[str, str]:
    """Return `file:line` of a part's class and its docstring, read without running the file."""
    module, _, name = card.target.rpartition(":")
    try:
        found = module if module.endswith(".py") else (importlib.util.find_spec(module) or _Nowhere).origin
        path = Path(found or "")
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, ImportError, ValueError, SyntaxError):
        return card.target, ""
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return f"{path}:{node.lineno}", ast.get_docstring(node) or ""
    return str(path), ""


class _Nowhere:
    origin = None


def _sections(docstring: str) -> dict[str, str]:
    """Take a docstring apart at its headings (`Inputs:`, `Args:`, ...); the text before them is under ""."""
    parts = re.split(r"^(\w[\w ]*)(?: \([^)]*\))?:\s*\n(?=\s+\S)", inspect.cleandoc(docstring), flags=re.MULTILINE)
    sections = {"": parts[0].strip()}
    for heading, text in zip(parts[1::2], parts[2::2], strict=True):
        sections[heading] = inspect.cleandoc("\n" + text)
    return sections


def _items(section: str) -> dict[str, str]:
    """Take `name, other: meaning` lines apart."""
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", section):
        names, colon, meaning = entry.partition(":")
        if colon:
            found |= {name.strip(): " ".join(meaning.split()) for name in names.split(",")}
    return found


def _users(card: registry.Card) -> list[str]:
    """Return the recipes that use a part."""
    from mer_zoo.model import recipe

    def uses(name: str) -> bool:
        try:
            read = recipe.read(name).recipe
        except MerZooError:
            return False
        parts = [(stage.kind, stage.part.name) for stage in read.model.values() if stage.part is not None]
        parts += [("balancing", read.balancing.name), ("loss", read.loss.name)]
        parts += [("graph", read.graph.name)] if read.graph else []
        return any(kind == card.kind and part in (card.name, *card.aliases) for kind, part in parts)

    return [name for name in recipe.names() if uses(name)]


def _recipe(name: str) -> dict[str, Any]:
    """What is known of a recipe."""
    from mer_zoo.model import recipe

    read = recipe.read(name).recipe
    paper = references().get(read.paper or "")
    stages = {}
    for stage, entry in read.model.items():
        given = entry.model_dump(exclude_defaults=True, exclude={entry.kind})
        told = {"from": list(entry.sources)} if entry.part is None else entry.part.plain()
        stages[stage] = {"kind": entry.kind, **told, **given}
    return {
        "id": f"recipe/{name}",
        "summary": read.title,
        "paper": None if read.paper is None else str(paper or read.paper),
        "notes": list(read.notes),
        "modalities": read.modalities,
        "graph": {"name": read.graph.name, **read.graph.settings} if read.graph else None,
        "stages": stages,
        "balancing": {"name": read.balancing.name, **read.balancing.settings},
        "loss": {"name": read.loss.name, **read.loss.settings},
        "training": read.training.model_dump(),
        "published": [score.model_dump() for score in read.published],
        "source": str(recipe.find(name)),
    }


def _shown(data: Mapping[str, Any]) -> Group:
    """Lay a description out for the terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    lines: list[Any] = [Text(data["id"], "bold"), Text(data["summary"]), Text()]
    if data.get("about", "") not in ("", data["summary"]):
        lines += [Text(data["about"]), Text()]
    grid = Table.grid(padding=(0, 2))

    def row(label: str, value: Any) -> None:
        if value not in (None, "", [], {}, ()):
            grid.add_row(Text(label, "cyan"), Text(_words(value)))

    def table(title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            made = Table(*headings, box=None, pad_edge=False, show_header=any(headings))
            for cells in rows:
                made.add_row(*(Text(_words(cell)) for cell in cells))
            lines.extend([Text(), Text(title, "cyan"), made])

    for label in ("contract", "equation", "paper", "tags", "dead", "modalities", "graph", "balancing", "loss"):
        row(label, data.get(label))
    row("training", _rest(data.get("training", {}), ()))
    for heading, text in data.get("shapes", {}).items():
        row(heading.lower(), " ".join(text.split()))
    row("raises", " ".join(data.get("raises", "").split()))
    row("recipes", data.get("recipes"))
    row("source", data.get("source"))
    row("fault", data.get("fault"))
    lines.append(grid)
    settings = data.get("settings", {})
    table("facts, supplied by name", ["", ""], list(data.get("facts", {}).items()))
    table(
        "settings",
        ["", "type", "default", ""],
        [(name, s["type"], _value(s["default"]), s["meaning"]) for name, s in settings.items()],
    )
    table("promises, proved by `mer-zoo check`", ["", ""], list(data.get("promises", {}).items()))
    stages = data.get("stages", {})
    table(
        "stages",
        ["", "kind", "part", "settings"],
        [
            (name, s["kind"], s.get("name") or s.get("from"), _rest(s, ("kind", "name", "from")))
            for name, s in stages.items()
        ],
    )
    table("notes", [""], [(note,) for note in data.get("notes", [])])
    table(
        "published",
        ["dataset", "metric", "value", "where"],
        [(s["dataset"], s["metric"], s["value"], s["where"]) for s in data.get("published", [])],
    )
    return Group(*lines)


def _rest(mapping: Mapping[str, Any], but: Sequence[str]) -> str:
    return ", ".join(f"{key}: {_value(value)}" for key, value in mapping.items() if key not in but)


def _value(value: Any) -> str:
    words: dict[Any, str] = {True: "true", False: "false"}
    return "null" if value is None else words[value] if isinstance(value, bool) else str(value)


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return _rest(value, ())
    return ", ".join(str(v) for v in value) if isinstance(value, (list, tuple)) else str(value)
