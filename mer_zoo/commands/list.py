"""`mer-zoo list`: neither torch nor dgl is imported, so that it answers at once."""

from __future__ import annotations

import argparse
import fnmatch
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from mer_zoo import registry
from mer_zoo.commands import terminal
from mer_zoo.errors import MerZooError, nearest


def arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.add_argument("kind", nargs="?", help="kind of part, recipe or suite; or a pattern")
    command.add_argument("pattern", nargs="?", default="*", help="wildcard on the name")
    command.add_argument("--tag", help="only parts with this tag")
    command.add_argument("--json", action="store_true", help="machine-readable")


def run(options: argparse.Namespace) -> None:
    """Show the parts, recipes and suites there are."""
    kind, pattern = options.kind, options.pattern
    if kind is not None and "*" in kind:  # `list "*gat*"`: a pattern over all kinds
        kind, pattern = None, kind
    rows = _files(kind, pattern, options.tag) if kind in ("recipe", "suite") else _parts(kind, pattern, options.tag)
    if options.json:
        print(json.dumps(rows, indent=1))
    elif not rows:
        raise MerZooError(f"nothing matches '{pattern}'. `mer-zoo list` shows everything.")
    else:
        names = [row["id"] if "id" in row else f"{row['kind']}/{row['name']}" for row in rows]
        width = max(map(len, names))
        for name, row in zip(names, rows, strict=True):
            terminal.say(f"{name:<{width}}  {row['summary']}" + (f" [{row['status']}]" if "status" in row else ""))


def _parts(kind: str | None, pattern: str, tag: str | None) -> list[dict[str, Any]]:
    if kind is not None and kind not in registry.KINDS:
        raise MerZooError(f"no kind of part named '{kind}'.{nearest(kind, [*registry.KINDS, 'recipe', 'suite'])}")
    known = {word for card in registry.cards() for word in card.tags}
    if tag is not None and tag not in known:
        raise MerZooError(f"--tag {tag}: no part has this tag.{nearest(tag, known)}")
    return [asdict(card) for card in registry.cards(kind, pattern, tag)]


def _files(kind: str, pattern: str, tag: str | None) -> list[dict[str, Any]]:
    from mer_zoo.comparison import suite
    from mer_zoo.model import recipe
    from mer_zoo.model.status import status

    if tag is not None:
        raise MerZooError(f"--tag {tag}: only parts have tags, not a {kind}. Leave it out.")
    source: Any = recipe if kind == "recipe" else suite
    names = [name for name in source.names() if fnmatch.fnmatch(name, pattern)]
    return [_row(kind, name, source, status if kind == "recipe" else None) for name in names]


def _row(kind: str, name: str, source: Any, status: Callable[[str], str] | None) -> dict[str, Any]:
    """What is known of a recipe or suite; a plugin's broken file hides no other."""
    row = {"id": f"{kind}/{name}"}
    try:
        return row | {"summary": source.title(name)} | ({"status": status(name)} if status else {})
    except MerZooError:
        return row | {"summary": "cannot be read: see `mer-zoo doctor`"}
