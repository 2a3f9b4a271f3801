"""The contract of losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from mer_zoo.batch.output import Output
from mer_zoo.checking import examples
from mer_zoo.checking.capture import watch_for_syncs
from mer_zoo.checking.part import Broken, Finding, NotHere, Part, close, run
from mer_zoo.errors import MerZooError

NAMES = ("text", "audio")
KNOWN = {"modalities": NAMES, "class_counts": (9, 5, 0, 7, 3, 4)}
COUNT = 13


def findings(part: Part) -> Iterator[Finding]:
    """Run the suite; stops at once when the loss cannot be made."""
    first = run("construction", lambda: construction(part))
    yield first
    if not first.fine:
        return
    for name, check in CHECKS.items():
        yield run(name, lambda check=check: check(part))  # type: ignore[misc]
    for promise in part.promises:
        if promise in PROOFS:
            yield run(f"promise {promise}", lambda promise=promise: PROOFS[promise](part))  # type: ignore[misc]
    for settings in part.variants():
        label = ", ".join(f"{key}: {value}" for key, value in settings.items())
        yield run(f"setting {label}", lambda settings=settings: variant(part, settings))  # type: ignore[misc]


def output(seed: int = 0, dtype: torch.dtype = torch.float32) -> Output:
    """Return random logits of a model with one head per modality."""
    draw = torch.Generator().manual_seed(seed)

    def logits() -> Tensor:
        return torch.randn(COUNT, examples.CLASSES, generator=draw).to(dtype).requires_grad_()

    return Output(logits(), {m: logits() for m in NAMES}, {m: logits() for m in NAMES})


def labels(known: int = 10) -> Tensor:
    """Return labels, all but the first `known` of them -1."""
    classes = torch.arange(COUNT).remainder(examples.CLASSES)
    return torch.where(torch.arange(COUNT) < known, classes, -1)


def construction(part: Part) -> None:
    """An `nn.Module`."""
    if not isinstance(part.build(KNOWN), nn.Module):
        raise Broken(f"a loss must be an nn.Module; {part.cls.__name__} is not.")


def scalar(part: Part) -> None:
    """One finite number with a gradient for the logits, in every precision."""
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        loss, given = part.build(KNOWN).to(dtype), output(dtype=dtype)
        value = loss(given, labels())
        if not isinstance(value, Tensor) or value.shape != ():
            raise Broken(f"a loss is one number, not {list(getattr(value, 'shape', [])) or type(value).__name__}.")
        if not value.isfinite():
            raise Broken(f"the loss is {value.item()} in {dtype}.")
        value.backward()
        gradient = given.logits.grad
        if gradient is None or not gradient.abs().sum():
            raise Broken("no gradient reaches the logits.")
        if not gradient.isfinite().all():
            raise Broken(f"the gradient of the logits is not finite in {dtype}.")


def unlabelled(part: Part) -> None:
    """Utterances without a label count for nothing, even if none has one."""
    loss, first, second = part.build(KNOWN), output(0), output(1)
    keep = (labels() >= 0).unsqueeze(1)

    def mixed(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(keep, a, b)

    other = Output(
        mixed(first.logits, second.logits),
        {m: mixed(x, second.modality_logits[m]) for m, x in first.modality_logits.items()},
        {m: mixed(x, second.features[m]) for m, x in first.features.items()},
    )
    if not close(loss(first, labels()), loss(other, labels())):
        raise Broken("the logits of unlabelled utterances (label -1) change the loss.")
    nothing = loss(first, labels(known=0))
    if not nothing.isfinite():
        raise Broken(f"the loss is {nothing.item()} when no utterance is labelled; 0 is wanted.")


def order(part: Part) -> None:
    """The order of the utterances does not matter."""
    loss, given, index = part.build(KNOWN), output(), torch.randperm(COUNT, generator=torch.Generator().manual_seed(1))
    moved = Output(
        given.logits[index],
        {m: x[index] for m, x in given.modality_logits.items()},
        {m: x[index] for m, x in given.features.items()},
    )
    if not close(loss(given, labels()), loss(moved, labels()[index])):
        raise Broken("another order of the utterances changes the loss.")


def one_class(part: Part) -> None:
    """A sure and right model has a smaller loss than a sure and wrong one."""
    loss = part.build(KNOWN)
    right = torch.nn.functional.one_hot(labels(COUNT), examples.CLASSES).float() * 8

    def sure(logits: Tensor) -> Output:
        return Output(logits, dict.fromkeys(NAMES, logits), dict.fromkeys(NAMES, logits))

    if not loss(sure(right), labels(COUNT)) < loss(sure(right.roll(1, 1)), labels(COUNT)):
        raise Broken("a model that is sure and right has no smaller loss than one that is sure and wrong.")


def stacking(part: Part) -> None:
    """Works under `torch.func.vmap`, if no promise excepts it."""
    loss = part.build(KNOWN)
    pair = [output(0), output(1)]

    def one(logits: Tensor, of_modality: dict, features: dict, truth: Tensor) -> Tensor:
        return loss(Output(logits, of_modality, features), truth)

    stacked = (
        torch.stack([o.logits for o in pair]),
        {m: torch.stack([o.modality_logits[m] for o in pair]) for m in NAMES},
        {m: torch.stack([o.features[m] for o in pair]) for m in NAMES},
        torch.stack([labels(), labels(5)]),
    )
    try:
        together = torch.func.vmap(one)(*stacked)
    except Exception as error:
        if "unstackable" in part.promises:
            return
        raise Broken(f"torch.func.vmap fails: {str(error).splitlines()[0]}") from error
    if "unstackable" in part.promises:
        raise Broken("the card says `unstackable`, but torch.func.vmap works. Take it off the card.")
    alone = torch.stack([loss(pair[0], labels()), loss(pair[1], labels(5))])
    if not close(together, alone):
        raise Broken("under torch.func.vmap the loss is another one.")


def variant(part: Part, settings: dict) -> None:
    """Another value of a setting gives a finite loss, or is refused by a message."""
    try:
        value = part.build(KNOWN, **settings)(output(), labels())
    except MerZooError as refusal:
        raise NotHere(f"refused here: {refusal}") from None
    if value.shape != () or not value.isfinite():
        raise Broken(f"the loss is {value}.")


def capturable(part: Part) -> None:
    """Nothing is read back to the host."""
    watch_for_syncs(part.build(KNOWN), (output(), labels()))


CHECKS: dict[str, Callable[[Part], None]] = {
    "scalar": scalar,
    "unlabelled": unlabelled,
    "order": order,
    "right is better than wrong": one_class,
    "stacking": stacking,
}
PROOFS: dict[str, Callable[[Part], None]] = {"capturable": capturable}
