"""A part under test: its class, what its card says of it, and what checking it found."""

from __future__ import annotations

import traceback
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal

import torch
from torch import Tensor

from mer_zoo import registry
from mer_zoo.batch import fakes
from mer_zoo.errors import MerZooError
from mer_zoo.showing import Shown, Table, Words


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        check: name of the check.
        fault: what is wrong, or "".
        skipped: why the check did not run, or "".
    """

    check: str
    fault: str = ""
    skipped: str = ""

    @property
    def fine(self) -> bool:
        """Whether nothing is wrong."""
        return not self.fault

    def __str__(self) -> str:
        if self.fault:
            return f"FAILS  {self.check}: {self.fault}"
        return f"skip   {self.check}: {self.skipped}" if self.skipped else f"ok     {self.check}"


class Findings(Shown, list[Finding]):
    """What all checks of a part found, in order."""

    def shown(self) -> Iterator[Words | Table]:
        """Yield a row per check."""
        rows = [(str(finding).split()[0], finding.check, finding.fault or finding.skipped) for finding in self]
        yield Table(("", "check", "why"), rows)

    def records(self) -> list[dict[str, Any]]:
        """Return the findings with their fields."""
        return [{"check": f.check, "fine": f.fine, "fault": f.fault, "skipped": f.skipped} for f in self]


@dataclass(frozen=True)
class Skipped:
    """Why a check did not run."""

    reason: str


Verdict = str | Skipped | None
"""What a check returns: its fault, why it did not run, or None where all is well."""
Checks = dict[str, Callable[[], Verdict]]
"""The checks of one part by name, in order."""


def attempt(check: Callable[[], Verdict]) -> Verdict:
    """Run a check; an error that the part raises is its fault, with the line."""
    try:
        return check()
    except MerZooError as fault:
        return str(fault)
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}{where(error)}"


def judge(name: str, check: Callable[[], Verdict]) -> Finding:
    """Run a check and say what it found."""
    verdict = attempt(check)
    if isinstance(verdict, Skipped):
        return Finding(name, skipped=verdict.reason)
    return Finding(name, fault=verdict or "")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def where(error: BaseException) -> str:
    """Return ` (file:line: source)` of the innermost line that is neither torch's nor this suite's."""
    inside = (str(Path(torch.__file__).parent), str(Path(__file__).parent), fakes.__file__)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(inside) and "<" not in frame.filename:
            return f" ({Path(frame.filename).name}:{frame.lineno}: {frame.line})"
    return ""


@dataclass(frozen=True)
class Part:
    """A class of a kind, with the promises and dead parameters that are claimed of it."""

    kind: str
    cls: type
    owner: str
    promises: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def build(self, known: Mapping[str, Any], seed: int = 0, /, **settings: Any) -> Any:
        """Make an instance with weights drawn from a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return registry.construct(self.kind, self.cls, {**self.settings, **settings}, known, self.owner)

    def values(self, name: str, known: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
        """Return other values of a setting: all that its type lists, and some of the others that it allows."""
        setting = registry.settings(self.kind, self.cls)[name]
        default = self.settings.get(name, setting.default)
        listed, moved = [], []
        for value in _listed(setting.type):
            listed += [value] if value != default and value not in listed else []
        for value in _moved(setting.type, default, known):
            moved += [value] if value != default and value not in moved else []
        return listed, moved

    def setting_checks(
        self, known: Mapping[str, Any], effect: Callable[[dict[str, Any]], Verdict | bool], values: int = 2
    ) -> Checks:
        """Return a check for every setting that can be moved: it works off its default, and has an effect.

        Args:
            known: facts that values may depend on.
            effect: makes the part with a setting, runs it, and returns its fault, or whether it does anything else
                than by default; it raises `MerZooError` where the value is refused.
            values: of a number, how many to try; more where these have no effect.
        """
        found: Checks = {}
        for name in registry.settings(self.kind, self.cls):
            if any(self.values(name, known)):
                found[f"setting {name}"] = lambda name=name: self._move(name, known, effect, values)  # type: ignore[misc]
        return found

    def _move(
        self, name: str, known: Mapping[str, Any], effect: Callable[[dict[str, Any]], Verdict | bool], values: int
    ) -> Verdict:
        listed, moved = self.values(name, known)
        refusal, matters = "", False
        worked: list[Any] = []
        for value in (*listed, *moved):
            if value not in listed and len(worked) >= values and matters:
                break
            try:
                result = effect({name: value})
            except MerZooError as error:
                refusal = refusal or str(error)
                continue
            except Exception as error:
                return f"{name}: {value} fails: {type(error).__name__}: {first_line(error)}{where(error)}"
            if isinstance(result, str):
                return f"{name}: {value}: {result}"
            if value not in listed:
                worked.append(value)
                matters = matters or bool(result)
            elif not result:
                return f"{name}: {value} changes nothing. Use the setting, or take it away."
        if worked and not matters:
            shown = ", ".join(map(str, worked))
            return f"`{name}` changes nothing (tried: {shown}). Use the setting, refuse what it cannot do, or drop it."
        return Skipped(f"other values are refused: {refusal}") if refusal and moved and not worked else None


def _listed(kind: Any) -> list[Any]:
    """Return the values a type lists: of bool, Literal, and unions with these."""
    if kind is bool:
        return [False, True]
    if typing.get_origin(kind) is Literal:
        return list(typing.get_args(kind))
    return [value for option in _options(kind) for value in _listed(option)]


def _options(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, UnionType) else ()


def _moved(kind: Any, default: Any, known: Mapping[str, Any]) -> Iterable[Any]:
    """Yield values beside the default that a type allows: numbers, names of modalities, and structures of these."""
    names = [m for fact in ("widths", "modalities", "node_types") for m in known.get(fact, ())]
    is_number = isinstance(default, (int, float)) and not isinstance(default, bool)
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is int:
        d = int(default) if is_number else 4
        yield from (x for x in (d // 2, d + 1, 2 * d, d - 1, 8, 2, 3, 1) if x >= 1)
    elif kind is float:
        x = float(default) if is_number else 0.5
        yield from (x / 2, 2 * x, 0.5, 0.25, 1.0, 0.0)
    elif kind is str and default is None:
        yield from names
    elif origin is list and inner == (float,):
        yield [1.0 + i for i in range(known.get("classes", 2))]
    elif origin is tuple and isinstance(default, tuple):
        for i, value in enumerate(default):
            if isinstance(value, (int, float)):
                yield (*default[:i], value + 1, *default[i + 1 :])
    elif origin is dict and inner[0] is str and is_number:
        d = type(default)(default)
        yield {m: d / (i + 2) if isinstance(d, float) else d + i for i, m in enumerate(names)}
    for option in _options(kind):
        yield from _moved(option, default, known)


def close(first: Tensor, second: Tensor, tolerance: float = 1e-5) -> bool:
    """Whether two results agree, relative to the larger of 1 and their size."""
    if first.shape != second.shape:
        return False
    scale = max(1.0, float(second.detach().abs().max()) if second.numel() else 1.0)
    return bool(((first.detach().double() - second.detach().double()).abs() <= tolerance * scale).all())


def difference(first: Tensor, second: Tensor) -> str:
    """Return the largest difference as text."""
    if first.shape != second.shape:
        return f"shapes {tuple(first.shape)} and {tuple(second.shape)}"
    return f"{float((first.detach().double() - second.detach().double()).abs().max()):.2g}"
