"""The Python reference: a page per module from its docstrings, and a page per source file with a line to link to."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import pkgutil
import textwrap
import types
from collections.abc import Iterator
from functools import cache
from typing import Any

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

import mer_zoo
from docs.generator import docstrings
from docs.generator.pages import ROOT, Pages, raw, source_file, source_link, table, toctree

ORDER = "data extractors graph kernels encoders edge_weights layers fusion balancing heads losses comparison checking"
"""Packages of mer_zoo in the order the data walks through them; others follow."""


@cache
def modules() -> dict[str, types.ModuleType]:
    """Return all public modules by dotted name."""
    names = ["mer_zoo", *(m.name for m in pkgutil.walk_packages(mer_zoo.__path__, "mer_zoo."))]
    public = [n for n in names if not any(word.startswith("_") for word in n.split(".")[1:])]
    return {name: importlib.import_module(name) for name in sorted(public)}


def members(module: types.ModuleType) -> dict[str, Any]:
    """Return the public classes and functions that a module defines, in the order of its source."""
    own = {
        name: thing
        for name, thing in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(thing) or inspect.isroutine(thing))
        and getattr(thing, "__module__", "") == module.__name__
        and getattr(thing, "__name__", "") == name
    }
    return dict(sorted(own.items(), key=lambda item: inspect.getsourcelines(inspect.unwrap(item[1]))[1]))


def methods(cls: type) -> dict[str, Any]:
    """Return the public methods and properties that a class itself defines."""
    found = {}
    for name, thing in vars(cls).items():
        function = getattr(thing, "fget", None) or getattr(thing, "func", None) or getattr(thing, "__func__", thing)
        if not name.startswith("_") and inspect.isfunction(function) and function.__module__ == cls.__module__:
            found[name] = thing
    return found


def _function(thing: Any) -> Any:
    return getattr(thing, "fget", None) or getattr(thing, "func", None) or getattr(thing, "__func__", thing)


def _objects() -> Iterator[tuple[str, Any]]:
    for name, module in modules().items():
        yield name, module
        for member, thing in members(module).items():
            yield f"{name}.{member}", thing
            if inspect.isclass(thing):
                for method, function in methods(thing).items():
                    yield f"{name}.{member}.{method}", _function(function)


def faults() -> list[str]:
    """Return every public object without a docstring of its own."""
    return [f"{name}: has no docstring." for name, thing in _objects() if not _has_docstring(thing)]


def _has_docstring(thing: Any) -> bool:
    text = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    return bool(text) and not str(text).startswith(f"{getattr(thing, '__name__', '')}(")  # what dataclass makes


def links() -> dict[str, str]:
    """Return class name → anchor, for names that only one module defines."""
    found: dict[str, list[str]] = {}
    for name, module in modules().items():
        for member, thing in members(module).items():
            if inspect.isclass(thing):
                found.setdefault(member, []).append(docstrings.anchor(f"{name}.{member}"))
    return {name: anchors[0] for name, anchors in found.items() if len(anchors) == 1}


def pages(known: dict[str, str]) -> Pages:
    """Return the reference and the source pages."""
    made: Pages = {}
    packages = [name.partition(".")[2] for name, module in modules().items() if hasattr(module, "__path__")]
    order = [*ORDER.split(), *packages]
    rooms: dict[str, list[str]] = {
        room: [] for room in sorted(packages, key=lambda room: (room == "", order.index(room)))
    }
    for name, module in modules().items():
        path, _ = source_file(module)
        made[f"source/{path}.md"] = _source(path)
        if hasattr(module, "__path__"):  # a package: it has the page of its room
            continue
        rooms[name.split(".", 1)[1].rpartition(".")[0]].append(name)
        made[f"api/{name}.md"] = _page(name, module, known)
    overview = []
    for room, names in rooms.items():
        title = f"mer_zoo.{room}" if room else "mer_zoo"
        rows = [(f"[`{n}`](#{docstrings.anchor(n)})", _first_sentence(modules()[n])) for n in names]
        made[f"api/{title}.md"] = "\n\n".join(
            [_page(title, modules()[title], known), table(["module", "what it is"], rows), toctree(names)]
        )
        overview.append((f"[`{title}`]({title}.md)", _first_sentence(modules()[title]), len(names)))
    made["api/index.md"] = "\n\n".join(
        [
            "# Python",
            "Made from the docstrings; their examples run with the tests. "
            "These names can be taken from `mer_zoo` itself: " + ", ".join(_front(known)) + ".",
            table(["package", "what is in it", "modules"], overview),
            toctree(f"mer_zoo.{room}" if room else "mer_zoo" for room in rooms),
        ]
    )
    return made


def _front(known: dict[str, str]) -> Iterator[str]:
    """The names that `mer_zoo` offers, as links."""
    for name in mer_zoo.__all__:
        thing = getattr(mer_zoo, name)
        home = getattr(thing, "__module__", None)
        yield f"[`{name}`](#{docstrings.anchor(f'{home}.{name}')})" if home else f"`{name}`"


def _first_sentence(thing: Any) -> str:
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")


def _page(name: str, module: types.ModuleType, known: dict[str, str]) -> str:
    path, _ = source_file(module)
    parts = [f"({docstrings.anchor(name)})=\n# {name}", _documented(module, known), source_link(path, text=path, up=1)]
    constants = list(_constants(path))
    if constants:
        parts.append(table(["constant", "meaning"], [(f"`{n}`", text) for n, text in constants]))
    for member, thing in members(module).items():
        parts += _entry(f"{name}.{member}", member, thing, "##", known)
        if inspect.isclass(thing):
            for method, function in methods(thing).items():
                parts += _entry(f"{name}.{member}.{method}", f"{member}.{method}", function, "###", known)
    return "\n\n".join(parts)


def _entry(dotted: str, title: str, thing: Any, level: str, known: dict[str, str]) -> list[str]:
    function = thing if inspect.isclass(thing) else inspect.unwrap(_function(thing))
    path, line = source_file(function)
    is_property = (
        not inspect.isclass(thing) and function is not thing and not isinstance(thing, (classmethod, staticmethod))
    )
    word = (
        "class "
        if inspect.isclass(thing)
        else "property "
        if hasattr(thing, "fget") or hasattr(thing, "attrname")
        else ""
    )
    signature = title if is_property and word else _signature(title, function)
    return [
        f"({docstrings.anchor(dotted)})=\n{level} {title}",
        f"```python\n{word}{signature}\n```",
        _documented(function, known),
        source_link(path, line, up=1),
    ]


def _documented(thing: Any, known: dict[str, str]) -> str:
    return docstrings.markdown(docstrings.parse(thing), known)


def _signature(title: str, thing: Any) -> str:
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return title
    parameters = [_bare(p) for p in signature.parameters.values() if p.name not in ("self", "cls")]
    returns = (
        ""
        if signature.return_annotation in (signature.empty, None, "None")
        else f" -> {_Bare(signature.return_annotation)!r}"
    )
    text = f"{title}{inspect.Signature(parameters)}{returns}"
    if len(text) <= 100:
        return text
    lines = [f"    {p}," for p in parameters]
    kinds = [p.kind for p in parameters]
    if inspect.Parameter.KEYWORD_ONLY in kinds and inspect.Parameter.VAR_POSITIONAL not in kinds:
        lines.insert(kinds.index(inspect.Parameter.KEYWORD_ONLY), "    *,")
    return "\n".join([f"{title}(", *lines, f"){returns}"])


class _Bare:
    """An annotation that shows as it is written, without quotes."""

    def __init__(self, annotation: Any) -> None:
        self.text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)

    def __repr__(self) -> str:
        return self.text


def _bare(parameter: inspect.Parameter) -> inspect.Parameter:
    empty = parameter.annotation is parameter.empty
    return parameter if empty else parameter.replace(annotation=_Bare(parameter.annotation))


def _constants(path: str) -> Iterator[tuple[str, str]]:
    """Public constants that are followed by a docstring."""
    body = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    for here, after in itertools.pairwise(body):
        target = (
            here.targets[0]
            if isinstance(here, ast.Assign)
            else here.target
            if isinstance(here, ast.AnnAssign)
            else None
        )
        said = (
            isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
        )
        if isinstance(target, ast.Name) and not target.id.startswith("_") and said:
            yield target.id, textwrap.dedent(after.value.value)  # type: ignore[attr-defined]


def _source(path: str) -> str:
    text = (ROOT / path).read_text(encoding="utf-8")
    formatter = HtmlFormatter(lineanchors="L", linespans=None, anchorlinenos=True, linenos="inline", nobackground=True)
    markup = highlight(text, PythonLexer(stripnl=False), formatter).replace('name="L-', 'id="L').replace("#L-", "#L")
    return f"---\nnosearch: true\norphan: true\n---\n\n# {path}\n\n" + raw(markup.replace('id="L-', 'id="L'))
