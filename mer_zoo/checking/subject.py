"""A module under test as the suite calls it: made with the facts of a world, run in every way its kind is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from mer_zoo import registry
from mer_zoo.checking.examples import FIRST, OTHER, RAGGED, World, equal
from mer_zoo.checking.part import Part
from mer_zoo.corpus import ConversationBatch
from mer_zoo.errors import MerZooError
from mer_zoo.kernel.base import Kernel
from mer_zoo.kernel.dense import Dense
from mer_zoo.kernel.segment import Segment


class Subject:
    """A part with facts and settings. A *scenario* is one way to run it.

    A layer, for example, runs on one node type without edge weights, and on two with them.
    """

    def __init__(self, part: Part, world: World = FIRST, settings: Mapping[str, Any] | None = None) -> None:
        self.part, self.world, self.settings = part, world, dict(settings or {})
        self.kind = part.kind
        self.widths = dict(world.widths)
        self.sources = {m: m for m in self.widths}
        if self.kind == "fusion":
            try:
                self.build()
            except MerZooError:  # it wants equal widths; a second refusal is a fault
                self.make_equal()

    def make_equal(self) -> None:
        """Give all modalities one width."""
        self.widths = dict.fromkeys(self.world.widths, self.world.width)
        self.sources = {m: equal(m) for m in self.widths}

    def __str__(self) -> str:
        changed = [f"{name}: {value}" for name, value in self.settings.items()]
        return f"with {'; '.join([str(self.world), *changed])}"

    @property
    def known(self) -> dict[str, Any]:
        """The facts."""
        return {
            "width": self.world.width,
            "widths": self.widths,
            "relations": self.world.graph.relations,
            "speakers": self.world.speakers,
            "classes": self.world.classes,
        }

    @property
    def names(self) -> tuple[str, ...]:
        """Dialogues of unequal lengths, or beyond the first world a long one."""
        return RAGGED if self.world is FIRST else ("long", "five")

    @property
    def listed(self) -> type[Kernel] | None:
        """The kernel of parts that want edges as a list; None for all others."""
        return Segment if getattr(self.part.cls, "lists_edges", False) else None

    @property
    def fixed(self) -> type[Kernel]:
        """A kernel whose shapes follow from the batch's."""
        return self.listed or Dense

    def build(self, seed: int = 0, /, **settings: Any) -> nn.Module:
        """Make an instance, in evaluation mode."""
        made = self.part.build(self.known, seed, **{**self.settings, **settings})
        if not isinstance(made, nn.Module):
            raise MerZooError(f"a {self.kind} must be an nn.Module; {self.part.cls.__name__} is not.")
        return made.eval()

    def batch(self, *names: str, **how: Any) -> ConversationBatch:
        """Return named dialogues of its world."""
        return self.world.batch(*names, **how)

    def exact(self, *names: str, **how: Any) -> ConversationBatch:
        """As `batch`, in float64, where equal means equal."""
        return cast(self.batch(*names, **how), Tensor.double)

    @cached_property
    def scenarios(self) -> tuple[str, ...]:
        """Names of the ways to call it; one that the part refuses with a `MerZooError` is left out."""
        if self.kind not in ("layer", "edge_weight"):
            return ("",)
        module, batch = self.build(), self.batch("seven")

        def is_accepted(scenario: str) -> bool:
            try:
                with torch.no_grad():
                    self.call(module, self.arguments(batch, scenario))
            except MerZooError:
                return False
            except Exception:  # a fault of the part, for a check to name
                return True
            return True

        first, *others = ("unweighted", "across", "weighted") if self.kind == "layer" else ("window", "across")
        return (first, *[scenario for scenario in others if is_accepted(scenario)][:1])

    def view(self, scenario: str) -> str:
        """Return which view of the world's graph a scenario runs on."""
        return scenario if scenario in self.world.views else "window"

    def arguments(self, batch: ConversationBatch, scenario: str) -> tuple[Any, ...]:
        """Return what `forward` is given."""
        first, second = self.world.graph.node_types
        x, layout = batch.features[first], batch.layout
        if self.kind in ("encoder", "head"):
            return (x, layout)
        if self.kind == "fusion":
            return ({m: batch.features[source] for m, source in self.sources.items()}, layout)
        edges = batch.views[self.world.views[self.view(scenario)]]
        if scenario == "across":
            x = torch.stack([x, batch.features[second]], 1).flatten(0, 1)
        if self.kind == "edge_weight":
            return (x, edges, layout)
        return (x, edges, symmetric_weights(x, edges) if scenario in ("weighted", "across") else None)

    def call(self, module: nn.Module, arguments: tuple[Any, ...]) -> Tensor:
        """Return the output as rows: `[N, ...]` for states, `[edges]` for edge weights."""
        output = module(*arguments)
        if not isinstance(output, Tensor):
            raise MerZooError(f"forward gives {type(output).__name__}, but must give a Tensor.")
        if self.kind == "edge_weight":
            return arguments[1].edge_values(output)
        return output

    def calls(self, batch: ConversationBatch) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """Yield every scenario with its arguments."""
        for scenario in self.scenarios:
            yield scenario, self.arguments(batch, scenario)

    def outputs(self, module: nn.Module, batch: ConversationBatch) -> dict[str, Tensor]:
        """Return the output of every scenario."""
        return {s: self.call(module, arguments) for s, arguments in self.calls(batch)}

    def rows(self, scenario: str, *names: str) -> list[int]:
        """Return how many rows of an output belong to each dialogue."""
        dialogues = self.world.pool
        if self.kind != "edge_weight":
            return [len(dialogues[name]) * (2 if scenario == "across" else 1) for name in names]
        spec = self.world.views[self.view(scenario)]
        return [
            sum(
                len(source)
                for (a, r, b), (source, _) in self.world.graph.edges(dialogues[name]).items()
                if a in spec.node_types and b in spec.node_types and r in spec.relations
            )
            for name in names
        ]


def off_default(part: Part) -> Subject:
    """Return the part in another world, with as many numeric settings off their defaults as it takes at once."""
    subject = Subject(part, OTHER)
    for name in registry.settings(part.kind, part.cls):
        for value in part.values(name, subject.known)[1]:
            moved = Subject(part, OTHER, {**subject.settings, name: value})
            try:
                moved.build()
            except MerZooError:
                continue
            subject = moved
            break
    return subject


def gradients(module: nn.Module, outputs: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
    """Run backward from a random projection of all outputs; return every parameter's gradient by name."""
    module.zero_grad()
    draw = torch.Generator().manual_seed(7)
    total = sum((y * torch.randn(y.shape, generator=draw).to(y.dtype).to(y.device)).sum() for y in outputs.values())
    if isinstance(total, Tensor) and total.requires_grad:
        total.backward()
    return {n: None if p.grad is None else p.grad.clone() for n, p in module.named_parameters()}


def symmetric_weights(x: Tensor, edges: Kernel) -> Tensor:
    """Return positive weights, equal both ways, on the edges."""
    unit = torch.nn.functional.normalize(x, dim=-1).unsqueeze(0)
    return edges.mask(edges.dot(unit, unit).squeeze(0).sigmoid())


def cast(batch: ConversationBatch, function: Callable[[Tensor], Tensor]) -> ConversationBatch:
    """Return a batch whose features went through a function."""
    return replace(batch, features={m: function(x) for m, x in batch.features.items()})


def those(names: tuple[str, ...]) -> str:
    """Return what dialogues show."""
    shown = {"lonely": "one utterance", "monologue": "one speaker", "crowd": "many speakers", "long": "130 utterances"}
    return f"a dialogue of {shown[names[0]]}" if names[0] in shown else "dialogues"
