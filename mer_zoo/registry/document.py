"""YAML with places: plain data that remembers the line and column every value came from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mer_zoo.errors import MerZooError
from mer_zoo.registry.faults import short

Location = tuple[Any, ...]

# Far beyond anything written by hand, and read within a second.
LONGEST = 1_000_000  # bytes of a file
DEEPEST = 50  # lists and mappings inside each other
MOST = 50_000  # values, what an alias stands for counted wherever it stands


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
    """Parse YAML text.

    Args:
        text: at most `LONGEST` characters, `DEEPEST` levels and `MOST` values; measured before anything is built.
        name: what errors call it.

    Raises:
        MerZooError: malformed YAML, a repeated key, or too much of it, with line and column.
    """
    page = Document(name)
    loader = _Loader(text)
    try:
        _measure(text, name)
        root = loader.get_single_node()
        if root is not None:
            page.data = _build(loader, root, (), page)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        raise MerZooError(f"{where} not valid YAML: {error.problem}. Fix the line.") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of more digits than Python reads
        raise MerZooError(f"{name} not valid YAML: {' '.join(str(error).split())}.") from None
    finally:
        loader.dispose()
    return page


def read(path: Path | str) -> Document:
    """Read and parse a YAML file."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST + 1)
        text = content.decode("utf-8-sig") if len(content) <= LONGEST else " " * len(content)
    except FileNotFoundError:
        raise MerZooError(f"{path}: no such file.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise MerZooError(f"{short(str(path))}: cannot be read as text ({reason}).") from None
    return parse(text.replace("\r\n", "\n"), str(path))


def plain(text: str, name: str = "<text>") -> Any:
    """Parse YAML text into plain data without places."""
    return parse(text, name).data


def _measure(text: str, name: str) -> None:
    """Refuse what is too long, too deep, endless, or too large with its aliases written out."""
    if len(text) > LONGEST:
        raise MerZooError(f"{name}: longer than {LONGEST:,} characters, which no recipe, suite or card is.")
    sizes: dict[str, int] = {}
    parents: list[tuple[str | None, list[int]]] = []  # anchor, values so far
    for event in yaml.parse(text, Loader=_Loader):
        place = f"{name}:{event.start_mark.line + 1}:{event.start_mark.column + 1}"
        if isinstance(event, yaml.CollectionStartEvent):
            parents.append((event.anchor, [1]))
            if len(parents) > DEEPEST:
                raise MerZooError(f"{place} lists and mappings are more than {DEEPEST} deep. Write them flatter.")
            continue
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in parents):
                raise MerZooError(f"{place} '{event.anchor}' refers to itself by an alias. Write the value out.")
            anchor, size = None, sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, (size,) = parents.pop()
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        if parents:
            parents[-1][1][0] += size
            size = parents[-1][1][0]
        if size > MOST:
            raise MerZooError(f"{place} more than {MOST:,} values, with what aliases stand for. Write fewer.")


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
