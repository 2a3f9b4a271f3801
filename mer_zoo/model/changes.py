"""Changes of a recipe that are written beside it: `-o key=value`, and the `change:` of a suite."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mer_zoo.errors import MerZooError
from mer_zoo.registry import document
from mer_zoo.registry.faults import short


@dataclass(frozen=True)
class Change:
    """One value of a recipe, set anew.

    Attributes:
        path: keys that lead to it.
        value: plain data.
        place: where the change stands.

    Example:
        >>> Change.parse("training.epochs=5")
        Change(path=('training', 'epochs'), value=5, place='-o')
    """

    path: tuple[str, ...]
    value: Any
    place: str = "-o"

    @classmethod
    def make(cls, key: str, value: Any, place: str) -> Change:
        """Return a change by its dotted key; `place` is where it stands."""
        path = tuple(str(key).strip().split("."))
        if not all(path):
            raise MerZooError(f"{place} '{short(str(key))}': want a key such as training.epochs.")
        try:
            f"{key}{json.dumps(value, ensure_ascii=False)}".encode()  # bytes that are no text come from terminals
        except (TypeError, ValueError, RecursionError):
            raise MerZooError(f"{place} {short(key)}: want plain data: words, numbers, lists.") from None
        return cls(path, value, place)

    @classmethod
    def parse(cls, text: str, place: str = "-o") -> Change:
        """Read `key=value`, whose value is YAML; `place` is where it stands."""
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise MerZooError(f"{place} {short(text)}: want key=value, such as training.epochs=5.")
        try:
            parsed = document.plain(value)
        except Exception:  # whatever a YAML reader may stumble over
            raise MerZooError(f"{place} {short(text)}: '{short(value)}' is not valid YAML.") from None
        return cls.make(key, parsed, place)

    @property
    def key(self) -> str:
        """The path as it is written."""
        return ".".join(self.path)


def settings_from(given: Iterable[str]) -> dict[str, Any]:
    """Return settings of a part given as `key=value`.

    Example:
        >>> settings_from(["out_width=8"])
        {'out_width': 8}
    """
    return {change.key: change.value for change in map(Change.parse, given)}


def changes_from(given: Iterable[str | Change] | Mapping[str, Any]) -> tuple[Change, ...]:
    """Return changes given as `key=value`, as key -> value, or ready."""
    if isinstance(given, Mapping):
        return tuple(Change.make(key, value, "change") for key, value in given.items())
    return tuple(change if isinstance(change, Change) else Change.parse(change) for change in given)
