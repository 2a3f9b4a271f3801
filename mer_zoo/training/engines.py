"""How a training step is computed: one seed alone, or several seeds as one program; eagerly or from a recording."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mer_zoo import registry
from mer_zoo.batch.batch import ConversationBatch
from mer_zoo.batch.index import BatchIndex, Shape
from mer_zoo.batch.output import Output
from mer_zoo.corpus import Corpus
from mer_zoo.model.model import Model, Stage, assemble
from mer_zoo.model.rehearsal import companions
from mer_zoo.parts.balancing.base import Balancing, Features
from mer_zoo.training.capturing import Captured, common_shapes, union
from mer_zoo.training.options import Speed

if TYPE_CHECKING:
    from mer_zoo.training.loop import Task

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
Plan = Sequence[Sequence[Sequence[np.ndarray]]]
"""Dialogue numbers of every batch: `plan[seed][epoch][step]`."""


class Engine(abc.ABC):
    """Base of both engines: models, their companions, and how an epoch goes.

    Args:
        task: recipe and dialogues.
        seeds: one model each.
        plan: batches of all epochs, so that their shapes are known before the first.
        speed: how to compute.
    """

    def __init__(self, task: Task, seeds: Sequence[int], plan: Plan, speed: Speed) -> None:
        self.task, self.plan, self.speed = task, plan, speed
        self.models = [assemble(task.filled, task.facts, seed).to(task.device) for seed in seeds]
        self.model = self.models[0]
        balancing, loss = companions(self.model, task.filled, task.facts)
        self.balancing, self.loss = balancing.to(task.device), loss.to(task.device)
        self.captures = speed.captures(task.device) and why_not_captured(task, self.model, self.balancing) is None
        self._captured: Captured | None = None
        self._rates = torch.zeros(len(seeds), 0)
        self._rated: list[str] = []

    def _finish(self, parameters: Sequence[Tensor], state: Callable[[], list[Tensor]]) -> None:
        """Make the optimiser and, if wanted, what captures the steps; `state` is what a step changes."""
        settings, device = self.task.filled["training"], self.task.device
        name = settings["optimizer"]
        options = {"capturable": True} if device.startswith("cuda") and name != "sgd" else {}
        self.optimizer = OPTIMIZERS[name](
            parameters, lr=settings["learning_rate"], weight_decay=settings["weight_decay"], fused=True, **options
        )
        if self.captures:
            shapes = common_shapes(self.task.train, self.plan)
            compute = torch.compile(self._step, dynamic=False) if self.speed.compile else self._step

            def changed() -> list[Tensor]:
                moments = [x for kept in self.optimizer.state.values() for x in kept.values() if isinstance(x, Tensor)]
                return [*state(), *moments]

            self._captured = Captured(compute, shapes, changed, device)

    def epoch(self, number: int) -> Tensor:
        """Train one epoch; returns the mean loss of every seed, `[seeds]`, still on the device."""
        self.model.train()
        self.balancing.on_epoch_start(number, self._collect)
        phase = number >= getattr(self.balancing, "warm_up", 0)
        losses = []
        for step in range(len(self.plan[0][number])):
            batches = [epochs[number][step] for epochs in self.plan]
            need = union([self.task.train.shape(chosen) for chosen in batches])
            shape = self._captured.fitting(need) if self._captured else None
            if self._captured is not None and shape is not None:
                loss, self._rates = self._captured(self._index(batches, shape), shape, phase)
            else:
                loss, self._rates = self._step(self._index(batches, need))
            losses.append(loss)
        return torch.stack(losses).mean(0)

    def rates(self) -> list[dict[str, float]]:
        """What balancing did in the last step, by seed."""
        return [dict(zip(self._rated, row, strict=True)) for row in self._rates.tolist()]

    def _rates_now(self) -> Tensor:
        """Read the strategy's rates as one tensor."""
        rates = self.balancing.rates()
        self._rated = list(rates)
        return torch.stack(list(rates.values())) if rates else torch.zeros(0, device=self.task.device)

    @abc.abstractmethod
    def _index(self, batches: Sequence[np.ndarray], shape: Shape) -> dict[str, Any]:
        """Plan one batch per seed as index tensors."""

    @abc.abstractmethod
    def _step(self, index: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """One optimiser step; returns losses `[seeds]` and balancing rates `[seeds, rates]`."""

    @abc.abstractmethod
    def logits(self, batch: ConversationBatch) -> Tensor:
        """Judge a batch by every seed's model in evaluation mode: `[seeds, N, classes]`."""

    @abc.abstractmethod
    def weights(self, number: int) -> dict[str, Tensor]:
        """Copy the weights of one seed's model."""

    @abc.abstractmethod
    def load(self, weights: Sequence[dict[str, Tensor]]) -> None:
        """Set the weights of every seed's model."""

    def _collect(self, count: int) -> list[tuple[Features, Tensor]]:
        """Features and labels of the first `count` training batches, without gradient and dropout."""
        corpus = self.task.train
        batches = np.array_split(np.arange(len(corpus)), len(self.plan[0][0]))[:count]
        was_training = self.model.training
        self.model.eval()
        with torch.no_grad():
            found = []
            for chosen in batches:
                batch = corpus.batch(chosen)
                states = self.model.encode(batch).states
                found.append(({m: states[m] for m in self.model.modalities}, batch.labels))
        self.model.train(was_training)
        return found


class Alone(Engine):
    """One seed."""

    def __init__(self, task: Task, seeds: Sequence[int], plan: Plan, speed: Speed) -> None:
        super().__init__(task, seeds, plan, speed)
        self._finish(list(self.model.parameters()), lambda: [*self.model.parameters(), *self.model.buffers()])

    def _index(self, batches: Sequence[np.ndarray], shape: Shape) -> dict[str, Any]:
        return vars(self.task.train.index(batches[0], shape=shape))

    def _step(self, index: dict[str, Any]) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        batch = self.task.train.batch(BatchIndex(**index))
        with self.speed.autocast(self.task.device):
            output = _exact(self.balancing.forward(self.model.run(self.balancing), batch))
        labels = self.balancing.on_labels(batch.labels)
        total = self.balancing.total_loss(self.loss(output, labels), output, labels)
        parameters = self.model.modality_parameters()
        self.balancing.backward(total, output, labels, parameters)
        self.balancing.after_backward(parameters)
        if (clip := self.task.filled["training"]["clip"]) is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        self.optimizer.step()
        return total.detach().unsqueeze(0), self._rates_now().detach().unsqueeze(0)

    def logits(self, batch: ConversationBatch) -> Tensor:
        """Run the model."""
        with self.speed.autocast(self.task.device):
            return self.model.eval()(batch).logits.float().unsqueeze(0)

    def weights(self, number: int) -> dict[str, Tensor]:
        """Copy the state dict."""
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    def load(self, weights: Sequence[dict[str, Tensor]]) -> None:
        """Load the state dict."""
        self.model.load_state_dict(weights[0])


class Stacked(Engine):
    """Several seeds: their weights stacked, the ordinary model mapped over them by `torch.func.vmap`.

    Each seed has its own weights, order of dialogues and dropout. The loss is summed over seeds, so no gradient passes
    from one to another; the optimiser works element by element, so neither does a step.
    """

    def __init__(self, task: Task, seeds: Sequence[int], plan: Plan, speed: Speed) -> None:
        super().__init__(task, seeds, plan, speed)
        named = [dict(model.named_parameters()) for model in self.models]
        self.parameters = {n: torch.stack([p[n].detach() for p in named]).requires_grad_() for n in named[0]}
        held = [dict(model.named_buffers()) for model in self.models]
        self.buffers = {n: torch.stack([b[n] for b in held]) for n in held[0]}
        self._finish(list(self.parameters.values()), lambda: list(self.parameters.values()))

    def _index(self, batches: Sequence[np.ndarray], shape: Shape) -> dict[str, Any]:
        planned = [vars(self.task.train.index(chosen, shape=shape)) for chosen in batches]
        return pytree.tree_map(lambda *tensors: torch.stack(tensors), *planned)

    def _step(self, index: dict[str, Any]) -> tuple[Tensor, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        each = torch.func.vmap(self._loss, randomness="different")
        losses, rates = each(self.parameters, self.buffers, index)
        losses.sum().backward()
        if (clip := self.task.filled["training"]["clip"]) is not None:
            self._clip(clip)
        self.optimizer.step()
        return losses.detach(), rates.detach()

    def _loss(self, parameters: Any, buffers: Any, index: Any) -> tuple[Tensor, Tensor]:
        """Loss and balancing rates of one seed."""
        batch = self.task.train.batch(BatchIndex(**index))
        attributes = dict(vars(self.balancing))  # what a strategy remembers from hook to hook must not leave the map
        with self.speed.autocast(self.task.device):
            output = _exact(torch.func.functional_call(self.model, (parameters, buffers), (batch, self.balancing)))
        labels = self.balancing.on_labels(batch.labels)
        total = self.balancing.total_loss(self.loss(output, labels), output, labels)
        rates = self._rates_now()
        vars(self.balancing).update(attributes)
        return total, rates

    def _clip(self, largest: float) -> None:
        gradients = [p.grad for p in self.parameters.values() if p.grad is not None]
        norm = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
        factor = (largest / (norm + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(factor.view(-1, *[1] * (gradient.dim() - 1)))

    def logits(self, batch: ConversationBatch) -> Tensor:
        """Map the model over the stacked weights."""
        self.model.eval()

        def one(parameters: Any, buffers: Any) -> Tensor:
            return torch.func.functional_call(self.model, (parameters, buffers), (batch,)).logits.float()

        with self.speed.autocast(self.task.device):
            return torch.func.vmap(one)(self.parameters, self.buffers)

    def weights(self, number: int) -> dict[str, Tensor]:
        """Copy one layer of the stack."""
        return {n: x[number].detach().clone() for n, x in (*self.parameters.items(), *self.buffers.items())}

    def load(self, weights: Sequence[dict[str, Tensor]]) -> None:
        """Fill the stack and every seed's own model."""
        for number, (model, kept) in enumerate(zip(self.models, weights, strict=True)):
            model.load_state_dict(kept, strict=False)  # buffers that are not saved are as they were made
            for name, x in self.parameters.items():
                x.data[number] = kept[name]


def _exact(output: Output) -> Output:
    """Logits in float32, so that losses are sums of many small numbers without rounding, whatever the precision."""
    apart = {m: logits.float() for m, logits in output.modality_logits.items()}
    return replace(output, logits=output.logits.float(), modality_logits=apart)


def why_not_stacked(task: Task) -> str | None:
    """Return why the seeds of a task cannot be one program, or None if they can.

    A part says so on its card (`unstackable`), a balancing strategy by `stackable`.
    """
    model = assemble(task.filled, task.facts)
    balancing, _ = companions(model, task.filled, task.facts)
    if not balancing.stackable:
        return f"balancing/{task.filled['balancing']['name']} needs one seed at a time"
    return _obstacle(task, model, "stackable", "stacked")


def why_not_captured(task: Task, model: Model, balancing: Balancing) -> str | None:
    """Return why the steps of a task cannot be captured, or None if they can.

    Every part must promise `capturable`, and the balancing strategy must use no hook on the loop.
    """
    if not balancing.stackable:
        return f"balancing/{task.filled['balancing']['name']} acts between operations"
    return _obstacle(task, model, "capturable", "captured")


def _obstacle(task: Task, model: Model, quality: str, done: str) -> str | None:
    if task.kernels is not None and task.kernels.foreign:
        return f"kernel {task.kernels.__name__} cannot be {done}"
    loss = registry.find("loss", task.filled["loss"]["name"])
    parts = [(stage.card, stage) for stage in model.stages.values() if isinstance(stage, Stage) and stage.card]
    return next((f"{card.id} cannot be {done}" for card, x in [*parts, (loss, loss)] if not getattr(x, quality)), None)


def seeds_that_fit(task: Task) -> int:
    """Return how many stacked seeds fit in memory: 70 % of what is free on the GPU, by what one step of one takes.

    On CPU there is no limit: stacking is the user's wish there.
    """
    if not task.device.startswith("cuda"):
        return 1 << 30
    torch.cuda.reset_peak_memory_stats(task.device)
    corpus, size = task.train, task.filled["training"]["dialogues_per_batch"]
    before = torch.cuda.memory_allocated(task.device)
    largest = np.argsort(-corpus.lengths)[:size]
    Alone(task, [0], [[[largest]]], Speed(capture=False)).epoch(0)
    cost = torch.cuda.max_memory_allocated(task.device) - before
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(task.device)
    return max(1, int(0.7 * free / max(cost, 1)))


def batches_of(corpus: Corpus, seed: int, epochs: int, size: int) -> list[list[np.ndarray]]:
    """Draw the order of dialogues of every epoch, cut into batches of nearly `size`: `[epoch][step]`."""
    order = np.random.default_rng(seed)
    steps = -(-len(corpus) // size)
    return [np.array_split(order.permutation(len(corpus)), steps) for _ in range(epochs)]
