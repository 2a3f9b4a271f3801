"""The contract of losses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mer_zoo.batch.index import Layout, Shape
from mer_zoo.batch.output import Output, States
from mer_zoo.checking.capture import find_sync
from mer_zoo.checking.part import Checks, Part, Verdict, close, first_line
from mer_zoo.checking.small_data import conversations
from mer_zoo.corpus import Corpus
from mer_zoo.errors import MerZooError
from mer_zoo.parts.loss.base import beside, seen_by

KNOWN: dict[str, Any] = {"modalities": ("text", "audio"), "class_counts": (9, 5, 0, 7, 3, 4), "classes": 6}
OTHER: dict[str, Any] = {"modalities": ("text", "audio", "visual"), "class_counts": (4, 1, 8, 2, 6, 3, 5), "classes": 7}
COUNT = 16
LENGTHS = (10, 4, 2)
"""Dialogues that the utterances are of, for losses that see them."""


def checks(part: Part) -> Checks:
    """Return the suite: it runs with two and three modalities, six and seven classes."""

    def both(check: Callable[[Part, dict[str, Any]], Verdict]) -> Verdict:
        return check(part, KNOWN) or check(part, OTHER)

    found: Checks = {"construction": lambda: both(construction)}
    found |= {name: partial(both, check) for name, check in CHECKS.items()}
    found |= {f"promise {p}": partial(both, PROMISES[p]) for p in part.promises if p in PROMISES}
    return {**found, **part.setting_checks(KNOWN, partial(effect, part))}


def output(known: dict[str, Any], seed: int = 0, dtype: torch.dtype = torch.float32) -> Output:
    """Return random logits of a model with one head per modality."""
    draw = torch.Generator().manual_seed(seed)

    def logits() -> Tensor:
        return torch.randn(COUNT, known["classes"], generator=draw).to(dtype).requires_grad_()

    of_modality, features = ({m: logits() for m in known["modalities"]} for _ in range(2))
    return Output(logits(), of_modality, features, judged=logits())


def changed(given: Output, change: Callable[..., Tensor], *others: Output) -> Output:
    """Return an output whose arrays are what `change` makes of the given one's and of those of others like it."""
    every = (given, *others)
    of_modality = {m: change(*(o.modality_logits[m] for o in every)) for m in given.modality_logits}
    features = {m: change(*(o.features[m] for o in every)) for m in given.features}
    judged = change(*(o.judged for o in every))
    return Output(change(*(o.logits for o in every)), of_modality, features, judged=judged)


def labels(known: dict[str, Any], labelled: int = COUNT - 3) -> Tensor:
    """Return labels of all classes, all but the first so many of them -1."""
    place = torch.arange(COUNT)
    return torch.where(place < labelled, place.remainder(known["classes"]), -1)


class Seeing(nn.Module):
    """A loss that is given what it asks for beside output and labels: a layout, and any label column.

    Args:
        loss: the part.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss, self.seen = loss, seen_by(loss)

    def forward(self, output: Output, labels: Tensor, layout: Layout | None = None) -> Tensor:
        """Compute the loss; without a layout, that of three dialogues."""
        given = beside(self.seen, layout or layout_of(), {})
        if "targets" in given:
            given["targets"] = _Any(torch.where(labels >= 0, labels % 2, -1))
        return self.loss(output, labels, **given)


class _Any(dict[str, Tensor]):
    """A label column of every name."""

    def __init__(self, column: Tensor) -> None:
        super().__init__()
        self.column = column

    def __missing__(self, name: str) -> Tensor:
        return self.column


def layout_of(
    lengths: Sequence[int] = LENGTHS, least: Shape | None = None, order: Sequence[int] | None = None
) -> Layout:
    """Return the layout of dialogues of these lengths, in an order, padded to at least a shape."""
    corpus = Corpus(conversations(lengths))
    return corpus.batch(corpus.index(order or range(len(lengths)), least)).layout


def construction(part: Part, known: dict[str, Any]) -> Verdict:
    """An `nn.Module`."""
    made = part.build(known)
    if isinstance(made, nn.Module):
        seen_by(made)
        return None
    return f"a loss must be an nn.Module; {part.cls.__name__} is not."


def scalar(part: Part, known: dict[str, Any]) -> Verdict:
    """One finite number with a finite gradient for the logits, in every precision."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        loss, given = Seeing(part.build(known)).to(dtype), output(known, dtype=dtype)
        value = loss(given, labels(known))
        if not isinstance(value, Tensor) or value.shape != ():
            return f"a loss is one number, not {list(getattr(value, 'shape', [])) or type(value).__name__}."
        if not value.isfinite():
            return f"the loss is {value.item()} in {dtype}."
        if not value.requires_grad:
            return "no gradient reaches the logits."
        value.backward()
        gradient = given.logits.grad
        if gradient is None or not gradient.abs().sum():
            return "no gradient reaches the logits."
        if not gradient.isfinite().all():
            return f"the gradient of the logits is not finite in {dtype}."
    return None


def classes(part: Part, known: dict[str, Any]) -> Verdict:
    """Every labelled utterance of every class counts, in the fused logits and in those of all modalities or of none."""
    loss, given, target = Seeing(part.build(known)).double(), output(known, dtype=torch.float64), labels(known)
    loss(given, target).backward()
    used = {m: x.grad for m, x in given.modality_logits.items() if x.grad is not None and x.grad.abs().sum()}
    if used and (missing := [m for m in known["modalities"] if m not in used]):
        return f"it counts the logits of {', '.join(used)}, but not those of {', '.join(missing)}."
    for what, gradient in {"the logits": given.logits.grad, **used}.items():
        assert gradient is not None
        for number in range(known["classes"]):
            rows = target == number
            if (gradient[rows].abs().sum(-1) == 0).any():
                return f"utterances of class {number} do not count: no gradient reaches {what} of theirs."
    return None


def unlabelled(part: Part, known: dict[str, Any]) -> Verdict:
    """Utterances without a label count for nothing, even if none has one."""
    loss, first, second = Seeing(part.build(known)), output(known, 0), output(known, 1)
    keep = (labels(known) >= 0).unsqueeze(1)

    def mixed(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(keep, a, b)

    other = changed(first, mixed, second)
    if not close(loss(first, labels(known)), loss(other, labels(known))):
        return "the logits of unlabelled utterances (label -1) change the loss."
    nothing = loss(first, labels(known, labelled=0))
    return None if nothing.isfinite() else f"the loss is {nothing.item()} when no utterance is labelled; 0 is wanted."


def order(part: Part, known: dict[str, Any]) -> Verdict:
    """The order of the utterances does not matter; for a loss that sees the dialogues, that of the dialogues."""
    loss, given, target = Seeing(part.build(known)), output(known), labels(known)
    index = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))
    layout = layout_of()
    if loss.seen:
        dialogues, layout = torch.arange(COUNT).split(LENGTHS), layout_of(order=(2, 0, 1))
        index = torch.cat([dialogues[i] for i in (2, 0, 1)])
    if not close(loss(given, target), loss(changed(given, lambda x: x[index]), target[index], layout)):
        return f"another order of the {'dialogues' if loss.seen else 'utterances'} changes the loss."
    return None


def padding(part: Part, known: dict[str, Any]) -> Verdict:
    """Rows that belong to no dialogue, and room that no dialogue fills, change nothing."""
    loss, given, target = Seeing(part.build(known)), output(known), labels(known)
    more = torch.arange(COUNT + 5) % COUNT
    padded = layout_of(LENGTHS, Shape(len(LENGTHS) + 2, COUNT + 5, max(LENGTHS) + 3))
    unlabelled = torch.cat([target, torch.full((5,), -1)])
    if not close(loss(given, target), loss(changed(given, lambda x: x[more]), unlabelled, padded)):
        return "rows that fill up a batch (label -1, in no dialogue) change the loss."
    return None


def isolation(part: Part, known: dict[str, Any]) -> Verdict:
    """Of a loss that sees the dialogues: what it tells one does not depend on what the model says of another."""
    loss, target = Seeing(part.build(known)), torch.arange(COUNT) % 2
    if not loss.seen:
        return None
    first, second = LENGTHS[0], slice(LENGTHS[0], None)
    found = []
    for seed in (1, 2):
        given, others = output(known), output(known, seed)
        pairs = zip(_tensors(given), _tensors(others), strict=True)
        for ours, theirs in pairs:
            ours.data[second] = theirs.data[second]
        loss(given, target).backward()
        found.append([x.grad[:first] for x in _tensors(given) if x.grad is not None])
    if all(close(a, b) for a, b in zip(*found, strict=True)):
        return None
    return "the gradient of a dialogue depends on what the model says of another. Compare within a dialogue (layout)."


def _tensors(given: Output) -> list[Tensor]:
    beside_logits = [] if given.judged is None else [given.judged]
    return [given.logits, *given.modality_logits.values(), *given.features.values(), *beside_logits]


def verdicts(part: Part, known: dict[str, Any]) -> Verdict:
    """Of every class, a sure and right model has a smaller loss than a sure and wrong one."""
    loss, names = Seeing(part.build(known)), known["modalities"]

    def sure(target: Tensor) -> Output:
        logits = torch.nn.functional.one_hot(target, known["classes"]).float() * 8
        return Output(logits, dict.fromkeys(names, logits), dict.fromkeys(names, logits), judged=logits)

    for number in range(known["classes"]):
        target = torch.full((COUNT,), number)
        if not loss(sure(target), target) < loss(sure((target + 1) % known["classes"]), target):
            return f"of class {number}, a model that is sure and right has no smaller loss than one that is wrong."
    return None


def stacking(part: Part, known: dict[str, Any]) -> Verdict:
    """Works under `torch.func.vmap`, if no promise excepts it."""
    loss = Seeing(part.build(known))
    pair, targets = [output(known, 0), output(known, 1)], [labels(known), labels(known, 5)]
    layouts = [layout_of(lengths, Shape(longest=max(LENGTHS))) for lengths in (LENGTHS, (8, 5, 3))]

    def one(
        logits: Tensor, alone: States, features: States, judged: Tensor | None, layout: dict[str, Any], target: Tensor
    ) -> Tensor:
        return loss(Output(logits, alone, features, judged=judged), target, replace(layouts[0], going=None, **layout))

    both = changed(pair[0], lambda *x: torch.stack(x), pair[1])
    names = [field.name for field in fields(Layout) if isinstance(getattr(layouts[0], field.name), Tensor)]
    laid = {name: torch.stack([getattr(layout, name) for layout in layouts]) for name in names}
    stacked = (both.logits, both.modality_logits, both.features, both.judged, laid)
    try:
        together = torch.func.vmap(one)(*stacked, torch.stack(targets))
    except Exception as error:
        return None if "unstackable" in part.promises else f"torch.func.vmap fails: {first_line(error)}"
    if "unstackable" in part.promises:
        return "the card says `unstackable`, but torch.func.vmap works. Take it off the card."
    alone = torch.stack([loss(*each) for each in zip(pair, targets, layouts, strict=True)])
    return None if close(together, alone) else "under torch.func.vmap the loss is another one."


def effect(part: Part, changed: dict[str, Any]) -> Verdict | bool:
    """Another value of a setting gives a finite loss; return its fault, or whether loss or gradients differ.

    What changes nothing may be about heads beside the emotion's.
    """
    verdict = _differs(part, changed, {})
    if verdict is False:
        with contextlib.suppress(MerZooError):  # it has no use for such a head
            verdict = _differs(part, changed, {"beside": (output(KNOWN, 1).logits[:, :2], labels(KNOWN).clamp(max=1))})
    return verdict


def _differs(part: Part, changed: dict[str, Any], tasks: dict[str, tuple[Tensor, Tensor]]) -> Verdict | bool:
    found = []
    for settings in (changed, {}):
        given = replace(output(KNOWN), tasks=tasks)
        value = Seeing(part.build(KNOWN, **settings))(given, labels(KNOWN))
        value.backward()
        inputs = (given.logits, given.judged, *given.modality_logits.values(), *given.features.values())
        slopes = [x.grad for x in inputs if x is not None]
        found.append(torch.cat([value.detach().view(1), *(x.flatten() for x in slopes if x is not None)]))
        if not found[-1].isfinite().all():
            return "loss or gradient is not finite."
    return found[0].shape != found[1].shape or not torch.equal(*found)


def capturable(part: Part, known: dict[str, Any]) -> Verdict:
    """Nothing is read back to the host."""
    return find_sync(Seeing(part.build(known)), (output(known), labels(known), layout_of()))


CHECKS: dict[str, Callable[[Part, dict[str, Any]], Verdict]] = {
    "scalar": scalar,
    "classes": classes,
    "unlabelled": unlabelled,
    "order": order,
    "padding": padding,
    "isolation": isolation,
    "right is better than wrong": verdicts,
    "stacking": stacking,
}
PROMISES: dict[str, Callable[[Part, dict[str, Any]], Verdict]] = {"capturable": capturable}
