"""The Python reference: Sphinx's autodoc makes it; here is what Markdown in a docstring becomes on its way there."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from functools import cache
from typing import Any

from docutils import nodes, utils
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.util.docutils import SphinxDirective

import mer_zoo
from mer_zoo.registry import docstrings

_CLASS = re.compile(r"(?<![\[`}])`([A-Z]\w+)`(?![\]`])")


@cache
def links() -> dict[str, str]:
    """Return the names of public classes that only one module defines, with the module."""
    found: dict[str, list[str]] = {}
    for module in pkgutil.walk_packages(mer_zoo.__path__, "mer_zoo."):
        for name, thing in vars(importlib.import_module(module.name)).items() if "._" not in module.name else ():
            if inspect.isclass(thing) and thing.__module__ == module.name and not name.startswith("_"):
                found.setdefault(name, []).append(f"{module.name}.{name}")
    return {name: homes[0] for name, homes in found.items() if len(homes) == 1}


def prose(text: str) -> str:
    """Return a docstring's Markdown with displayed equations set apart and names of classes as links.

    Example:
        >>> print(prose("As $$y = 2x$$ in `GraphBuilder`."))
        As
        <BLANKLINE>
        $$
        y = 2x
        $$
        <BLANKLINE>
        in {py:obj}`~mer_zoo.graph.base.GraphBuilder`.
    """
    return _CLASS.sub(lambda m: f"{{py:obj}}`~{links()[m[1]]}`" if m[1] in links() else m[0], displayed(text))


def displayed(text: str) -> str:
    """Return Markdown with every displayed equation in a paragraph of its own."""
    text = re.sub(r"[ \t]*\$\$(.+?)\$\$[ \t]*", lambda m: f"\n\n$$\n{m[1].strip()}\n$$\n\n", text, flags=re.DOTALL)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def inline(text: str) -> str:
    r"""Return Markdown within a paragraph as reStructuredText.

    Example:
        >>> print(inline(r"width $d$ of `[N, d]`, see `GraphBuilder`s"))
        width :math:`d` of ``[N, d]``, see :py:obj:`~mer_zoo.graph.base.GraphBuilder`\ s
    """

    def code(found: re.Match[str]) -> str:
        inside, after = found.groups()
        shown = f":py:obj:`~{links()[inside]}`" if inside in links() else f"``{inside}``"
        return f"{shown}\\ {after}" if after else shown

    pieces = re.split(r"(`[^`]+`\w?)", text)
    pieces[::2] = [re.sub(r"\$([^$]+)\$", r":math:`\1`", piece.replace("*", r"\*")) for piece in pieces[::2]]
    pieces[1::2] = [re.sub(r"`([^`]+)`(\w?)", code, piece) for piece in pieces[1::2]]
    return "".join(pieces)


def on_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Rewrite a docstring before napoleon reads it: a first sentence, then Markdown, then Google's sections."""
    read = docstrings.parse("\n".join(lines))
    first, _, rest = displayed(read.lead).partition("\n\n")
    text = [*inline(first).splitlines(), ""]
    text += [".. markdown::", "", *(f"   {line}" for line in prose(rest).splitlines()), ""] if rest else []
    for heading, body in read.sections.items():
        body = body if heading == "Example" else inline(body)
        text += [f"{heading}:", *(f"    {line}" for line in body.splitlines()), ""]
    lines[:] = text


class Markdown(SphinxDirective):
    """The directive `markdown`: its content is Markdown."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Parse the content."""
        document = utils.new_document(self.get_source_info()[0], self.state.document.settings)
        MystParser().parse("\n".join(self.content), document)
        for node in document.findall():  # else the page keeps a second document, and is a hundred times as large
            node.document = self.state.document
        return document.children
