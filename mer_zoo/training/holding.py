"""All that some objects hold, as plain data: taken while they are at work, put back into equal ones made anew."""

from __future__ import annotations

import enum
import functools
import io
import random
import re
import types
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import PurePath
from typing import Any, NamedTuple

import numpy as np
import pydantic
import torch
from torch import Tensor, nn

from mer_zoo.errors import MerZooError

PLAIN = (type(None), bool, int, float, str)
TENSORS = (Tensor, nn.Parameter)
MAPPINGS: dict[str, type] = {"dict": dict, "OrderedDict": OrderedDict, "Counter": Counter, "defaultdict": defaultdict}
ROWS: dict[str, type] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
CONTAINERS = {kind: name for name, kind in (MAPPINGS | ROWS).items()}
SETTLED = (
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.MethodWrapperType, types.ModuleType),
    *(type, functools.partial, weakref.ref, enum.Enum, re.Pattern, PurePath, torch.dtype, torch.device, torch.Size),
    *(torch.layout, torch.memory_format, type(Ellipsis), type(NotImplemented), types.GenericAlias),
)
"""Kinds of things that are made with an object and then stay; that they do is checked."""


class Drawing(NamedTuple):
    """How the state of a random generator is read and set."""

    kind: type
    state: Callable[[Any], Any]
    set: Callable[[Any, Any], None]


DRAWING = {
    "torch.Generator": Drawing(torch.Generator, lambda g: g.get_state(), lambda g, state: g.set_state(state)),
    "random.Random": Drawing(random.Random, lambda g: g.getstate(), lambda g, state: g.setstate(state)),
    "numpy.Generator": Drawing(
        np.random.Generator,
        lambda g: g.bit_generator.state,
        lambda g, state: setattr(g.bit_generator, "state", state),
    ),
    "numpy.RandomState": Drawing(
        np.random.RandomState, lambda g: g.get_state(legacy=False), lambda g, state: g.set_state(state)
    ),
}


class NotPlain(MerZooError):
    """Something holds what is no data."""


def shared_generators(device: str) -> list[Any]:
    """Return the generators that whoever names none draws from: those of Python, NumPy, torch, and the device's."""
    found = [random.getstate.__self__, np.random.get_state.__self__, torch.default_generator]  # type: ignore[attr-defined]
    if device.startswith("cuda"):
        torch.cuda.init()
        number = torch.device(device).index
        found.append(torch.cuda.default_generators[torch.cuda.current_device() if number is None else number])
    return found


class Holding:
    """What objects hold, found by walking from attribute to attribute, entry to entry.

    Data are numbers, texts, tensors, arrays, random generators, and lists, tuples, sets, mappings and objects of them,
    shared or not. Functions, classes and the like are settled: they belong to how an object is made. An object that
    comes up later, or anything settled that changes, could not be made again, so it is refused.

    Args:
        roots: name -> where the walk begins; what is a key of a mapping must come up before.

    Raises:
        NotPlain: something is neither data nor settled, such as an open file or an iterator.

    Example:
        >>> class Counting(nn.Linear):
        ...     calls, seen = 0, None
        >>> at_work, anew = Counting(2, 1), Counting(2, 1)
        >>> before, after = Holding({"part": at_work}), Holding({"part": anew})
        >>> at_work.calls, at_work.seen = 7, deque([torch.ones(2)], maxlen=3)
        >>> after.put(*before.take())
        >>> anew.calls, anew.seen, torch.equal(anew.weight, at_work.weight)
        (7, deque([tensor([1., 1.])], maxlen=3), True)
    """

    def __init__(self, roots: Mapping[str, Any]) -> None:
        self.roots = dict(roots)
        self.made: dict[str, Any] = {}
        _Taking(self.made, first=True).of(self.roots, "", "")

    def take(self) -> tuple[Any, list[Tensor]]:
        """Return what is held now: a tree that JSON can write, and the tensors that it numbers, on the CPU.

        Raises:
            NotPlain: as of the class, or something settled has changed.
        """
        taking = _Taking(self.made, first=False)
        return taking.of(self.roots, "", ""), taking.copies()

    def put(self, tree: Any, tensors: list[Tensor], device: str = "cpu") -> None:
        """Put back what `take` returned, in place wherever something like it stands.

        Args:
            tree, tensors: what `take` returned.
            device: where tensors go that were not on the CPU.

        Raises:
            ValueError, TypeError, LookupError, AttributeError, RuntimeError: it was not taken from such objects.
        """
        with torch.no_grad():
            _Putting(tensors, device).of(tree, self.roots)


class _Taking:
    """One walk that takes."""

    def __init__(self, made: dict[str, Any], *, first: bool) -> None:
        self.made, self.first = made, first
        self.numbers: dict[int, int] = {}
        self.alive: list[Any] = []  # what was seen: an id is used again once its object is gone
        self.tensors: list[Tensor] = []

    def copies(self) -> list[Tensor]:
        return [x.detach().clone(memory_format=torch.contiguous_format).cpu() for x in self.tensors]

    def of(self, x: Any, path: str, holder: str) -> Any:
        kind = type(x)
        if kind in PLAIN:
            return x
        if id(x) in self.numbers:
            return ["again", self.numbers[id(x)]]
        if not (name := CONTAINERS.get(kind)) and (isinstance(x, SETTLED) or _frozen(x)):
            self._settled(x, path, holder)
            return ["made"]
        number = self.numbers[id(x)] = len(self.numbers)
        self.alive.append(x)
        if kind in TENSORS:
            return ["tensor", number, self._numbered(x), x.device.type, x.is_leaf and x.requires_grad]
        if kind is np.ndarray or isinstance(x, np.generic):
            what = "array" if kind is np.ndarray else "number"
            return [what, number, self._numbered(self._of_numpy(x, holder))]
        if name in MAPPINGS:
            return [name, number, list(self._entries(x, path, holder))]
        if name in ROWS:
            return [name, number, self._row(x, path, holder)]
        if kind is deque:
            return ["deque", number, x.maxlen, self._row(x, path, holder)]
        for name, drawing in DRAWING.items():
            if kind is drawing.kind:
                self._settled(kind, path, holder)
                return [name, number, self.of(drawing.state(x), f"{path}/state", holder)]
        self._settled(kind, path, holder)
        if isinstance(x, tuple) and hasattr(x, "_fields"):
            return ["named", number, self._row(x, path, holder)]
        if not _made_in_python(x):
            raise NotPlain(f"{holder} holds a {kind.__module__}.{kind.__qualname__}, which is no plain data")
        return ["object", number, [[n, self.of(y, f"{path}.{n}", f"`{n}` of {_called(x)}")] for n, y in _fields(x)]]

    def _settled(self, x: Any, path: str, holder: str) -> None:
        """Note what is settled, or make sure that it is as it was."""
        if self.first:
            self.made[path] = x
        elif path not in self.made or not (self.made[path] is x or self.made[path] == x):
            what = x if isinstance(x, type) else type(x)
            raise NotPlain(f"{holder} came to hold a {what.__module__}.{what.__qualname__}, which is no plain data")

    def _numbered(self, x: Tensor) -> int:
        self.tensors.append(x)
        return len(self.tensors) - 1

    def _of_numpy(self, x: Any, holder: str) -> Tensor:
        try:
            return torch.from_numpy(np.array(x))
        except TypeError:
            raise NotPlain(f"{holder} holds an array of {x.dtype}, which is no plain data") from None

    def _row(self, x: Any, path: str, holder: str) -> list[Any]:
        return [self.of(y, f"{path}/{i}", holder) for i, y in enumerate(x)]

    def _entries(self, x: Mapping[Any, Any], path: str, holder: str) -> Iterator[list[Any]]:
        if isinstance(x, defaultdict):
            self._settled(type(x), path, holder)
        for i, (key, y) in enumerate(x.items()):
            place = f"{path}/{key if isinstance(key, str) else i}"
            if isinstance(key, Tensor) and id(key) not in self.numbers:
                raise NotPlain(f"{holder} has a tensor as a key that is no weight, which cannot be found again")
            yield [self.of(key, f"{place}/key", holder), self.of(y, place, holder)]


MISSING = object()


class _Putting:
    """One walk that puts back; `old` is what stands in the place."""

    def __init__(self, tensors: list[Tensor], device: str) -> None:
        self.tensors, self.device = tensors, device
        self.found: dict[int, Any] = {}

    def of(self, node: Any, old: Any = MISSING) -> Any:
        if type(node) in PLAIN:
            return node
        what, *rest = node
        if what == "made":
            if old is MISSING or not (isinstance(old, SETTLED) or _frozen(old)):
                raise ValueError("something that is made anew is missing")
            return old
        number, *content = rest
        if what == "again":
            return self.found[number]
        if what in MAPPINGS:
            return self._mapping(MAPPINGS[what], number, content[0], old)
        if what in DRAWING:
            drawing = DRAWING[what]
            _like(old, drawing.kind)
            drawing.set(old, self.of(content[0]))
            return self._keep(number, old)
        return getattr(self, f"_{KINDS[what]}")(what, number, *content, old)

    def _keep(self, number: int, x: Any) -> Any:
        self.found[number] = x
        return x

    def _tensor(self, what: str, number: int, index: int, device: str, trained: bool, old: Any) -> Any:
        new = self.tensors[index]
        if type(old) in TENSORS and old.shape == new.shape and old.dtype == new.dtype:
            old.copy_(new)
        elif type(old) is nn.Parameter:
            raise ValueError("a weight has another shape or type")
        else:
            old = new if device == "cpu" else new.to(self.device)
        if old.is_leaf and old.requires_grad != trained:
            old.requires_grad_(trained)
        return self._keep(number, old)

    def _array(self, what: str, number: int, index: int, old: Any) -> Any:
        new = self.tensors[index].numpy().copy()
        if what == "number":
            return self._keep(number, new[()])
        if type(old) is np.ndarray and old.shape == new.shape and old.dtype == new.dtype and old.flags.writeable:
            old[...] = new
            new = old
        return self._keep(number, new)

    def _mapping(self, kind: type, number: int, entries: list[Any], old: Any) -> Any:
        if kind is defaultdict:
            _like(old, kind)
        x = self._keep(number, old if type(old) is kind else kind())
        before = dict(x)
        pairs = []
        for left, right in entries:
            key = self.of(left)
            pairs.append((key, self.of(right, before.get(key, MISSING))))
        x.clear()
        for key, value in pairs:  # `update` of a Counter would count them
            x[key] = value
        return x

    def _row(self, what: str, number: int, items: list[Any], old: Any) -> Any:
        same = type(old).__name__ == what and type(old) in (list, tuple)
        if what == "list":
            x = self._keep(number, old if same else [])
            x[:] = self._items(items, x)
            return x
        found = self._items(items, old if same else ())
        if same and len(found) == len(old) and all(map(_is, found, old)):
            return self._keep(number, old)
        return self._keep(number, ROWS[what](found))

    def _named(self, what: str, number: int, items: list[Any], old: Any) -> Any:
        found = self._items(items, old)
        same = all(map(_is, found, old))
        return self._keep(number, old if same else type(old)._make(found))

    def _deque(self, what: str, number: int, most: int | None, items: list[Any], old: Any) -> Any:
        found = self._items(items, ())
        if type(old) is deque and old.maxlen == most:
            old.clear()
            old.extend(found)
            return self._keep(number, old)
        return self._keep(number, deque(found, most))

    def _items(self, items: list[Any], old: Any) -> list[Any]:
        before = list(old)
        return [self.of(item, before[i] if i < len(before) else MISSING) for i, item in enumerate(items)]

    def _object(self, what: str, number: int, fields: list[Any], old: Any) -> Any:
        if old is MISSING or not _made_in_python(old):
            raise ValueError("an object is missing")
        self._keep(number, old)
        before = dict(_fields(old))
        for name, node in fields:
            if name not in before and callable(getattr(type(old), name, None)):
                raise ValueError(f"'{name}' of {_called(old)} is a method")
            new = self.of(node, before.pop(name, MISSING))
            if name in getattr(old, "__dict__", {}) or not hasattr(type(old), name):
                vars(old)[name] = new
            else:
                object.__setattr__(old, name, new)
        for name in before:
            object.__delattr__(old, name)
        return old


KINDS = {"tensor": "tensor", "array": "array", "number": "array", "named": "named", "deque": "deque"}
KINDS |= {"object": "object", **dict.fromkeys(ROWS, "row")}


def _is(one: Any, other: Any) -> bool:
    return one is other or (type(one) in PLAIN and type(one) is type(other) and one == other)


def _like(old: Any, kind: type) -> None:
    if type(old) is not kind:
        raise ValueError(f"a {kind.__name__} is missing")


def _frozen(x: Any) -> bool:
    """Whether a record never changes."""
    if isinstance(x, pydantic.BaseModel):
        return bool(x.model_config.get("frozen"))
    return is_dataclass(x) and bool(x.__dataclass_params__.frozen)  # type: ignore[union-attr]


def _made_in_python(x: Any) -> bool:
    """Whether an object has fields and nothing beside them that only C could see."""
    heap = 1 << 9
    base = next(cls for cls in type(x).__mro__ if not cls.__flags__ & heap)
    has_fields = hasattr(x, "__dict__") or any("__slots__" in vars(cls) for cls in type(x).__mro__)
    return base is object and has_fields and not isinstance(x, io.IOBase)


def _fields(x: Any) -> list[tuple[str, Any]]:
    """Return the attributes of an object, slots included."""
    slots = [name for cls in type(x).__mro__ for name in _names(vars(cls).get("__slots__", ()))]
    found = {name: getattr(x, name) for name in slots if name not in ("__dict__", "__weakref__") and hasattr(x, name)}
    return [*getattr(x, "__dict__", {}).items(), *found.items()]


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _called(x: Any) -> str:
    return type(x).__qualname__
