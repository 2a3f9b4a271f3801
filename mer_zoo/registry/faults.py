"""pydantic's errors, put as ours are: where, what, and the nearest name there is."""

from __future__ import annotations

import json
import re
import sysconfig
import traceback
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mer_zoo.errors import nearest

if TYPE_CHECKING:
    from pydantic import BaseModel, ValidationError

_OURS = (Path(__file__).parents[1], *(Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib", "platlib")))
"""Where the code of the library and of what it stands on lies."""

WORDS = {"dict_type": "a mapping", "model_type": "a mapping", "list_type": "a list", "string_type": "text"}
"""What is wanted, where pydantic says it in words of its own."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with data.

    Attributes:
        path: keys and numbers that lead to it in the data.
        kind: a key that is `unknown`, one that is `missing`, or a `wrong` value.
        text: what is wrong with the value.
        given: the value.
    """

    path: tuple[Any, ...]
    kind: Literal["unknown", "missing", "wrong"]
    text: str
    given: Any

    @property
    def shown(self) -> str:
        """The value, cut where it is long."""
        return short(json.dumps(self.given, default=str))


def faults_in(error: ValidationError, data: Any) -> list[Fault]:
    """Return what is wrong with data, each place once.

    Args:
        error: what pydantic raised.
        data: what it was given.
    """
    found: dict[tuple[Any, ...], list[Any]] = {}
    for one in error.errors(include_url=False):
        found.setdefault(_path(one["loc"], data, one["type"] == "missing"), []).append(one)
    # of several types that a value may have, the one that fits best fails deepest
    deepest = [path for path in found if not any(other[: len(path)] == path for other in found if other != path)]
    return [_fault(path, found[path]) for path in deepest]


def described(error: ValidationError, model: type[BaseModel], data: Any, place: Callable[..., str]) -> str:
    """Return one line for each fault.

    Args:
        error: what pydantic raised.
        model: what the data should be.
        data: what was given.
        place: gives the beginning of the line from the keys that lead to a value.
    """
    lines = []
    for fault in faults_in(error, data):
        where = place(*fault.path)
        if fault.kind == "unknown":
            lines.append(f"{where}: unknown key.{nearest(short(str(fault.path[-1])), keys_at(model, fault.path[:-1]))}")
        elif fault.kind == "missing":
            lines.append(f"{where}: is missing. Add it.")
        else:
            lines.append(f"{where}: {fault.text} (given: {fault.shown}).")
    return "\n".join(lines)


def keys_at(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    """Return the keys that a mapping may have, some keys below the top.

    Example:
        >>> from mer_zoo.model.recipe import Recipe
        >>> keys_at(Recipe, ("model", "fuse"))[:2]
        ['encoder', 'layer']
    """
    kinds: list[Any] = [model]
    for step in path:
        kinds = [inner for kind in kinds for inner in _inside(kind, step)]
    return [key for kind in kinds for key in getattr(kind, "model_fields", ())]


def raised(error: BaseException) -> str:
    """Return what an error of someone's own code says: its kind, its first line, and the file and line it is from.

    Example:
        >>> raised(KeyError("width"))
        "KeyError: 'width'"
    """
    text = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    message = f"{type(error).__name__}: {text}" if text else type(error).__name__
    foreign = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(Path(frame.filename).is_relative_to(folder) for folder in _OURS)
    ]
    return f"{message} ({foreign[-1].filename}:{foreign[-1].lineno})" if foreign else message


def short(text: str) -> str:
    """Return a text, cut where it is long.

    Example:
        >>> short("x" * 1000)[-4:]
        'xxx…'
    """
    return text if len(text) <= 80 else f"{text[:79]}…"


def _path(location: tuple[Any, ...], data: Any, missing: bool) -> tuple[Any, ...]:
    """Of pydantic's location, the steps that are in the data; the others name types of its own."""
    path: list[Any] = []
    for number, step in enumerate(location):
        listed = isinstance(data, (list, tuple)) and isinstance(step, int) and step < len(data)
        inside = listed or (isinstance(data, Mapping) and step in data)
        # a key that the data lacks: it is missing, or its default does not fit
        if inside or (number == len(location) - 1 and (missing or (not path and number == 0))):
            path.append(step)
            data = data[step] if inside else None
    return tuple(path)


def _fault(path: tuple[Any, ...], errors: list[Any]) -> Fault:
    if any(error["type"] == "extra_forbidden" for error in errors):
        return Fault(path, "unknown", "", None)
    if any(error["type"] == "missing" for error in errors):
        return Fault(path, "missing", "", None)
    texts = []
    # of several types that a value may have, one may fit that the value itself does not
    fitting = [error for error in errors if not re.fullmatch(r"\w+_type|literal_error", error["type"])]
    for error in fitting or errors:
        text = str(error["msg"]).removeprefix("Value error, ")
        if error["type"] in WORDS:
            text = f"must be {WORDS[error['type']]}"
        elif text.startswith("Input should be "):
            text = f"must be {text.removeprefix('Input should be ')}"
        text = re.sub(r"^\w+ should have", "must have", text).split(" after validation")[0]
        texts.append(text.rstrip("."))
    return Fault(path, "wrong", ", or ".join(dict.fromkeys(texts)), errors[0]["input"])


def _inside(kind: Any, step: Any) -> Iterator[Any]:
    """Yield the types that a value below a value of this type may have, each alone."""
    if step in getattr(kind, "model_fields", {}):
        yield from _alone(kind.model_fields[step].annotation)
    elif typing.get_origin(kind) in (dict, list, tuple):
        yield from _alone(typing.get_args(kind)[typing.get_origin(kind) is dict])


def _alone(kind: Any) -> Iterator[Any]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        for option in typing.get_args(kind):
            yield from _alone(option)
    elif typing.get_origin(kind) is typing.Annotated:
        yield from _alone(typing.get_args(kind)[0])
    else:
        yield kind
