"""A part's signature is its settings: facts by position, settings by name, checked strictly."""

from __future__ import annotations

import functools
import inspect
import json
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mer_zoo.errors import MerZooError, at, nearest
from mer_zoo.registry.faults import Fault, faults_in, raised, short
from mer_zoo.registry.kinds import KINDS, a

LARGEST = 2**31 - 1
"""The largest whole number that a setting may be: native code takes no more."""

MOST = 10**7
"""The largest that one of a model's parts may be: there are so many of nothing that it counts."""

COUNTING = ("encoder", "layer", "edge_weight", "fusion", "head", "graph")


def facts(kind: str, cls: type) -> tuple[str, ...]:
    """Return the facts that a part's `__init__` asks for: its positional arguments."""
    names = []
    for parameter in _parameters(cls):
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            if parameter.name not in KINDS[kind].facts:
                allowed = ", ".join(KINDS[kind].facts) or "none"
                raise MerZooError(
                    f"{cls.__module__}:{cls.__qualname__}: positional argument '{parameter.name}' is not a fact that "
                    f"{a(kind)} can be given (facts: {allowed}). If it is a setting, put it after `*`."
                )
            names.append(parameter.name)
    return tuple(names)


@dataclass(frozen=True)
class Setting:
    """One keyword-only argument of a part: its name, type and default."""

    name: str
    type: Any
    default: Any

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is inspect.Parameter.empty


def settings(kind: str, cls: type) -> dict[str, Setting]:
    """Return a part's settings, read from the typed keyword-only arguments of its `__init__`.

    A part that hands settings on to something of another library ends its arguments with `**settings`, and says which
    there are by a class method: `handed_on(given) -> name -> Setting`. What is to be written instead of settings that
    the part once had stands in its `removed`: name -> text.
    """
    facts(kind, cls)
    init = cls.__init__ if inspect.isclass(cls) else cls
    named = {p.name: p.annotation for p in _parameters(cls) if p.kind is p.KEYWORD_ONLY and p.annotation is not p.empty}
    try:  # of settings alone: a fact's type may be known to type checkers only
        hints = typing.get_type_hints(types.SimpleNamespace(__annotations__=named), getattr(init, "__globals__", {}))
    except Exception as error:
        raise MerZooError(f"{cls.__module__}:{cls.__qualname__}: a type annotation cannot be read: {error}") from None
    found = {}
    for parameter in _parameters(cls):
        if parameter.kind is parameter.VAR_KEYWORD and hasattr(cls, "handed_on"):
            continue
        if parameter.kind is parameter.VAR_KEYWORD or parameter.kind is parameter.VAR_POSITIONAL:
            raise MerZooError(
                f"{cls.__module__}:{cls.__qualname__}: `*{parameter.name}` hides settings. Name each one."
            )
        if parameter.kind is parameter.KEYWORD_ONLY:
            if parameter.name == "name" or parameter.name.startswith("_"):
                raise MerZooError(
                    f"{cls.__module__}:{cls.__qualname__}: a setting cannot be called '{parameter.name}' (in recipes, "
                    "`name` is the part's own). Rename it."
                )
            if parameter.name not in hints:
                raise MerZooError(
                    f"{cls.__module__}:{cls.__qualname__}: setting '{parameter.name}' has no type. Annotate it, "
                    f"as in `{parameter.name}: int = 1`."
                )
            found[parameter.name] = Setting(parameter.name, hints[parameter.name], parameter.default)
    return found


def _parameters(cls: type) -> list[inspect.Parameter]:
    if not inspect.isclass(cls):  # a dataset may be a function
        return list(inspect.signature(cls).parameters.values())
    if cls.__init__ is object.__init__:
        return []
    named = list(inspect.signature(cls.__init__).parameters.values())[1:]
    if (getattr(cls.__init__, "__module__", None) or "").startswith("torch."):  # nn.Module's own hides everything
        return []
    return named


@functools.cache
def schema(kind: str, cls: type) -> Any:
    """Return the strict pydantic model of a part's settings: unknown keys are errors, defaults are filled in."""
    return _schema(cls, settings(kind, cls))


def _schema(cls: type, every: Mapping[str, Setting]) -> Any:
    import pydantic

    fields = {
        s.name: (s.type, ... if s.required else pydantic.Field(default=s.default, validate_default=True))
        for s in every.values()
    }
    config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a setting may have the name of a method of pydantic's
            return pydantic.create_model(f"{cls.__name__}Settings", __config__=config, **fields)  # type: ignore[call-overload]
    except (pydantic.PydanticUserError, TypeError, NameError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise MerZooError(
            f"{cls.__module__}:{cls.__qualname__}: a setting's type is not plain data (numbers, text, lists, mappings "
            f"of these, Literal): {reason}."
        ) from None


def validate(
    kind: str,
    cls: type,
    given: Mapping[str, Any],
    owner: str,
    place: str = "",
    locate: Callable[..., str] | None = None,
) -> Any:
    """Return the checked settings of a class as an instance of its schema; `owner` names the part in errors."""
    import pydantic

    model = schema(kind, cls)
    if hasattr(cls, "handed_on"):
        try:
            model = _schema(cls, {**cls.handed_on(given), **settings(kind, cls)})
        except MerZooError as error:
            raise MerZooError(f"{at(place)}{owner}: {error}") from None
    locate = locate or (lambda *path: place)
    try:
        text = json.dumps(dict(given))  # as if written in a recipe: a list may stand for a tuple
    except (TypeError, ValueError) as error:
        raise MerZooError(f"{at(place)}settings of {owner} must be plain data: {error}.") from None
    for path, number in _numbers(given):
        if abs(number) > (MOST if kind in COUNTING else LARGEST):
            name = ".".join(map(str, path))
            raise MerZooError(f"{at(locate(*path))}setting '{name}' of {owner}: {short(str(number))} is out of range.")
    try:
        return model.model_validate_json(text)
    except pydantic.ValidationError as error:
        removed = getattr(cls, "removed", {})
        lines = [
            _line(fault, model.model_fields, removed, at(locate(*fault.path)), owner)
            for fault in faults_in(error, given)
        ]
        raise MerZooError("\n".join(lines)) from None


def _numbers(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], int]]:
    """Every whole number in plain data, with its path."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, (*path, key))
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _numbers(inner, (*path, number))
    elif isinstance(value, int):
        yield path, value


def _line(fault: Fault, known: Iterable[str], removed: Mapping[str, str], place: str, owner: str) -> str:
    path = ".".join(short(str(step)) for step in fault.path)
    if fault.kind == "unknown" and path in removed:
        return f"{place}{owner} has no setting '{path}' any more. {removed[path]}"
    if fault.kind == "unknown":
        return f"{place}{owner} has no setting '{path}'.{nearest(path, known) or ' It has none.'}"
    if fault.kind == "missing":
        return f"{place}{owner} needs the setting '{path}'. Add it."
    return f"{place}setting '{path}' of {owner}: {fault.text} (given: {fault.shown})."


def construct(
    kind: str, cls: type, given: Mapping[str, Any], known_facts: Mapping[str, Any], owner: str, place: str = ""
) -> Any:
    """Make a part from its class; as `build`, for a class that has no card."""
    filled = dict(validate(kind, cls, given, owner, place))
    lead = at(place)
    missing = [name for name in facts(kind, cls) if name not in known_facts]
    if missing:
        raise MerZooError(f"{lead}{owner} needs to know {', '.join(missing)}, which is not known here.")
    try:
        return cls(*(known_facts[name] for name in facts(kind, cls)), **filled)
    except MerZooError as error:
        raise MerZooError(f"{lead}{owner}: {error}") from None
    except Exception as error:  # a width that fits into no memory is a RuntimeError
        reason = str(error) if isinstance(error, (ValueError, TypeError)) else raised(error)
        raise MerZooError(f"{lead}{owner} cannot be made of these settings: {reason}") from error
