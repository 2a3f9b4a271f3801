"""How a training step is computed: one seed, or several seeds as one program; eagerly or from a recording."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mer_zoo import registry
from mer_zoo.batch import launch_cost
from mer_zoo.batch.index import BatchIndex, Shape
from mer_zoo.batch.output import Output
from mer_zoo.corpus import ConversationBatch, Corpus
from mer_zoo.model.assembly import assemble
from mer_zoo.model.step import Step, companions, explained
from mer_zoo.model.vmapped import lay_side_by_side
from mer_zoo.parts.balancing.base import Features
from mer_zoo.training import memory
from mer_zoo.training.capturing import Captured, common_shapes, union
from mer_zoo.training.descending import Descent, why_not_recorded
from mer_zoo.training.lambdas import Lambdas
from mer_zoo.training.options import ComputeOptions
from mer_zoo.training.task import Task

Batches = Sequence[Sequence[Sequence[np.ndarray]]]
"""Dialogue numbers of every batch: `batches[seed][epoch][step]`."""


class Engine(abc.ABC):
    """Base of both engines: the models of all seeds, the optimiser, and how an epoch goes.

    Args:
        task: plan and dialogues.
        seeds: one model each.
        batches: of all epochs, so that their shapes are known before the first.
        options: how to compute.
    """

    def __init__(self, task: Task, seeds: Sequence[int], batches: Batches, options: ComputeOptions) -> None:
        self.task, self.batches, self.options = task, batches, options
        self.training = task.plan.training
        self.models = [assemble(task.plan, task.facts, seed).to(task.device) for seed in seeds]
        balancing, loss = companions(task.plan, task.facts)
        self.step = Step(self.models[0], balancing, loss, autocast=options.precision == "bf16").to(task.device)
        self.captures = options.captures(task.device) and why_not_captured(task, self.step) is None
        self._rates = torch.zeros(len(seeds), 0)
        self._rated: tuple[str, ...] = ()
        self._lambdas = Lambdas(self.step.model)
        self.trained = self._trained()
        self.descent = Descent(self.training, list(self.trained.values()), self._stacked(), self.captures)
        self._captured = self._capture() if self.captures else None

    @abc.abstractmethod
    def _trained(self) -> dict[str, Tensor]:
        """Return what is trained, by name."""

    @abc.abstractmethod
    def _stacked(self) -> int | None:
        """Return how many seeds are stacked, or None."""

    @abc.abstractmethod
    def _changed(self) -> list[Tensor]:
        """Return the tensors of the models that a step changes."""

    @abc.abstractmethod
    def _index(self, batches: Sequence[np.ndarray], shape: Shape) -> dict[str, Any]:
        """Plan one batch per seed as index tensors."""

    @abc.abstractmethod
    def _step(self, index: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """One optimiser step; returns losses `[seeds]` and balancing rates `[seeds, rates]`."""

    @abc.abstractmethod
    def judge(self, batch: ConversationBatch, *, loss: bool = False) -> tuple[Tensor, Tensor]:
        """Judge a batch by every seed's model in evaluation mode: logits `[seeds, N, classes]` and losses `[seeds]`.

        Losses are 0 where they are not wanted.
        """

    @abc.abstractmethod
    def weights(self, number: int) -> dict[str, Tensor]:
        """Copy the weights of one seed's model."""

    @abc.abstractmethod
    def _read(self, reader: Lambdas) -> Tensor:
        """Have every seed's weights read: `[seeds, places]`."""

    @abc.abstractmethod
    def load(self, weights: Sequence[dict[str, Tensor]]) -> None:
        """Set the weights of every seed's model."""

    def roots(self) -> dict[str, Any]:
        """Return all that an epoch changes, the weights before what is kept by weight."""
        return {"trained": self.trained, "step": self.step, "optimizers": self.descent.optimizers}

    def _capture(self) -> Captured:
        def changed() -> list[Tensor]:
            return [*self._changed(), *self.descent.moments()]

        compute = torch.compile(self._step, dynamic=False) if self.options.compile else self._step
        return Captured(compute, common_shapes(self.task.train, self.batches), changed, self.task.device)

    def epoch(self, number: int) -> Tensor:
        """Train one epoch; returns the mean loss of every seed, `[seeds]`, still on the device.

        Raises:
            MerZooError: a part fails; it is named with its place in the recipe.
        """
        self.step.train()
        try:
            self.step.balancing.on_epoch_start(number, self._collect)
            phase = number >= getattr(self.step.balancing, "warm_up", 0)
            steps = range(len(self.batches[0][number]))
            return torch.stack([self._advance([e[number][step] for e in self.batches], phase) for step in steps]).mean(
                0
            )
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise explained(error, self.step, self.task.plan) from error

    def _advance(self, batches: Sequence[np.ndarray], phase: bool) -> Tensor:
        """Take one step, from the recording if there is one; returns the loss of every seed."""
        need = union([self.task.train.shape(chosen) for chosen in batches])
        shape = self._captured.fitting(need) if self._captured else None
        if self._captured is not None and shape is not None:
            losses, self._rates = self._captured(self._index(batches, shape), shape, phase)
        else:
            losses, self._rates = self._step(self._index(batches, need))
        return losses

    def finite(self) -> list[bool]:
        """Return whether all weights are finite, by seed."""
        shape = (len(self.models), -1)
        each = [x.detach().isfinite().reshape(shape).all(1) for x in self.trained.values()]
        return torch.stack(each).all(0).tolist()

    def rates(self) -> list[dict[str, float]]:
        """Return what balancing did in the last step, by seed."""
        return [dict(zip(self._rated, row, strict=True)) for row in self._rates.tolist()]

    def lambdas(self) -> list[dict[str, float]]:
        """Return lambda of every differential attention as it is now, by seed."""
        if not self._lambdas.places:
            return [{} for _ in self.models]
        with torch.no_grad():
            rows = self._read(self._lambdas).tolist()
        return [dict(zip(self._lambdas.places, row, strict=True)) for row in rows]

    def _rates_of(self, output: Output) -> Tensor:
        """The strategy's rates as one tensor."""
        rates = self.step.balancing.rates(output)
        self._rated = tuple(rates)
        return torch.stack(list(rates.values())) if rates else output.logits.new_zeros(0)

    def _collect(self, count: int) -> list[tuple[Features, Tensor]]:
        """Features and labels of the first `count` training batches, without gradient and dropout."""
        corpus, model = self.task.train, self.step.model
        chosen = np.array_split(np.arange(len(corpus)), len(self.batches[0][0]))[:count]
        was_training = model.training
        model.eval()
        with torch.no_grad():
            batches = [corpus.batch(dialogues) for dialogues in chosen]
            found = [(model.encode(batch).states, batch.labels) for batch in batches]
        model.train(was_training)
        return found


class OneSeed(Engine):
    """One seed."""

    def _trained(self) -> dict[str, Tensor]:
        if launch_cost.is_costly(torch.device(self.task.device)):
            for stage in (stage for _, stage in self.step.model.named_stages() if stage.stackable):
                lay_side_by_side(list(stage.parts.values()))
        return dict(self.step.model.named_parameters())

    def _stacked(self) -> None:
        return None

    def _changed(self) -> list[Tensor]:
        return [*self.step.model.parameters(), *self.step.model.buffers()]

    def _index(self, batches: Sequence[np.ndarray], shape: Shape) -> dict[str, Any]:
        index = self.task.train.index(batches[0], shape=shape)
        return vars(index) if self._captured is None else index.tensors()

    def _step(self, index: dict[str, Any]) -> tuple[Tensor, Tensor]:
        self.descent.zero_grad()
        total, output, labels = self.step(self.task.train.batch(BatchIndex(**index)))
        self.step.backward(total, output, labels)
        if self.training.clip is not None:
            torch.nn.utils.clip_grad_norm_(self.step.model.parameters(), self.training.clip)
        self.descent.step()
        return total.detach().unsqueeze(0), self._rates_of(output).detach().unsqueeze(0)

    def judge(self, batch: ConversationBatch, *, loss: bool = False) -> tuple[Tensor, Tensor]:
        """Run the model."""
        self.step.eval()
        with self.step.precision(batch):
            output = self.step.model(batch)
        logits, value = self.step.judged(output, batch, loss=loss)
        return logits.unsqueeze(0), value.unsqueeze(0)

    def weights(self, number: int) -> dict[str, Tensor]:
        """Copy the state dict."""
        return {name: value.detach().clone() for name, value in self.step.model.state_dict().items()}

    def _read(self, reader: Lambdas) -> Tensor:
        return reader().unsqueeze(0)

    def load(self, weights: Sequence[dict[str, Tensor]]) -> None:
        """Load the state dict."""
        self.step.model.load_state_dict(weights[0])


class StackedSeeds(Engine):
    """Several seeds: their weights stacked, the ordinary step mapped over them by `torch.func.vmap`.

    Each seed has its own weights, order of dialogues and dropout. The loss is summed over seeds, so no gradient passes
    from one to another; the optimiser works element by element, so neither does a step.
    """

    def _trained(self) -> dict[str, Tensor]:
        held = [dict(model.named_buffers()) for model in self.models]
        self.buffers = {name: torch.stack([b[name] for b in held]) for name in held[0]}
        named = [dict(model.named_parameters()) for model in self.models]
        return {n: torch.stack([p[n].detach() for p in named]).requires_grad_() for n in named[0]}

    def _stacked(self) -> int:
        return len(self.models)

    def roots(self) -> dict[str, Any]:
        """Return all that an epoch changes."""
        return {"buffers": self.buffers, "layers": self.descent.layers, **super().roots()}

    def _changed(self) -> list[Tensor]:
        return [*self.trained.values(), *self.buffers.values()]

    def _index(self, batches: Sequence[np.ndarray], shape: Shape) -> dict[str, Any]:
        return self.task.train.stacked_index(batches, shape)

    def _step(self, index: dict[str, Any]) -> tuple[Tensor, Tensor]:
        self.descent.zero_grad()
        each = torch.func.vmap(self._one, randomness="different")
        losses, rates = each(self.trained, self.buffers, index)
        losses.sum().backward()
        if self.training.clip is not None:
            self._clip(self.training.clip)
        self.descent.step()
        return losses.detach(), rates.detach()

    def _one(
        self, trained: dict[str, Tensor], buffers: dict[str, Tensor], index: dict[str, Any]
    ) -> tuple[Tensor, Tensor]:
        """Loss and balancing rates of one seed."""
        batch = self.task.train.batch(BatchIndex(**index))
        state = {f"model.{name}": x for name, x in (*trained.items(), *buffers.items())}
        total, output, _ = torch.func.functional_call(self.step, state, (batch,))
        return total, self._rates_of(output)

    def _clip(self, largest: float) -> None:
        gradients = [p.grad for p in self.trained.values() if p.grad is not None]
        norm = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
        factor = (largest / (norm + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))

    def judge(self, batch: ConversationBatch, *, loss: bool = False) -> tuple[Tensor, Tensor]:
        """Map the model over the stacked weights."""
        self.step.eval()

        def one(trained: dict[str, Tensor], buffers: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            with self.step.precision(batch):
                output = torch.func.functional_call(self.step.model, (trained, buffers), (batch,))
            return self.step.judged(output, batch, loss=loss)

        return torch.func.vmap(one)(self.trained, self.buffers)

    def weights(self, number: int) -> dict[str, Tensor]:
        """Copy one layer of the stack."""
        return {n: x[number].detach().clone() for n, x in (*self.trained.items(), *self.buffers.items())}

    def _read(self, reader: Lambdas) -> Tensor:
        def one(*held: dict[str, Tensor]) -> Tensor:
            state = {f"model.{name}": x for weights in held for name, x in weights.items()}
            return torch.func.functional_call(reader, state, ())

        return torch.func.vmap(one)(self.trained, self.buffers)

    def load(self, weights: Sequence[dict[str, Tensor]]) -> None:
        """Fill the stack and every seed's own model."""
        for number, (model, kept) in enumerate(zip(self.models, weights, strict=True)):
            model.load_state_dict(kept, strict=False)  # buffers that are not saved are as they were made
            for name, x in (*self.trained.items(), *self.buffers.items()):
                x.data[number] = kept[name]


def why_not_stacked(task: Task) -> str | None:
    """Return why the seeds of a task cannot be one program, or None if they can.

    A part says so on its card (`unstackable`), a balancing strategy by `stackable`.
    """
    step = Step(assemble(task.plan, task.facts), *companions(task.plan, task.facts))
    if not step.balancing.stackable:
        return f"balancing/{task.plan.balancing.name} needs one seed at a time"
    return _obstacle(task, step, "stackable", "stacked")


def why_not_captured(task: Task, step: Step) -> str | None:
    """Return why the steps of a task cannot be captured, or None if they can.

    Every part must promise `capturable`, and the balancing strategy must use no hook on the loop.
    """
    if not step.balancing.stackable:
        return f"balancing/{task.plan.balancing.name} acts between operations"
    if (reason := why_not_recorded(task.plan.training)) is not None:
        return reason
    return _obstacle(task, step, "capturable", "captured")


def _obstacle(task: Task, step: Step, quality: str, done: str) -> str | None:
    if task.kernels is not None and task.kernels.foreign:
        return f"kernel {task.kernels.__name__} cannot be {done}"
    loss = registry.find("loss", task.plan.loss.name)
    parts = [(stage.card.id if stage.card else f"model.{name}", stage) for name, stage in step.model.named_stages()]
    every = [*parts, (loss.id, loss)]
    return next((f"{name} cannot be {done}" for name, x in every if not getattr(x, quality)), None)


def seeds_that_fit(task: Task) -> int:
    """Return how many stacked seeds fit in memory: 70 % of what is free on the GPU, by what one step of one takes.

    On CPU there is no limit: stacking is the user's wish there.
    """
    if not task.device.startswith("cuda"):
        return 1 << 30
    torch.cuda.reset_peak_memory_stats(task.device)
    before = torch.cuda.memory_allocated(task.device)
    largest = np.argsort(-task.train.lengths)[: task.plan.training.dialogues_per_batch]
    OneSeed(task, [0], [[[largest]]], ComputeOptions(capture=False)).epoch(0)
    cost = torch.cuda.max_memory_allocated(task.device) - before
    memory.give_back(task.device)
    free, _ = torch.cuda.mem_get_info(task.device)
    return max(1, int(0.7 * free / max(cost, 1)))


def batches_of(corpus: Corpus, seed: int, epochs: int, size: int) -> list[list[np.ndarray]]:
    """Draw the order of dialogues of every epoch, cut into batches of nearly `size`: `[epoch][step]`."""
    order = np.random.default_rng(seed)
    steps = -(-len(corpus) // size)
    return [np.array_split(order.permutation(len(corpus)), steps) for _ in range(epochs)]
