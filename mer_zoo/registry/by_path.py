"""What a recipe names beside parts: classes and functions, by a short name or by path; settings are the signature's."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mer_zoo.errors import MerZooError, at, nearest
from mer_zoo.registry.faults import short
from mer_zoo.registry.lookup import imported, names_class, source_digest
from mer_zoo.registry.signature import validate

PLAIN = (bool, int, float, str, type(None), Any)
SEQUENCES = (collections.abc.Sequence, collections.abc.Iterable)


@dataclass(frozen=True)
class Family:
    """Classes or functions of one purpose, such as optimisers.

    Attributes:
        what: what errors call one of them.
        names: short name -> `module:Name`.
        given: arguments that are no settings: the library gives them.

    Example:
        >>> rulers = Family("counter", {"plain": "collections:Counter"})
        >>> rulers.find("plain").__name__, rulers.find("collections.OrderedDict").__name__
        ('Counter', 'OrderedDict')
        >>> rulers.find("plane")
        Traceback (most recent call last):
        mer_zoo.errors.MerZooError: no counter named 'plane'. Did you mean 'plain'? A path is written 'module:Name'.
    """

    what: str
    names: Mapping[str, str]
    given: tuple[str, ...] = ()

    def target(self, name: str, place: str = "") -> str:
        """Return `module:Name` or `./file.py:Name`, where `module.Name` may be written too.

        Raises:
            MerZooError: neither a short name nor a path.
        """
        if name in self.names:
            return self.names[name]
        path = name if ":" in name else ":".join(name.rsplit(".", 1))
        if not names_class(path):
            raise MerZooError(
                f"{at(place)}no {self.what} named '{short(name)}'.{nearest(name, self.names)} A path is "
                "written 'module:Name'."
            )
        return path

    def find(self, name: str, place: str = "") -> Any:
        """Import what a name stands for.

        Raises:
            MerZooError: there is no such thing, or importing it fails.
        """
        return imported(self.target(name, place), f"{self.what} '{short(name)}'", place)

    def canonical(self, name: str, place: str = "") -> str:
        """Return the one way of writing a name: the short one as it is, a path with a colon."""
        return name if name in self.names else self.target(name, place)

    def code(self, name: str) -> str | None:
        """Return a digest of the source of what is named by path; None for the library's own names and torch's."""
        target = self.target(name)
        return None if name in self.names or target.startswith("torch.") else source_digest(self.find(name))

    def fill(
        self, name: str, given: Mapping[str, Any], place: str = "", locate: Callable[..., str] | None = None
    ) -> dict[str, Any]:
        """Check settings against the signature and return them all as plain data, defaults written in.

        Args:
            name: of what they are for.
            given: settings by name.
            place, locate: as of `registry.fill`.

        Raises:
            MerZooError: an unknown or ill-typed setting, with the nearest match.
        """
        stub = _stub(self.find(name, place), self.given, self.what)
        checked = validate(self.what, stub, given, f"{self.what}/{name}", place, locate)
        return checked.model_dump(mode="json")


@functools.cache
def _stub(made: Any, given: tuple[str, ...], what: str) -> Any:
    """Return a function with the settings of a class or function as its keyword-only arguments."""
    settings = []
    for parameter in inspect.signature(made).parameters.values():
        if parameter.name in given or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        kind = (
            _plain(_hint(made, parameter)) if parameter.annotation is not parameter.empty else _like(parameter.default)
        )
        if kind is not None:
            settings.append(parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=kind))
        elif parameter.default is parameter.empty:
            raise MerZooError(
                f"{what} {made.__module__}:{made.__qualname__}: needs '{parameter.name}', which is no plain data, so a "
                "recipe cannot give it. Wrap it in a class of your own that sets it."
            )

    def stub() -> None: ...

    stub.__signature__ = inspect.Signature(settings)  # type: ignore[attr-defined]
    stub.__name__, stub.__module__, stub.__qualname__ = made.__name__, made.__module__, made.__qualname__
    return stub


def _hint(made: Any, parameter: inspect.Parameter) -> Any:
    """Return an annotation that may be written as text; object where its names are known to type checkers only."""
    try:
        alone = types.SimpleNamespace(__annotations__={"it": parameter.annotation})
        return typing.get_type_hints(alone, vars(sys.modules[made.__module__]))["it"]
    except Exception:
        return object


def _like(default: Any) -> Any:
    """The type of a setting that has no annotation."""
    if isinstance(default, (bool, str)):
        return type(default)
    return int | float if isinstance(default, (int, float)) else Any


def _plain(hint: Any) -> Any:
    """Return what of a type is plain data, such as `float` of `float | Tensor`; None if nothing is."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in PLAIN or origin is typing.Literal:
        return hint
    if origin in (typing.Union, types.UnionType):
        kept = tuple(plain for one in inner if (plain := _plain(one)) is not None)
        return typing.Union[kept] if set(kept) - {type(None)} else None  # noqa: UP007
    if origin in (list, tuple, dict, *SEQUENCES):
        kept = tuple(one if one is Ellipsis else _plain(one) for one in inner)
        return None if None in kept else (list if origin in SEQUENCES else origin)[kept]
    return None
