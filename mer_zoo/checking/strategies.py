"""The contract of balancing strategies."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from mer_zoo.batch.index import BatchIndex
from mer_zoo.checking.batching import stacked
from mer_zoo.checking.capture import find_read
from mer_zoo.checking.examples import FIRST, OTHER, World, tensors
from mer_zoo.checking.part import Checks, Part, Skipped, Verdict, close, difference, first_line, where
from mer_zoo.corpus import ConversationBatch, Corpus
from mer_zoo.errors import MerZooError
from mer_zoo.model.model import Facts, Model
from mer_zoo.model.plan import PartChoice, Plan, Training
from mer_zoo.model.step import Step
from mer_zoo.parts.balancing.base import Balancing
from mer_zoo.parts.balancing.none import NoBalancing
from mer_zoo.parts.loss.nll import NLL

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
STEPS = (
    ("seven", "thirteen", "absent", "lonely", "five"),
    ("three", "eleven", "eleven begins", "monologue", "eleven reordered"),
)


def checks(part: Part) -> Checks:
    """Return the suite."""
    found: Checks = {"construction": lambda: construction(part)}
    for count in (2, 3):
        found[f"training with {count} modalities"] = partial(training, part, count, FIRST)
    found["other facts"] = partial(training, part, 3, OTHER)
    found |= {name: partial(check, part) for name, check in CHECKS.items()}
    default = cache(lambda: trained(part))
    known = {"modalities": modalities(3), "classes": FIRST.classes}
    return {**found, **part.setting_checks(known, lambda changed: effect(part, changed, default()))}


def modalities(count: int, world: World = FIRST) -> tuple[str, ...]:
    """Return the names of so many modalities."""
    return tuple(world.widths)[:count]


def _build(part: Part, count: int = 3, world: World = FIRST, /, **settings: Any) -> Balancing:
    return part.build({"modalities": modalities(count, world), "classes": world.classes}, **settings)


def _is_idle(part: Part) -> bool:
    return part.cls.fewest < 2  # type: ignore[attr-defined]


def construction(part: Part) -> Verdict:
    """A `Balancing` that refuses a single modality."""
    if not isinstance(_build(part), Balancing):
        return "a balancing strategy must be a subclass of mer_zoo.parts.balancing.base.Balancing."
    if _is_idle(part):
        return None
    try:
        _build(part, 1)
    except MerZooError:
        return None
    return "one modality alone is accepted, though there is nothing to balance. Raise a MerZooError."


class Run:
    """A tiny model trained with a strategy for a few epochs.

    Attributes:
        losses, gradients: of every step.
        rates: what the strategy told, at the end of every epoch.
        fault: what a hook did that it may not, or "".
    """

    def __init__(
        self, part: Part, count: int, stages: str, world: World = FIRST, seed: int = 0, /, **settings: Any
    ) -> None:
        widths = {m: world.widths[m] for m in modalities(count, world)}
        self.plan = Plan(
            modalities=widths,
            graph=None,
            model=STAGES[stages],
            balancing=PartChoice(name=part.owner),
            loss=PartChoice(name="nll"),
            training=Training(),
        )
        self.facts = Facts(widths, world.speakers, world.classes, (1,) * world.classes)
        torch.manual_seed(seed)
        self.stages = stages
        self.model = Model(self.plan, self.facts)
        self.balancing = _build(part, count, world, **settings)
        self.corpus = Corpus([world.pool[name] for names in STEPS for name in names])
        self.step = Step(self.model, self.balancing, NLL((1,) * world.classes))
        self.losses: list[Tensor] = []
        self.gradients: list[Tensor] = []
        self.rates: list[Tensor] = []
        self.fault = ""
        self.steps = [list(range(5)), list(range(5, 10))]
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05)
        torch.manual_seed(seed)
        for epoch in EPOCHS:
            self.model.train()
            self.balancing.on_epoch_start(epoch, lambda wanted: self._collect(self.steps[:wanted]))
            for chosen in self.steps:
                batch = self.corpus.batch(chosen)
                before = {path: x.clone() for path, x in tensors(batch)}
                optimizer.zero_grad()
                total, self.output, seen = self.step(batch)
                self.step.backward(total, self.output, seen)
                self.losses.append(total.detach())
                self.gradients += [p.grad.clone() for p in self.model.parameters() if p.grad is not None]
                if changed := [p for p, x in tensors(batch) if p in before and not torch.equal(before[p], x)]:
                    self.fault = f"a hook changes the batch: {changed[0]}. Work on a copy."
                optimizer.step()
            self.rates += [
                torch.as_tensor(rate).detach().clone() for rate in self.balancing.rates(self.output).values()
            ]

    def _collect(self, steps: list[list[int]]) -> list[tuple[dict[str, Tensor], Tensor]]:
        with torch.no_grad():
            batches: list[ConversationBatch] = [self.corpus.batch(chosen) for chosen in steps]
            return [(dict(self.model.encode(b).states), b.labels) for b in batches]

    @property
    def trace(self) -> list[Tensor]:
        """Everything that training was."""
        return [*self.losses, *self.gradients, *self.rates]


def trained(part: Part, count: int = 3, seed: int = 0, /, **settings: Any) -> Run:
    """Train with the first arrangement of stages that the strategy accepts."""
    refusals = []
    for stages in STAGES:
        try:
            return Run(part, count, stages, FIRST, seed, **settings)
        except MerZooError as error:
            refusals.append(str(error))
    raise MerZooError(f"refuses every model, with {count} modalities: {refusals[-1]}")


def training(part: Part, count: int, world: World) -> Verdict:
    """Every arrangement trains or is refused by a message; losses and gradients are finite; rates are reported."""
    refusals = []
    for stages in STAGES:
        try:
            done = Run(part, count, stages, world)
        except MerZooError as error:
            refusals.append(str(error))
            continue
        if done.fault:
            return done.fault
        if not torch.stack(done.losses).isfinite().all():
            return f"the loss is not finite, with {stages}."
        if not all(g.isfinite().all() for g in done.gradients):
            return f"a gradient is not finite, with {stages}."
        if any(p.grad is None for p in done.model.parameters()):
            return f"a parameter of the model gets no gradient any more, with {stages}."
        rates = done.balancing.rates(done.output)
        if not _is_idle(part) and not set(modalities(count, world)) <= rates.keys():
            return f"`rates` tells of {', '.join(rates) or 'nothing'}; want a number for every modality."
        for name, rate in rates.items():
            if not isinstance(rate, Tensor) or rate.shape != () or not rate.isfinite():
                return f"`rates`: '{name}' must be a finite scalar tensor, not {rate!r}."
    if len(refusals) == len(STAGES):
        return f"refuses every model, with {count} modalities: {refusals[-1]}"
    return None


def modulation(part: Part) -> Verdict:
    """It changes something: losses or gradients differ from those without balancing."""
    if _is_idle(part):
        return Skipped("does nothing by design")
    ours = trained(part)
    plain = Run(Part("balancing", NoBalancing, "none"), 3, ours.stages)
    pairs = zip([*ours.losses, *ours.gradients], [*plain.losses, *plain.gradients], strict=False)
    if all(torch.equal(a, b) for a, b in pairs):
        return "modulates nothing: losses and gradients are those without balancing. Raise instead."
    return None


def determinism(part: Part) -> Verdict:
    """A seed decides everything."""
    first, second = trained(part, 3, 3), trained(part, 3, 3)
    if not torch.equal(torch.stack(first.losses), torch.stack(second.losses)):
        return "two trainings with the same seed differ. Draw from torch's generator."
    return None


def evaluation(part: Part) -> Verdict:
    """In evaluation the model is as if the strategy had never been: nothing stays on it but its weights."""
    done = trained(part)
    fresh = Model(done.plan, done.facts)
    fresh.load_state_dict(done.model.state_dict())
    batch = done.corpus.batch([0, 2, 5])
    with torch.no_grad():
        ours, wanted = done.model.eval()(batch).logits, fresh.eval()(batch).logits
    if not torch.equal(ours, wanted):
        return "after training, the model evaluates differently from a new one with the same weights."
    return None


def phases(check: Callable[[Run], Verdict]) -> Callable[[Part], Verdict]:
    """Return a check that runs as if in an early epoch and as if in a late one: some strategies pause."""

    def both(part: Part) -> Verdict:
        done = trained(part)
        for epoch in (0, EPOCHS[-1]):
            done.balancing.epoch = epoch
            if (verdict := check(done)) is not None:
                return verdict
        return None

    return both


def isolation(done: Run) -> Verdict:
    """What a dialogue gets depends on its own states alone; on the others only by what `unimodal` says of the batch."""
    model, balancing, batch = done.model.train(), done.balancing, done.corpus.batch(done.steps[0])
    first = int(batch.layout.lengths[0])
    for x in batch.features.values():
        x.requires_grad_()
    logits = balancing(model, batch).logits
    slopes = torch.autograd.grad(logits[:first].square().sum(), list(batch.features.values()), allow_unused=True)
    if any(slope is not None and slope[first:].abs().sum() > 0 for slope in slopes):
        return "leakage between dialogues: what one dialogue gets has a gradient by the features of another."
    judged = {m: torch.randn(len(batch), done.facts.classes) for m in done.model.modalities}
    states = {m: torch.randn(len(batch), 8) for m in done.model.modalities}
    noise = {m: torch.cat([x[:first], x[first:].flip(0) * 2 + 1]) for m, x in states.items()}
    judge: Any = _Judge(judged)
    found = []
    for given in (states, noise):
        torch.manual_seed(0)
        leaves = {m: x.clone().requires_grad_() for m, x in given.items()}
        flow: Any = model.encode(batch).with_states(leaves)
        found.append(balancing.on_features(judge, flow).states)
    for m in states:
        if not close(found[0][m][:first], found[1][m][:first]):
            return (
                f"leakage between dialogues: other features of the others change what one gets in {m}, by "
                f"{difference(found[0][m][:first], found[1][m][:first])}. Judge the batch by `unimodal()` only."
            )
    return None


class _Judge:
    """Of a model, only the logits of each modality alone: they have a gradient by the features, but other values."""

    def __init__(self, logits: dict[str, Tensor]) -> None:
        self.logits = logits

    def unimodal(self, flow: Any) -> dict[str, Tensor]:
        """Return them."""
        return {m: x + 0 * flow.states[m].sum(-1, keepdim=True) for m, x in self.logits.items()}


def labels(part: Part) -> Verdict:
    """Labels are kept or hidden, never changed."""
    done = trained(part)
    for chosen in done.steps:
        batch = done.corpus.batch(chosen)
        output = done.balancing(done.model.train(), batch)
        left = done.balancing.on_labels(batch.labels, output)
        if not ((left == batch.labels) | (left == -1)).all():
            return "`on_labels` changes a label; it may only hide one, by -1."
    return None


def reading(done: Run) -> Verdict:
    """Within an epoch no value is read back to the host."""
    batch = done.corpus.batch(done.steps[0])
    done.model.train()
    found = find_read(lambda: done.step.backward(*done.step(batch)))
    return found and f"{found}. Use tensor operations: torch.where, products with masks."


def stacking(done: Run) -> Verdict:
    """A strategy that says it is `stackable` gives under `torch.func.vmap` what a loop gives."""
    balancing, model = done.balancing, done.model.train()
    if not balancing.stackable:
        return Skipped("not stackable: it acts on one seed at a time")
    parameters, buffers = torch.func.stack_module_state([model, Model(done.plan, done.facts).train()])
    index = stacked([done.corpus.index(chosen).tensors() for chosen in (done.steps[0], done.steps[0][::-1])])

    def one(weights: Any, index: Any) -> tuple[Tensor, list[Tensor]]:
        state = {f"model.{name}": x for name, x in weights.items()}
        total, output, _ = torch.func.functional_call(done.step, state, (done.corpus.batch(BatchIndex(**index)),))
        return total, list(balancing.rates(output).values())

    weights = {**parameters, **buffers}
    try:
        together = torch.func.vmap(one, randomness="different")(weights, index)
    except Exception as error:
        return (
            f"it says it is `stackable`, but torch.func.vmap over seeds fails: {first_line(error)}{where(error)}. Use "
            "tensor operations only, or let `stackable` be False."
        )
    if not together[0].isfinite().all():
        return "the loss is not finite under torch.func.vmap."
    alone = []
    for attempt in (0, 1):
        torch.manual_seed(attempt)
        alone.append([one(*torch.utils._pytree.tree_map(lambda x, i=i: x[i], (weights, index))) for i in (0, 1)])
    drawn = [torch.stack([loss for loss, _ in each]) for each in alone]
    if torch.equal(*drawn) and not close(together[0], drawn[0], 1e-4):
        return f"under torch.func.vmap the loss differs by {difference(together[0], drawn[0])} from that alone."
    for number, rate in enumerate(together[1]):
        if not close(rate, torch.stack([rates[number] for _, rates in alone[0]]), 1e-4):
            return "under torch.func.vmap the rates are others than for each seed alone."
    return None


def effect(part: Part, changed: dict[str, Any], default: Run) -> Verdict | bool:
    """Another value of a setting trains; return its fault, or whether training is another than by default."""
    done = trained(part, **changed)
    if done.fault:
        return done.fault
    if not all(x.isfinite().all() for x in done.trace):
        return "loss, gradients or rates are not finite."
    return len(done.trace) != len(default.trace) or not all(map(torch.equal, done.trace, default.trace))


CHECKS: dict[str, Callable[[Part], Verdict]] = {
    "modulation": modulation,
    "determinism": determinism,
    "evaluation": evaluation,
    "isolation": phases(isolation),
    "labels": labels,
    "host reads": phases(reading),
    "stacking": phases(stacking),
}
