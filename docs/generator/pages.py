"""Small pieces of Markdown and HTML that all generated pages share."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""

Pages = dict[str, str]
"""Path below docs/ -> text."""


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table.

    Example:
        >>> print(table(["a"], [["x|y"]]))
        | a |
        |---|
        | x\\|y |
    """
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return re.sub(r"\s+", " ", str(value)).replace("|", "\\|").strip()


def raw(markup: str) -> str:
    """Return HTML that is passed through untouched."""
    return f"```{{raw}} html\n{markup}\n```"


def escape(text: Any) -> str:
    """Return text safe inside HTML."""
    return html.escape(str(text))


def source_page(path: str, line: int = 1, up: int = 0) -> str:
    """Return the address of a line of the code, from a page `up` folders below docs/.

    Example:
        >>> source_page("mer_zoo/registry/__init__.py", 7, up=1)
        '../_modules/mer_zoo/registry.html#L7'
    """
    return f"{'../' * up}_modules/{module(path).replace('.', '/')}.html#L{line}"


def module(path: str) -> str:
    """Return the module that a file below the checkout holds."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def source_link(path: str, line: int, up: int = 0) -> str:
    """Return a link to a line of the code, as HTML."""
    return f'<a class="source" href="{source_page(path, line, up)}"><code>{path}:{line}</code></a>'


def recipe_anchor(name: str) -> str:
    """Return the name of a recipe's page.

    Example:
        >>> recipe_anchor("amb_dsgdn/iemocap")
        'amb_dsgdn-iemocap'
    """
    return name.replace("/", "-")


def toctree(entries: Iterable[str], caption: str = "", hidden: bool = True) -> str:
    """Return a table of contents."""
    options = [":hidden:"] if hidden else [":maxdepth: 1"]
    options += [f":caption: {caption}"] if caption else []
    return "\n".join(["```{toctree}", *options, "", *entries, "```"])
