"""Tables of the file formats' fields, made from the classes that read them."""

from __future__ import annotations

from typing import Any

from docs.generator.pages import Pages, table
from docs.generator.python import prose
from mer_zoo import registry
from mer_zoo.commands.describe import type_name, written
from mer_zoo.comparison import suite
from mer_zoo.data import container, tabular
from mer_zoo.data import table as table_
from mer_zoo.model import plan, recipe
from mer_zoo.registry import docstrings
from mer_zoo.results import result
from mer_zoo.training import checkpoint

RECORDS: dict[str, Any] = {
    "recipe": recipe.Recipe,
    "stage": plan.StageChoice,
    "training": plan.Training,
    "published": recipe.Published,
    "suite": suite.Suite,
    "suite-entry": suite.Entry,
    "range": recipe.Range,
    "result": result.Result,
}


def pages() -> Pages:
    """Return the fragments that `reference/formats.md` includes."""
    made = {f"made/{name}.md": _fields(cls) for name, cls in RECORDS.items()}
    for name, module in (("container", container), ("checkpoint", checkpoint), ("table", tabular), ("tables", table_)):
        made[f"made/{name}.md"] = prose(docstrings.parse(module.__doc__).lead)
    meanings = docstrings.parse(registry.Card.__doc__).items("Attributes")
    required = ("target", "summary", "paper")
    rows = [(f"`{f}`", "*required*" if f in required else "", meanings.get(f, "")) for f in registry.FIELDS]
    made["made/card.md"] = table(["key", "", "meaning"], rows)
    rows = [(f"`{p}`", text, ", ".join(registry.promised_by(p))) for p, text in registry.PROMISES.items()]
    made["made/promises.md"] = table(["promise", "meaning", "of kinds"], rows)
    rows = [(name, kind.contract, ", ".join(f"`{f}`" for f in kind.facts)) for name, kind in registry.KINDS.items()]
    made["made/kinds.md"] = table(["kind", "takes → gives", "facts"], rows)
    return made


def _fields(model: Any) -> str:
    meanings = docstrings.parse(model.__doc__).items("Attributes", "Args")
    rows = []
    for name, field in model.model_fields.items():
        default = "*required*" if field.is_required() else f"`{_plain(field.default)}`"
        rows.append(
            (
                f"`{name}`",
                f"`{type_name(field.annotation)}`",
                default,
                meanings.get(name, "") or _about(field.annotation),
            )
        )
    return table(["key", "type", "default", "meaning"], rows)


def _about(annotation: Any) -> str:
    """What a record of ours says of itself."""
    own = getattr(annotation, "__module__", "").startswith("mer_zoo")
    return docstrings.parse(annotation.__doc__).lead.split("\n\n")[0] if own else ""


def _plain(value: Any) -> str:
    if isinstance(value, plan.PartChoice):
        return value.name
    if isinstance(value, plan.Training):
        return "{}"
    return written(value)
