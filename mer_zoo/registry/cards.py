"""Cards: identity and literature of a part, read without importing it."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mer_zoo.errors import MerZooError, nearest
from mer_zoo.registry import document
from mer_zoo.registry.kinds import promise_faults


class DeprecatedName(FutureWarning):
    """A part was asked for by an alias; the message gives its present name."""


@dataclass(frozen=True)
class Card:
    """What the registry knows of a part without importing it: identity and literature.

    Attributes:
        kind, name: `fusion`, `gated`; a plugin's name is `package/name`.
        target: `module:Class`, or `path/to/file.py:Class`.
        summary: one sentence.
        paper: key into `references.bib`, or None.
        equation: LaTeX, or "".
        tags: words to search by.
        promises: properties that `check_part` checks, such as `causal`.
        dead: parameters that by the published definition get no gradient.
        version: raised when the part computes something else.
        aliases: former names; they still resolve, with a warning.
        origin: file the card was read from.

    Example:
        >>> from mer_zoo.registry import find
        >>> find("fusion", "concat").target
        'mer_zoo.parts.fusion.concat:Concat'
    """

    kind: str
    name: str
    target: str
    summary: str = ""
    paper: str | None = None
    equation: str = ""
    tags: tuple[str, ...] = ()
    promises: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    version: int = 1
    aliases: tuple[str, ...] = ()
    origin: str = field(default="", compare=False)

    @property
    def id(self) -> str:
        """`kind/name`."""
        return f"{self.kind}/{self.name}"

    @property
    def stackable(self) -> bool:
        """Whether several seeds, or modalities, of the part can be one program."""
        return "unstackable" not in self.promises

    @property
    def capturable(self) -> bool:
        """Whether the part promises that a CUDA graph can hold it."""
        return "capturable" in self.promises


FIELDS: dict[str, tuple[type, ...]] = {
    "target": (str,),
    "summary": (str,),
    "paper": (str, type(None)),
    "equation": (str,),
    "tags": (list, tuple),
    "promises": (list, tuple),
    "dead": (list, tuple),
    "version": (int,),
    "aliases": (list, tuple),
}


def read_card(path: Path, kind: str, prefix: str = "") -> Card:
    """Read one card file; the file name is the name. Every fault is named with line and column."""
    page = document.read(path)
    if not isinstance(page.data, dict):
        raise MerZooError(f"{page.name}: a card is a mapping with at least 'target', 'summary' and 'paper'.")
    faults = [f"{page.place(key)} {text}" for key, text in faults_of(kind, path.stem, page.data)]
    if faults:
        raise MerZooError("\n".join(faults))
    return make_card(kind, prefix + path.stem, path, page.data)


def faults_of(kind: str, name: str, data: Mapping[str, Any]) -> list[tuple[tuple[str, ...], str]]:
    """Return (key, what is wrong with it) of a card's data."""
    faults: list[tuple[tuple[str, ...], str]] = []
    if not is_name(name):
        faults.append(((), f"'{name}' is not a name. Use small letters, digits and underscores."))
    for key in ("target", "summary", "paper"):
        if key not in data:
            faults.append(((), f"'{key}' is missing. Add it{' (null if there is none)' if key == 'paper' else ''}."))
    for key, value in data.items():
        if key not in FIELDS:
            faults.append(((key,), f"unknown key '{key}'.{nearest(str(key), FIELDS)}"))
        elif not isinstance(value, FIELDS[key]) or isinstance(value, bool):
            wanted = " or ".join(sorted({_WORDS[t] for t in FIELDS[key]}))
            faults.append(((key,), f"{key}: want {wanted}, not {value!r}."))
        elif isinstance(value, (list, tuple)) and not all(isinstance(v, str) for v in value):
            faults.append(((key,), f"{key}: want a list of words, not {value!r}."))
        elif key == "target" and not all(str(value).rpartition(":")):
            faults.append(((key,), f"target: want 'module:Class' or 'file.py:Class', not '{value}'."))
        elif key == "promises":
            faults += [((key,), fault) for fault in promise_faults(kind, data[key])]
    return faults


_WORDS = {str: "text", type(None): "null", list: "a list of words", tuple: "a list of words", int: "a whole number"}


def make_card(kind: str, name: str, path: Path, data: Mapping[str, Any]) -> Card:
    """Make a card of checked data."""
    values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
    module, _, cls = values["target"].rpartition(":")
    if module.endswith(".py"):  # a file is found from its card
        values["target"] = f"{path.parent / module}:{cls}"
    return Card(kind=kind, name=name, origin=str(path), **values)


def is_name(name: str) -> bool:
    """Whether a part may be called so.

    Example:
        >>> is_name("my_fusion"), is_name("MyFusion")
        (True, False)
    """
    return re.fullmatch(r"[a-z][a-z0-9_]*", name) is not None and not keyword.iskeyword(name)


def snake_case(name: str) -> str:
    """Return the registered name of a class.

    Example:
        >>> snake_case("MyFusion"), snake_case("BiLSTM2")
        ('my_fusion', 'bi_lstm2')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
