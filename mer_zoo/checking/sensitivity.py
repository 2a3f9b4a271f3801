"""Whether a module uses what it is given: every input, the edges and their relations, every setting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mer_zoo import registry
from mer_zoo.checking.examples import OTHER
from mer_zoo.checking.part import Part, Skipped, Verdict, close
from mer_zoo.checking.subject import Subject, cast
from mer_zoo.corpus import ConversationBatch


def inputs(subject: Subject) -> Verdict:
    """Everything that goes in matters to the output and gets a gradient; every row of the output depends on it."""
    module, data = shaken(subject.build()), subject.exact(*subject.names)
    other = cast(data, lambda x: torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1)))
    for scenario, arguments in subject.calls(data):
        leaves = _leaves(subject, arguments)
        result = subject.call(module, _replaced(arguments, leaves))
        direction = torch.randn(result.shape, dtype=result.dtype, generator=torch.Generator().manual_seed(2))
        slopes = (
            torch.autograd.grad((result * direction).sum(), list(leaves.values()), allow_unused=True)
            if result.requires_grad
            else [None] * len(leaves)
        )
        changed = _leaves(subject, subject.arguments(other, scenario))
        for name, slope in zip(leaves, slopes, strict=True):
            with torch.no_grad():
                moved = subject.call(module, _replaced(arguments, {**leaves, name: changed[name]}))
            if name == "weights" and torch.equal(moved, result):
                continue  # a layer may make its own
            if torch.equal(moved, result):
                return f"the output does not depend on {name}. Use it."
            if fault := _blocked(subject, name, slope):
                return fault
            if name == "x" and subject.kind != "edge_weight":
                idle = (moved == result).all(-1)
                if idle.any():
                    return f"row {int(idle.nonzero()[0])} of {len(idle)} of the output does not depend on the input."
                if subject.kind == "head" and (still := (moved == result).all(0)).any():
                    return f"the logits of class {int(still.nonzero()[0])} do not depend on the input."
    return _speakers(subject, module, data)


def _leaves(subject: Subject, arguments: tuple[Any, ...]) -> dict[str, Tensor]:
    """Return the inputs by name, as leaves of the gradient."""
    first, *rest = arguments
    found = dict(first) if isinstance(first, dict) else {"x": first}
    if subject.kind == "layer" and rest[-1] is not None:
        found["weights"] = rest[-1]
    return {name: x.detach().clone().requires_grad_() for name, x in found.items()}


def _replaced(arguments: tuple[Any, ...], leaves: dict[str, Tensor]) -> tuple[Any, ...]:
    first, *rest = arguments
    if isinstance(first, dict):
        return ({name: leaves[name] for name in first}, *rest)
    return (leaves["x"], *rest[:-1], leaves.get("weights", rest[-1]))


def _blocked(subject: Subject, name: str, slope: Tensor | None) -> str | None:
    """Return where no gradient arrives."""
    if slope is None or not slope.abs().sum():
        return f"no gradient reaches {name}, though the output depends on it. Do not detach it."
    if name == "weights":
        return None
    flat = slope.flatten(1).abs()
    if (dead := flat.sum(0) == 0).any():
        return f"no gradient reaches feature {int(dead.nonzero()[0])} of {flat.shape[1]} of {name}."
    if subject.kind != "edge_weight" and (dead := flat.sum(1) == 0).any():
        return f"no gradient reaches utterance {int(dead.nonzero()[0])} of {flat.shape[0]} of {name}."
    return None


def _speakers(subject: Subject, module: nn.Module, data: ConversationBatch) -> str | None:
    if subject.kind != "encoder" or "speakers" not in registry.facts(subject.kind, subject.part.cls):
        return None
    with torch.no_grad():
        wanted = subject.outputs(module, data)[""]
        x, layout = subject.arguments(data, "")
        speakers = torch.zeros_like(layout.speaker)
        alone = module(x, type(layout)(speakers, layout.position, layout.lengths, layout.rows, layout.cells))
    return "it asks for `speakers`, but who speaks changes nothing." if torch.equal(wanted, alone) else None


def edges(subject: Subject) -> Verdict:
    """Messages pass along edges and nowhere else; whoever asks for relations tells them apart."""
    if subject.kind not in ("layer", "edge_weight"):
        return Skipped(f"a {subject.kind} has no edges")
    module, data = shaken(subject.build()), subject.exact("eleven", "seven")
    with torch.no_grad():
        if subject.kind == "layer" and (fault := _messages(subject, module, data)):
            return fault
        if "relations" in registry.facts(subject.kind, subject.part.cls):
            mixed = subject.exact("eleven", "seven", mixed=True)
            wanted = subject.outputs(module, data)
            if all(torch.equal(y, wanted[s]) for s, y in subject.outputs(module, mixed).items()):
                return "it asks for `relations`, but which relation an edge has changes nothing."
    return None


def _messages(subject: Subject, module: nn.Module, data: ConversationBatch) -> str | None:
    x, *rest = subject.arguments(data, "past")
    outputs = {view: module(x, data.views[subject.world.views[view]], rest[-1]) for view in ("past", "itself")}
    if torch.equal(outputs["past"], outputs["itself"]):
        return "the edges change nothing: with neighbours and without, the output is the same."
    speaker = 3  # whose features change
    other = x.clone()
    other[speaker] = other[speaker].flip(-1) + 1
    for view, before in outputs.items():
        after = module(other, data.views[subject.world.views[view]], rest[-1])
        heard = [i for i in range(len(x)) if i != speaker and not close(after[i], before[i], 1e-9)]
        if view == "past" and not heard:
            return "no message passes: what an utterance says changes nothing for its neighbours."
        if view == "itself" and heard:
            return f"a message passes where no edge is: utterance {speaker} changes what {heard[0]} gets."
    return None


class Default:
    """A part as its settings are by default, to compare with one that is off it in a single setting.

    Args:
        part: under test.
        sound: returns what is wrong with one that runs off its default.
    """

    def __init__(self, part: Part, sound: Callable[[Subject], Verdict]) -> None:
        self.part, self.sound = part, sound
        self._before: dict[tuple[str, ...], list[Tensor]] = {}

    @property
    def known(self) -> dict[str, Any]:
        """Facts that values of settings may depend on."""
        return {"widths": OTHER.widths, "classes": OTHER.classes}

    def effect(self, changed: dict[str, Any]) -> Verdict | bool:
        """Run with another setting; return its fault, or whether anything is another than by default."""
        moved = Subject(self.part, OTHER, changed)
        return self.sound(moved) or self._differs(moved)

    def _differs(self, moved: Subject) -> bool:
        default = Subject(self.part, OTHER)
        for names in (("five", "three"), ("long",)):  # some settings only matter to long dialogues
            if names not in self._before:
                self._before[names] = _behaviour(default, names)
            ours, before = _behaviour(moved, names), self._before[names]
            if len(ours) != len(before) or not all(map(_same, ours, before)):
                return True
        drawn, before_ = moved.build().state_dict(), default.build().state_dict()
        if [(n, x.shape) for n, x in drawn.items()] != [(n, x.shape) for n, x in before_.items()]:
            return any(isinstance(value, (bool, str)) for value in moved.settings.values())  # a matter of form
        return any(not torch.equal(x, before_[n]) for n, x in drawn.items())


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, 0, 0, equal_nan=True)


@torch.no_grad()
def _behaviour(subject: Subject, names: tuple[str, ...]) -> list[Tensor]:
    """Return outputs in evaluation and in training, by weights that do not depend on how they are drawn."""
    module = subject.build()
    found: list[Tensor] = []
    for name, parameter in module.named_parameters():
        parameter.copy_(_pattern(parameter, len(name)))
    for mode in (False, True):
        torch.manual_seed(0)
        found += subject.outputs(module.train(mode), subject.batch(*names)).values()
    return found


def _pattern(x: Tensor, phase: int) -> Tensor:
    """Return values by place, so that a larger tensor begins like a smaller one."""
    angle = torch.full(x.shape, 1.0 + phase)
    for dim, size in enumerate(x.shape):
        shape = [1] * x.dim()
        shape[dim] = size
        angle = angle + (12.9898 + 65.243 * dim) * torch.arange(size).view(shape)
    return 0.1 * angle.sin()


def shaken(module: nn.Module) -> nn.Module:
    """Return a module in float64 whose weights are off where they start, so that none is zero."""
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return module.double()
