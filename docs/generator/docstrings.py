"""From a docstring in the house order (sentence, equation, sections) to Markdown."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from typing import Any

SECTIONS = ("Inputs", "Outputs", "Attributes", "Args", "Returns", "Raises", "Example")
_HEADING = re.compile(rf"^({'|'.join(SECTIONS)}):$")
_ITEM = re.compile(r"^((?:\*{0,2}[A-Za-z_]\w*(?:, )?)+): (.*)$")
_CLASS = re.compile(r"(?<![\[`])`([A-Z]\w+)`(?![\]`])")


@dataclass
class Docstring:
    """A docstring taken apart: what stands before the sections, and each section's lines."""

    lead: str = ""
    sections: dict[str, str] = field(default_factory=dict)

    def items(self, *names: str) -> dict[str, str]:
        """Return name -> explanation of the items in these sections; `a, b: text` explains both."""
        found: dict[str, str] = {}
        for name in names:
            for names_, text in _items(self.sections.get(name, "")):
                if names_:
                    found.update(dict.fromkeys((n.strip("* ") for n in names_.split(",")), text))
        return found


def parse(thing: Any) -> Docstring:
    """Take apart the docstring of an object (its own, not an inherited one), or a text."""
    text = thing if isinstance(thing, str) else vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    result, current, lines = Docstring(), "", []  # type: ignore[var-annotated]
    for line in [*inspect.cleandoc(text or "").splitlines(), "Example:"]:
        heading = _HEADING.match(line)
        if heading is None:
            lines.append(line)
            continue
        body = inspect.cleandoc("\n" + "\n".join(lines)).strip()
        if current and body:
            result.sections[current] = body
        elif not current:
            result.lead = body
        current, lines = heading[1], []
    return result


def _items(body: str) -> list[tuple[str, str]]:
    """Split a section into (names, text); text without a name has the name ""."""
    found: list[tuple[str, str]] = []
    for line in body.splitlines():
        item = _ITEM.match(line)
        if item:
            found.append((item[1], item[2]))
        elif line.startswith(" ") and found:
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
        elif line.strip():
            if found and not found[-1][0]:
                found[-1] = ("", f"{found[-1][1]} {line.strip()}")
            else:
                found.append(("", line.strip()))
    return found


def markdown(docstring: Docstring, links: dict[str, str], skip: tuple[str, ...] = ()) -> str:
    """Return a docstring as Markdown; class names in backticks become links where `links` knows them."""
    parts = [prose(docstring.lead, links)]
    for name, body in docstring.sections.items():
        if name in skip:
            continue
        if name == "Example":
            parts.append(f"```pycon\n{body}\n```")
            continue
        title = "Arguments" if name == "Args" else name
        parts.append(f"**{title}**\n\n{item_list(body, links)}")
    return "\n\n".join(part for part in parts if part)


def item_list(body: str, links: dict[str, str]) -> str:
    """Return a section's items as a Markdown list, or its text as it is."""
    items = _items(body)
    if not any(names for names, _ in items):
        return prose(body, links)
    lines = []
    for names, text in items:
        names = ", ".join(f"`{n.strip()}`" for n in names.split(","))
        lines.append(f"- {names}: {prose(text, links)}" if names != "``" else f"- {prose(text, links)}")
    return "\n".join(lines)


def prose(text: str, links: dict[str, str]) -> str:
    """Set display equations apart from the text around them, and link class names."""
    text = re.sub(r"[ \t]*\$\$(.+?)\$\$[ \t]*", lambda m: f"\n\n$$\n{m[1].strip()}\n$$\n\n", text, flags=re.DOTALL)
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    return _CLASS.sub(lambda m: f"[`{m[1]}`](#{links[m[1]]})" if m[1] in links else m[0], text)


def anchor(dotted: str) -> str:
    """Return the name by which pages refer to an object; capitals do not count there, so classes say that they are."""
    return dotted.lower().replace("_", "-") + ("-class" if dotted.rpartition(".")[2][:1].isupper() else "")
