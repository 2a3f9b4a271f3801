"""A page for every card, made of what `mer-zoo describe` shows, with drawings and links."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docs.generator import drawings, papers
from docs.generator.pages import ROOT, Pages, raw, recipe_anchor, source_link, table, toctree
from docs.generator.python import prose
from mer_zoo import registry
from mer_zoo.commands.describe import describe, written
from mer_zoo.registry import docstrings
from mer_zoo.registry.references import references


def faults(cards: Sequence[registry.Card]) -> list[str]:
    """Return what keeps a card from having a complete page."""
    found = []
    for card in cards:
        known = describe(card.id).data
        missing = [name for name, setting in known["settings"].items() if not setting["meaning"]]
        if "fault" in known:
            found.append(f"{card.id}: {known['fault']}")
        if missing:
            found.append(f"{card.id}: no meaning under 'Args:' for the settings {', '.join(missing)}.")
        if card.paper is not None and card.paper not in references():
            found.append(f"{card.id}: paper '{card.paper}' is not in references.bib.")
    return found


def pages(cards: Sequence[registry.Card]) -> Pages:
    """Return the pages of all cards, of every kind, and of the whole catalogue."""
    made: Pages = {}
    kinds = [kind for kind in registry.KINDS if any(card.kind == kind for card in cards)]
    for kind in kinds:
        members = [card for card in cards if card.kind == kind]
        rows = [(f"[{card.name}](#part-{kind}-{card.name})", card.summary, papers.link(card.paper)) for card in members]
        facts = ", ".join(f"`{name}`" for name in registry.KINDS[kind].facts)
        made[f"catalogue/{kind}/index.md"] = "\n\n".join(
            [
                f"# {registry.KINDS[kind].title}",
                f"Contract: {prose(registry.KINDS[kind].contract)}. N is the number of utterances in a batch.",
                f"Facts that its `__init__` may ask for, by position: {facts}." if facts else "",
                table(["name", "what it does", "paper"], rows),
                toctree(card.name for card in members),
            ]
        )
        made |= {f"catalogue/{kind}/{card.name}.md": _page(card) for card in members}
    rows = []
    for name in kinds:
        count = sum(card.kind == name for card in cards)
        rows.append((f"[{registry.KINDS[name].title}]({name}/index.md)", count, registry.KINDS[name].contract))
    made["catalogue/index.md"] = "\n\n".join(
        [
            "# Parts",
            "Every part is a class and a card. These pages are made from both each time the site is built.",
            table(["kind", "parts", "takes → gives"], rows),
            toctree(f"{kind}/index" for kind in kinds),
        ]
    )
    return made


def _page(card: registry.Card) -> str:
    known = describe(card.id).data
    kind = card.kind.replace("_", " ")
    parts = [f"(part-{card.kind}-{card.name})=\n# {card.name}", f"*{kind}*, paper: {papers.link(card.paper)}"]
    if card.equation and "$$" not in known["about"]:
        parts.append(f"$$\n{card.equation}\n$$")
    parts.append(prose(known["about"] or card.summary))
    if card.kind == "graph":
        caption, figures = drawings.relations(card)
        parts += ["## Relations", caption, raw(figures)]
        if own := known.get("own nodes"):
            rows = [(f"`{name}`", text) for name, text in own.items()]
            parts += ["## Nodes of its own", table(["node type", "how many, and what they are at first"], rows)]
    parts += ["## Settings", _settings(card, known["settings"])]
    parts += ["## Shapes", _shapes(card, known), "## Promises", _promises(card)]
    if known["raises"]:
        parts += ["## Errors", _errors(known["raises"])]
    if known["example"]:
        parts += ["## Example", f"```pycon\n{known['example']}\n```"]
    shown = ", ".join(f"[{name}](#recipe-{recipe_anchor(name)})" for name in known["recipes"])
    file, _, line = known["source"].rpartition(":")
    path = Path(file).resolve()
    ours = path.is_relative_to(ROOT)
    code = source_link(path.relative_to(ROOT).as_posix(), int(line), up=2) if ours else f"`{path.name}:{line}`"
    facts = {
        "used by": shown or "no recipe yet",
        "code": code,
        "card": f"`registry/{card.kind}/{card.name}.yaml`, version {card.version}",
        "tags": ", ".join(card.tags),
        "former names": ", ".join(card.aliases),
    }
    lines = [f"- {name}: {value}" for name, value in facts.items() if value]
    return "\n\n".join([*parts, "## Where it is", "\n".join(lines)])


def _errors(section: str) -> str:
    found = docstrings.entries(section)
    return "\n".join(f"- `{names}`: {prose(when)}" if names else f"- {prose(when)}" for names, when in found)


def _settings(card: registry.Card, settings: dict[str, Any]) -> str:
    if not settings:
        return "It has none."
    rows = [
        (f"`{name}`", f"`{s['type']}`", f"`{written(s['default'])}`", prose(s["meaning"]))
        for name, s in settings.items()
    ]
    parts = [table(["name", "type", "default", "meaning"], rows)]
    if place := registry.KINDS[card.kind].place:
        shown = [f"{n}: ..." for n, s in settings.items() if s["default"] == "required"]
        shown += [f"{n}: {written(s['default'])}" for n, s in settings.items() if s["default"] != "required"][:1]
        given = f"{card.kind}: {{name: {card.name}, {', '.join(shown)}}}"
        parts.append(f"In a recipe:\n\n```yaml\n{given if place == 'top' else f'my_stage: {{{given}}}'}\n```")
    return "\n\n".join(parts)


def _shapes(card: registry.Card, known: dict[str, Any]) -> str:
    lines = []
    for name, word in (("Inputs", "In"), ("Outputs", "Out")):
        if name in known["shapes"]:
            lines.append(f"- {word}: {prose(' '.join(known['shapes'][name].split()))}")
    if not lines:
        lines = [f"- As every {card.kind.replace('_', ' ')}: {prose(registry.KINDS[card.kind].contract)}."]
    if known["facts"] and card.kind != "kernel":
        facts = "; ".join(f"`{n}`" + (f", {m.rstrip('.')}" if m else "") for n, m in known["facts"].items())
        lines.append(f"- Facts it asks for: {facts}.".replace(" (a fact)", "").replace(" (facts)", ""))
    return "\n".join(lines)


def _promises(card: registry.Card) -> str:
    lines = [f"- **{promise.replace('_', ' ')}**: {registry.PROMISES[promise]}" for promise in card.promises]
    text = f"`mer-zoo check {card.id}` proves the contract of its kind"
    text += " and:\n\n" + "\n".join(lines) if lines else "; its card promises nothing beyond it."
    if card.dead:
        text += f"\n\nBy the published definition no gradient reaches {', '.join(f'`{d}`' for d in card.dead)}."
    return text
