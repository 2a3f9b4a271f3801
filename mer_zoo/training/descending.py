"""The optimisers of a run, for one seed or for stacked ones, and their learning rates."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor

from mer_zoo.model.optimising import OPTIMIZERS, SCHEDULES, Schedule, optimizer_of
from mer_zoo.model.plan import Training


class Descent:
    """Steps of the optimiser, and the learning rate of every seed.

    One optimiser serves all stacked seeds where it takes its steps number by number and all have the same rate.
    Otherwise each seed has an optimiser of its own, for its layer of the stack, and is trained as it would be alone.

    Args:
        training: filled.
        weights: what is trained; a stack has `[seeds, ...]`.
        stacked: how many seeds are stacked; None: the weights are those of one.
        recorded: steps are recorded: rates that change are tensors, which the recording reads.
    """

    def __init__(self, training: Training, weights: Sequence[Tensor], stacked: int | None, recorded: bool) -> None:
        self.weights, self.seeds = list(weights), stacked or 1
        apart = stacked is not None and not one_for_all(training)
        self.layers = [[x.detach()[number] for x in self.weights] for number in range(self.seeds)] if apart else []
        groups = self.layers or [self.weights]
        changing = training.warm_up > 0 or training.schedule.name != "none"
        self.schedules = [Schedule(training) for _ in groups] if changing else []
        rate = self.schedules[0].rate if changing else training.learning_rate
        device = self.weights[0].device
        as_tensor = changing and recorded
        self.optimizers = [
            optimizer_of(training, group, torch.tensor(rate, device=device) if as_tensor else rate) for group in groups
        ]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for x in (*self.weights, *(own for layer in self.layers for own in layer)):
            x.grad = None

    def step(self) -> None:
        """Take a step down the gradients of the weights."""
        for number, layer in enumerate(self.layers):
            for own, x in zip(layer, self.weights, strict=True):
                own.grad = None if x.grad is None else x.grad[number]
        for optimizer in self.optimizers:
            optimizer.step()

    def moments(self) -> list[Tensor]:
        """Return what the optimisers remember."""
        kept = [memory for optimizer in self.optimizers for memory in optimizer.state.values()]
        return [x for memory in kept for x in memory.values() if isinstance(x, Tensor)]

    def rates(self) -> list[float] | None:
        """Return the learning rate of every seed, where it changes."""
        rates = [schedule.rate for schedule in self.schedules]
        return rates * (self.seeds // len(rates)) if rates else None

    def after_epoch(self, watched: Sequence[float]) -> None:
        """Set the rates of the next epoch, given what the schedule watches, by seed."""
        for schedule, optimizer, value in zip(self.schedules, self.optimizers, watched, strict=False):
            rate = schedule.after_epoch(value)
            for group in optimizer.param_groups:
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)  # in place: a recorded step reads it there
                else:
                    group["lr"] = rate


def one_for_all(training: Training) -> bool:
    """Return whether one optimiser can serve stacked seeds: steps are taken number by number, at one rate for all."""
    followed = training.schedule.name in ("none", *SCHEDULES.names) and training.watched is None
    return training.optimizer.name in OPTIMIZERS.names and followed


def why_not_recorded(training: Training) -> str | None:
    """Return why steps of the optimiser cannot be recorded, or None if they can."""
    name = training.optimizer.name
    if name in OPTIMIZERS.names or "capturable" in inspect.signature(OPTIMIZERS.find(name)).parameters:
        return None
    return f"optimizer {name} has no `capturable` form, so its steps cannot be captured"
