"""The one reader of docstrings: what `mer-zoo describe` and the catalogue say of a part stands in its docstring."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

SECTIONS = ("Inputs", "Outputs", "Args", "Attributes", "Returns", "Raises", "Example")
"""Google's sections, and `Inputs` and `Outputs` for what a module's `forward` takes and gives."""

_HEADING = re.compile(rf"^({'|'.join(SECTIONS)}):[ \t]*\n", re.MULTILINE)


@dataclass(frozen=True)
class Docstring:
    """A docstring taken apart.

    Attributes:
        lead: what stands before the sections.
        sections: heading -> text, without its indentation.
    """

    lead: str
    sections: dict[str, str]

    def items(self, *headings: str) -> dict[str, str]:
        """Return name -> meaning of the entries of some sections; `a, b: text` is the meaning of both."""
        found = [entry for heading in headings for entry in entries(self.sections.get(heading, ""))]
        return {name.strip("* "): meaning for names, meaning in found if names for name in names.split(",")}


def parse(text: str | None) -> Docstring:
    r"""Take a docstring apart at its headings.

    Example:
        >>> parse("Sum of all.\n\nArgs:\n    a, b: addends,\n        as numbers.\nRaises:\n    never.").items("Args")
        {'a': 'addends, as numbers.', 'b': 'addends, as numbers.'}
    """
    lead, *rest = _HEADING.split(inspect.cleandoc(text or ""))
    sections = {heading: inspect.cleandoc(f"\n{body}") for heading, body in zip(rest[::2], rest[1::2], strict=True)}
    return Docstring(lead.strip(), sections)


def entries(section: str) -> list[tuple[str, str]]:
    """Return (names, meaning) of every entry of a section; text that names nothing has the name "".

    Example:
        >>> entries("OSError: no disk.\\nwhatever the part raises.")
        [('OSError', 'no disk.'), ('', 'whatever the part raises.')]
    """
    found = []
    for entry in re.split(r"\n(?=\S)", section):
        named = re.match(r"((?:\*{0,2}[A-Za-z_]\w*(?:, )?)+): *(.*)", entry, re.DOTALL)
        found.append((named[1], " ".join(named[2].split())) if named else ("", " ".join(entry.split())))
    return [entry for entry in found if any(entry)]
