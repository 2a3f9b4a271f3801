"""A part under test: its class, what its card says of it, and how its kind is called."""

from __future__ import annotations

import traceback
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mer_zoo import registry
from mer_zoo.checking import examples
from mer_zoo.corpus import ConversationBatch
from mer_zoo.errors import MerZooError
from mer_zoo.kernel.base import Kernel


class Broken(Exception):
    """A contract is broken; the message is the fault."""


class NotHere(Exception):
    """A check cannot run; the message says why."""


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


@dataclass(frozen=True)
class Part:
    """A class of a kind, with the promises and dead parameters that are claimed of it."""

    kind: str
    cls: type
    owner: str
    promises: tuple[str, ...] = ()
    dead: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def build(self, known: Mapping[str, Any], seed: int = 0, **settings: Any) -> Any:
        """Make an instance with weights drawn from a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return registry.construct(self.kind, self.cls, {**self.settings, **settings}, known, self.owner)

    def variants(self) -> list[dict[str, Any]]:
        """Return every other value of each setting that is a bool or a Literal."""
        found = []
        for setting in registry.settings(self.kind, self.cls).values():
            default = self.settings.get(setting.name, setting.default)
            found += [{setting.name: value} for value in _choices(setting.type) if value != default]
        return found


def _choices(kind: Any) -> list[Any]:
    """Return the values a type lists: of bool, Literal, and unions with these."""
    if kind is bool:
        return [False, True]
    origin = typing.get_origin(kind)
    if origin is Literal:
        return list(typing.get_args(kind))
    if origin in (typing.Union, UnionType):
        return [value for option in typing.get_args(kind) for value in _choices(option)]
    return []


Check = Callable[..., None]


def run(check: str, function: Callable[[], None]) -> Finding:
    """Run one check; whatever it raises becomes its fault."""
    try:
        function()
    except NotHere as reason:
        return Finding(check, skipped=str(reason))
    except (Broken, MerZooError) as fault:
        return Finding(check, fault=str(fault))
    except Exception as error:
        return Finding(check, fault=f"{type(error).__name__}: {_first_line(error)}{where(error)}")
    return Finding(check)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or "no message").splitlines()[0]


def where(error: BaseException) -> str:
    """Return ` (file:line: source)` of the innermost line that is neither torch's nor this suite's."""
    inside = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(inside) and "<" not in frame.filename:
            return f" ({Path(frame.filename).name}:{frame.lineno}: {frame.line})"
    return ""


class Trial:
    """One module part as the suite calls it: built with examples' facts, run in every way its kind is run.

    A *scenario* is one way: a layer, for example, runs with and without edge weights, on one node type and on two.
    """

    def __init__(self, part: Part) -> None:
        self.part = part
        self.kind = part.kind
        self.widths = dict(examples.UNEQUAL_WIDTHS)
        self.sources = {m: m for m in self.widths}
        if self.kind == "fusion":
            try:
                part.build(self.known)
            except MerZooError:  # it wants equal widths; a second refusal is a fault
                self.widths = dict(examples.WIDTHS)
                self.sources = {"text": "text", "audio": "audio16", "visual": "visual16"}

    @property
    def known(self) -> dict[str, Any]:
        """The facts."""
        return {
            "width": 16,
            "widths": self.widths,
            "relations": examples.GRAPH.relations,
            "speakers": examples.SPEAKERS,
            "classes": examples.CLASSES,
            "node_types": ("text",),
        }

    def build(self, seed: int = 0, **settings: Any) -> nn.Module:
        """Make an instance, in evaluation mode."""
        made = self.part.build(self.known, seed, **settings)
        if not isinstance(made, nn.Module):
            raise Broken(f"a {self.kind} must be an nn.Module; {self.part.cls.__name__} is not.")
        return made.eval()

    @cached_property
    def scenarios(self) -> tuple[str, ...]:
        """Names of the ways to call it; one that the part refuses with a `MerZooError` is left out."""
        if self.kind not in ("layer", "edge_weight"):
            return ("",)
        wanted = ("unweighted", "weighted", "across") if self.kind == "layer" else ("window", "across")
        module, batch = self.build(), examples.batch("seven")
        found = []
        for scenario in wanted:
            try:
                with torch.no_grad():
                    self.call(module, self.arguments(batch, scenario))
                found.append(scenario)
            except MerZooError:
                if not found:
                    raise
            except Exception:  # a fault of the part, for a check to name
                found.append(scenario)
        return tuple(found)

    def arguments(self, batch: ConversationBatch, scenario: str) -> tuple[Any, ...]:
        """Return what `forward` is given."""
        x, dialogues = batch.features["text"], batch.layout
        if self.kind in ("encoder", "head"):
            return (x, dialogues)
        if self.kind == "fusion":
            return ({m: batch.features[source] for m, source in self.sources.items()}, dialogues)
        spec = {"across": examples.ACROSS, "past": examples.PAST}.get(scenario, examples.WINDOW)
        edges = batch.views[spec]
        if scenario == "across":
            x = torch.stack([x, batch.features["audio16"]], 1).flatten(0, 1)
        if self.kind == "edge_weight":
            return (x, edges, dialogues)
        return (x, edges, symmetric_weights(x, edges) if scenario == "weighted" else None)

    def call(self, module: nn.Module, arguments: tuple[Any, ...]) -> Tensor:
        """Return the output as rows: `[N, ...]` for states, `[edges]` for edge weights."""
        output = module(*arguments)
        if not isinstance(output, Tensor):
            raise Broken(f"forward gives {type(output).__name__}, but must give a Tensor.")
        if self.kind == "edge_weight":
            return arguments[1].edge_values(output)
        return output

    def outputs(self, module: nn.Module, batch: ConversationBatch) -> dict[str, Tensor]:
        """Return the output of every scenario."""
        return {s: self.call(module, self.arguments(batch, s)) for s in self.scenarios}

    def rows(self, scenario: str, *names: str) -> list[int]:
        """Return how many rows of an output belong to each dialogue."""
        dialogues = examples.pool()
        if self.kind != "edge_weight":
            return [len(dialogues[name]) * (2 if scenario == "across" else 1) for name in names]
        spec = {"across": examples.ACROSS, "past": examples.PAST}.get(scenario, examples.WINDOW)
        return [
            sum(
                len(source)
                for (a, r, b), (source, _) in examples.GRAPH.edges(dialogues[name]).items()
                if a in spec.node_types and b in spec.node_types and r in spec.relations
            )
            for name in names
        ]

    def parameters_by_gradient(self, module: nn.Module, outputs: Mapping[str, Tensor]) -> Iterator[tuple[str, Any]]:
        """Run backward from a random projection of all outputs; yield every parameter's name and gradient."""
        module.zero_grad()
        draw = torch.Generator().manual_seed(7)
        total = sum((y * torch.randn(y.shape, generator=draw).to(y.dtype).to(y.device)).sum() for y in outputs.values())
        if isinstance(total, Tensor) and total.requires_grad:
            total.backward()
        for name, parameter in module.named_parameters():
            yield name, parameter.grad


def symmetric_weights(x: Tensor, edges: Kernel) -> Tensor:
    """Return positive weights, equal both ways, on the edges."""
    unit = torch.nn.functional.normalize(x, dim=-1).unsqueeze(0)
    return edges.mask(edges.dot(unit, unit).squeeze(0).sigmoid())


def cast(batch: ConversationBatch, function: Callable[[Tensor], Tensor]) -> ConversationBatch:
    """Return a batch whose features went through a function."""
    return replace(batch, features={m: function(x) for m, x in batch.features.items()})


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
