"""YAML with places: plain data that remembers the line and column every value came from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mer_zoo.errors import MerZooError

Location = tuple[Any, ...]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.2's numbers and booleans: `1e-4` is a number, `on` and `no` are words, dates are words."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag.rsplit(":", 1)[-1] not in {"float", "bool", "timestamp"}]
    for first, rules in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


@dataclass
class Document:
    """A parsed YAML file: `data`, and the place of every key and item in it.

    Example:
        >>> page = parse("model:\\n  fuse: gatd\\n", "mine.yaml")
        >>> page.data, page.place(("model", "fuse"))
        ({'model': {'fuse': 'gatd'}}, 'mine.yaml:2:3')
    """

    name: str
    data: Any = None
    marks: dict[Location, tuple[int, int]] = field(default_factory=dict)

    def place(self, location: Iterable[Any] = ()) -> str:
        """Return `file:line:column` of a location, or of its nearest known parent."""
        path = tuple(location)
        while path and path not in self.marks:
            path = path[:-1]
        if path not in self.marks:
            return self.name
        line, column = self.marks[path]
        return f"{self.name}:{line}:{column}"


def parse(text: str, name: str = "<text>") -> Document:
    """Parse YAML text; malformed YAML and repeated keys raise a `MerZooError` with line and column."""
    page = Document(name)
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is not None:
            page.data = _build(loader, root, (), page)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise MerZooError(f"{where} not valid YAML: {error.problem}. Fix the line.") from None
    except yaml.YAMLError as error:
        raise MerZooError(f"{name} not valid YAML: {' '.join(str(error).split())}.") from None
    except RecursionError:
        raise MerZooError(f"{name}: refers to itself by an alias. Write the value out.") from None
    finally:
        loader.dispose()
    return page


def read(path: Path | str) -> Document:
    """Read and parse a YAML file."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MerZooError(f"{path}: no such file.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise MerZooError(f"{path}: cannot be read as text ({error}).") from None
    return parse(text, str(path))


def plain(text: str) -> Any:
    """Parse YAML without keeping places (fast; for the library's own files and `-o key=value`)."""
    return yaml.load(text, Loader=_Loader)


def _build(loader: Any, node: Any, path: Location, page: Document) -> Any:
    page.marks.setdefault(path, (node.start_mark.line + 1, node.start_mark.column + 1))
    if isinstance(node, yaml.MappingNode):
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            line, column = key_node.start_mark.line + 1, key_node.start_mark.column + 1
            if not isinstance(key, (str, int, float, bool)):
                raise MerZooError(f"{page.name}:{line}:{column} a key must be a word, not {key!r}.")
            if key in result:
                raise MerZooError(f"{page.name}:{line}:{column} '{key}' is given twice. Keep one.")
            inner = (*path, key)
            page.marks[inner] = (line, column)
            result[key] = _build(loader, value_node, inner, page)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_build(loader, item, (*path, i), page) for i, item in enumerate(node.value)]
    return loader.construct_object(node, deep=True)
