"""The contract of balancing strategies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from mer_zoo.checking import examples
from mer_zoo.checking.part import Broken, Finding, NotHere, Part, run
from mer_zoo.corpus import ConversationBatch, Corpus
from mer_zoo.errors import MerZooError
from mer_zoo.model.model import Facts, Model
from mer_zoo.model.plan import PartChoice, Plan, Training
from mer_zoo.model.step import Step
from mer_zoo.parts.balancing.base import Balancing
from mer_zoo.parts.balancing.none import NoBalancing
from mer_zoo.parts.loss.nll import NLL

CLASSES = examples.CLASSES
STAGES: dict[str, dict[str, Any]] = {
    "a head per modality": {
        "project": {"encoder": {"name": "linear", "out_width": 8}},
        "classify": {"head": {"name": "linear", "dropout": 0.0}},
        "vote": {"fusion": {"name": "logit_sum"}},
    },
    "one head": {
        "project": {"encoder": {"name": "linear", "out_width": 8}},
        "join": {"fusion": {"name": "concat"}},
        "classify": {"head": {"name": "linear", "dropout": 0.0}},
    },
}
EPOCHS = (0, 1, 2, 3, 99)


def findings(part: Part) -> Iterator[Finding]:
    """Run the suite; stops at once when the strategy cannot be made."""
    first = run("construction", lambda: construction(part))
    yield first
    if not first.fine:
        return
    for count in (2, 3):
        yield run(f"training with {count} modalities", lambda count=count: training(part, count))  # type: ignore[misc]
    for name, check in CHECKS.items():
        yield run(name, lambda check=check: check(part))  # type: ignore[misc]
    for settings in part.variants():
        label = ", ".join(f"{key}: {value}" for key, value in settings.items())
        yield run(f"setting {label}", lambda settings=settings: variant(part, settings))  # type: ignore[misc]


def modalities(count: int) -> tuple[str, ...]:
    """Return the names of so many modalities."""
    return tuple(examples.UNEQUAL_WIDTHS)[:count]


def _build(part: Part, count: int = 3, **settings: Any) -> Balancing:
    return part.build({"modalities": modalities(count), "classes": CLASSES}, **settings)


def construction(part: Part) -> None:
    """A `Balancing` that refuses a single modality."""
    if not isinstance(_build(part), Balancing):
        raise Broken("a balancing strategy must be a subclass of mer_zoo.parts.balancing.base.Balancing.")
    if part.cls.fewest > 1:  # type: ignore[attr-defined]
        try:
            _build(part, 1)
        except MerZooError:
            return
        raise Broken("one modality alone is accepted, though there is nothing to balance. Raise a MerZooError.")


class Run:
    """A tiny model trained with a strategy for a few epochs."""

    def __init__(self, part: Part, count: int, stages: str, seed: int = 0, **settings: Any) -> None:
        names = modalities(count)
        widths = {m: examples.UNEQUAL_WIDTHS[m] for m in names}
        self.stages = stages
        self.plan = Plan(
            modalities=widths,
            graph=None,
            model=STAGES[stages],
            balancing=PartChoice(name=part.owner),
            loss=PartChoice(name="nll"),
            training=Training(),
        )
        self.facts = Facts(widths, examples.SPEAKERS, CLASSES, (1,) * CLASSES)
        torch.manual_seed(seed)
        self.model = Model(self.plan, self.facts)
        self.balancing = _build(part, count, **settings)
        self.corpus = Corpus(list(examples.pool().values()))
        self.losses: list[Tensor] = []
        self.gradients: list[Tensor] = []
        step = Step(self.model, self.balancing, NLL((1,) * CLASSES))
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)
        steps = [(0, 3, 5, 7, 9), (1, 2, 4, 6, 8)]
        torch.manual_seed(seed)
        for epoch in EPOCHS:
            self.model.train()
            self.balancing.on_epoch_start(epoch, lambda wanted: self._collect(steps[:wanted]))
            for chosen in steps:
                batch = self.corpus.batch(chosen)
                before = {path: x.clone() for path, x in examples.tensors(batch)}
                optimizer.zero_grad()
                total, self.output, labels = step(batch)
                step.backward(total, self.output, labels)
                self.losses.append(total.detach())
                self.gradients += [p.grad.clone() for p in self.model.parameters() if p.grad is not None]
                for path, x in examples.tensors(batch):
                    if path in before and not torch.equal(before[path], x):
                        raise Broken(f"a hook changes the batch: {path}. Work on a copy.")
                optimizer.step()

    def _collect(self, steps: list) -> list[tuple[dict[str, Tensor], Tensor]]:
        with torch.no_grad():
            batches: list[ConversationBatch] = [self.corpus.batch(chosen) for chosen in steps]
            return [(dict(self.model.encode(b).states), b.labels) for b in batches]


def trained(part: Part, count: int = 3, seed: int = 0, **settings: Any) -> Run:
    """Train with the first arrangement of stages that the strategy accepts."""
    refusal: MerZooError | None = None
    for stages in STAGES:
        try:
            return Run(part, count, stages, seed, **settings)
        except MerZooError as error:
            refusal = error
    raise Broken(f"refuses every model, with {count} modalities: {refusal}")


def training(part: Part, count: int) -> None:
    """Every arrangement trains or is refused by a message; losses and gradients are finite; rates are told."""
    trained(part, count)
    for stages in STAGES:
        try:
            done = Run(part, count, stages)
        except MerZooError:
            continue
        if not torch.stack(done.losses).isfinite().all():
            raise Broken(f"the loss is not finite, with {stages}.")
        if not all(g.isfinite().all() for g in done.gradients):
            raise Broken(f"a gradient is not finite, with {stages}.")
        if any(p.grad is None for p in done.model.parameters()):
            raise Broken(f"a parameter of the model gets no gradient any more, with {stages}.")
        rates = done.balancing.rates(done.output)
        if part.cls.fewest > 1 and not set(modalities(count)) <= rates.keys():  # type: ignore[attr-defined]
            raise Broken(f"`rates` tells of {', '.join(rates) or 'nothing'}; want a number for every modality.")
        for name, rate in rates.items():
            if not isinstance(rate, Tensor) or rate.shape != () or not rate.isfinite():
                raise Broken(f"`rates`: '{name}' must be a finite scalar tensor, not {rate!r}.")


def modulation(part: Part) -> None:
    """It changes something: losses or gradients differ from those without balancing."""
    if part.cls.fewest < 2:  # type: ignore[attr-defined]
        raise NotHere("does nothing by design")
    ours = trained(part)
    plain = Run(Part("balancing", NoBalancing, "none"), 3, ours.stages)
    pairs = zip([*ours.losses, *ours.gradients], [*plain.losses, *plain.gradients], strict=False)
    if all(torch.equal(a, b) for a, b in pairs):
        raise Broken("modulates nothing: losses and gradients are those without balancing. Raise instead.")


def determinism(part: Part) -> None:
    """A seed decides everything."""
    first, second = trained(part, seed=3), trained(part, seed=3)
    if not torch.equal(torch.stack(first.losses), torch.stack(second.losses)):
        raise Broken("two trainings with the same seed differ. Draw from torch's generator.")


def evaluation(part: Part) -> None:
    """In evaluation the model is as if the strategy had never been: nothing stays on it but its weights."""
    done = trained(part)
    fresh = Model(done.plan, done.facts)
    fresh.load_state_dict(done.model.state_dict())
    batch = done.corpus.batch([0, 2, 5])
    with torch.no_grad():
        ours, wanted = done.model.eval()(batch).logits, fresh.eval()(batch).logits
    if not torch.equal(ours, wanted):
        raise Broken("after training, the model evaluates differently from a new one with the same weights.")


def variant(part: Part, settings: dict) -> None:
    """Another value of a setting trains, or is refused by a message."""
    try:
        done = trained(part, **settings)
    except Broken as refusal:
        raise NotHere(f"refused here: {refusal}") from None
    if not torch.stack(done.losses).isfinite().all():
        raise Broken("the loss is not finite.")


CHECKS: dict[str, Callable[[Part], None]] = {
    "modulation": modulation,
    "determinism": determinism,
    "evaluation": evaluation,
}
