"""The contract of losses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mer_zoo.batch.output import Output, States
from mer_zoo.checking.capture import find_sync
from mer_zoo.checking.part import Checks, Part, Verdict, close, first_line

KNOWN: dict[str, Any] = {"modalities": ("text", "audio"), "class_counts": (9, 5, 0, 7, 3, 4), "classes": 6}
OTHER: dict[str, Any] = {"modalities": ("text", "audio", "visual"), "class_counts": (4, 1, 8, 2, 6, 3, 5), "classes": 7}
COUNT = 16


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


def construction(part: Part, known: dict[str, Any]) -> Verdict:
    """An `nn.Module`."""
    made = part.build(known)
    return None if isinstance(made, nn.Module) else f"a loss must be an nn.Module; {part.cls.__name__} is not."


def scalar(part: Part, known: dict[str, Any]) -> Verdict:
    """One finite number with a finite gradient for the logits, in every precision."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        loss, given = part.build(known).to(dtype), output(known, dtype=dtype)
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
    loss, given, target = part.build(known).double(), output(known, dtype=torch.float64), labels(known)
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
    loss, first, second = part.build(known), output(known, 0), output(known, 1)
    keep = (labels(known) >= 0).unsqueeze(1)

    def mixed(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(keep, a, b)

    other = changed(first, mixed, second)
    if not close(loss(first, labels(known)), loss(other, labels(known))):
        return "the logits of unlabelled utterances (label -1) change the loss."
    nothing = loss(first, labels(known, labelled=0))
    return None if nothing.isfinite() else f"the loss is {nothing.item()} when no utterance is labelled; 0 is wanted."


def order(part: Part, known: dict[str, Any]) -> Verdict:
    """The order of the utterances does not matter."""
    index = torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))
    loss, given, target = part.build(known), output(known), labels(known)
    moved = changed(given, lambda x: x[index])
    if not close(loss(given, target), loss(moved, target[index])):
        return "another order of the utterances changes the loss."
    return None


def verdicts(part: Part, known: dict[str, Any]) -> Verdict:
    """Of every class, a sure and right model has a smaller loss than a sure and wrong one."""
    loss, names = part.build(known), known["modalities"]

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
    loss = part.build(known)
    pair, targets = [output(known, 0), output(known, 1)], [labels(known), labels(known, 5)]

    def one(logits: Tensor, alone: States, features: States, judged: Tensor | None, target: Tensor) -> Tensor:
        return loss(Output(logits, alone, features, judged=judged), target)

    both = changed(pair[0], lambda *x: torch.stack(x), pair[1])
    stacked = (both.logits, both.modality_logits, both.features, both.judged)
    try:
        together = torch.func.vmap(one)(*stacked, torch.stack(targets))
    except Exception as error:
        return None if "unstackable" in part.promises else f"torch.func.vmap fails: {first_line(error)}"
    if "unstackable" in part.promises:
        return "the card says `unstackable`, but torch.func.vmap works. Take it off the card."
    alone = torch.stack([loss(o, target) for o, target in zip(pair, targets, strict=True)])
    return None if close(together, alone) else "under torch.func.vmap the loss is another one."


def effect(part: Part, changed: dict[str, Any]) -> Verdict | bool:
    """Another value of a setting gives a finite loss; return its fault, or whether loss or gradients differ."""
    found = []
    for settings in (changed, {}):
        given = output(KNOWN)
        value = part.build(KNOWN, **settings)(given, labels(KNOWN))
        value.backward()
        inputs = (given.logits, given.judged, *given.modality_logits.values(), *given.features.values())
        slopes = [x.grad for x in inputs if x is not None]
        found.append(torch.cat([value.detach().view(1), *(x.flatten() for x in slopes if x is not None)]))
        if not found[-1].isfinite().all():
            return "loss or gradient is not finite."
    return found[0].shape != found[1].shape or not torch.equal(*found)


def capturable(part: Part, known: dict[str, Any]) -> Verdict:
    """Nothing is read back to the host."""
    return find_sync(part.build(known), (output(known), labels(known)))


CHECKS: dict[str, Callable[[Part, dict[str, Any]], Verdict]] = {
    "scalar": scalar,
    "classes": classes,
    "unlabelled": unlabelled,
    "order": order,
    "right is better than wrong": verdicts,
    "stacking": stacking,
}
PROMISES: dict[str, Callable[[Part, dict[str, Any]], Verdict]] = {"capturable": capturable}
