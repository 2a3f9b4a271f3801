"""Docstrings keep one form, and what they explain exists: parameters under `Args:`, fields under `Attributes:`."""

import ast
import itertools
import re
from pathlib import Path

import pytest

from mer_zoo.registry import docstrings

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "mer_zoo").rglob("*.py"))
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}
CLASSES = {node.name: node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def parameters(node):
    """Names that a function, or a class when it is made, can be given."""
    if isinstance(node, ast.FunctionDef):
        given = node.args
        extra = [argument for argument in (given.vararg, given.kwarg) if argument]
        return {argument.arg for argument in [*given.posonlyargs, *given.args, *given.kwonlyargs, *extra]}
    own = next((member for member in node.body if getattr(member, "name", "") == "__init__"), None)
    return parameters(own) if own else fields(node).union(*map(parameters, bases(node)))


def fields(node):
    """Names that an object of a class has."""
    named = {
        target.attr if isinstance(target, ast.Attribute) else getattr(target, "id", None)
        for member in ast.walk(node)
        for target in (*getattr(member, "targets", ()), getattr(member, "target", None))
    }
    return named.union(*map(fields, bases(node)))


def bases(node):
    return [CLASSES[base.id] for base in node.bases if getattr(base, "id", "") in CLASSES and base.id != node.name]


def faults(node):
    """What is wrong with the docstring of a class or function."""
    text = ast.get_docstring(node) or ""
    found = re.findall(r"^(\w+):\n(?: |\n)", text, re.MULTILINE)
    if strange := set(found) - set(docstrings.SECTIONS):
        yield f"no such section: {', '.join(sorted(strange))}"
        return
    if found != [heading for heading in docstrings.SECTIONS if heading in found]:
        yield f"sections in the order {', '.join(found)}; want each once, in the order of `docstrings.SECTIONS`"
    read = docstrings.parse(text)
    lines = itertools.dropwhile(lambda line: line != f"{found[0]}:", text.splitlines()) if found else ()
    if loose := [line for line in lines if line and line[0] != " " and line.rstrip(":") not in found]:
        yield f"text after the sections: {loose[0]}"
    if strange := set(read.items("Args")) - parameters(node):
        yield f"no such parameter: {', '.join(sorted(strange))}"
    if isinstance(node, ast.ClassDef) and (strange := set(read.items("Attributes")) - fields(node)):
        yield f"no such attribute: {', '.join(sorted(strange))}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_docstrings_keep_the_form(file):
    nodes = [node for node in ast.walk(TREES[file]) if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    assert [f"{file.name}:{node.lineno} {node.name}: {fault}" for node in nodes for fault in faults(node)] == []


@pytest.mark.parametrize(
    ("sections", "fault"),
    {
        "Args:\n    wide: of x.": "no such parameter: wide",
        "Example:\n    >>> 1\n    1\n\nArgs:\n    width: of x.": "sections in the order Example, Args",
        "Args:\n    width: of x.\n\nMore.": "text after the sections: More.",
        "Arguments:\n    width: of x.": "no such section: Arguments",
    }.items(),
)
def test_what_breaks_the_form_is_seen(sections, fault):
    body = "\n".join(f"    {line}" if line else "" for line in sections.splitlines())
    (node,) = ast.parse(f'def part(width):\n    """One sentence.\n\n{body}\n    """').body
    (found,) = faults(node)
    assert found.startswith(fault)


def test_a_docstring_is_taken_apart():
    text = docstrings.parse(
        """One sentence.

        $$y = x$$

        Inputs:
            x, y: float `[N]`; or
                nothing.
        Raises:
            MerZooError: it is
                empty.
            whatever the part raises.
        Example:
            >>> 1
            1
        """
    )
    assert text.lead == "One sentence.\n\n$$y = x$$"
    assert text.items("Inputs") == {"x": "float `[N]`; or nothing.", "y": "float `[N]`; or nothing."}
    assert text.sections["Example"] == ">>> 1\n1"
    found = docstrings.entries(text.sections["Raises"])
    assert found == [("MerZooError", "it is empty."), ("", "whatever the part raises.")]
    assert docstrings.parse(None) == docstrings.Docstring("", {})
