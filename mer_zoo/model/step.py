"""What one training step computes: a model, the strategy that balances it, and the loss."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from mer_zoo import registry
from mer_zoo.batch.output import Output
from mer_zoo.errors import MerZooError
from mer_zoo.model.model import Facts, Model
from mer_zoo.model.plan import PartChoice, Plan
from mer_zoo.parts.balancing.base import Balancing
from mer_zoo.parts.loss.base import beside, seen_by
from mer_zoo.parts.ops.precision import exactly

if TYPE_CHECKING:
    from mer_zoo.corpus import ConversationBatch


class Step(nn.Module):
    """The forward and backward pass of one training step.

    Inputs:
        batch: `ConversationBatch`.
    Outputs:
        total: scalar, the loss with what balancing adds; `Output`; labels: int64 `[N]`, those that count.

    Args:
        model: the model.
        balancing: the strategy; its hooks run here and nowhere else.
        loss: the loss.
        autocast: bfloat16 products in the forward pass.

    Example:
        >>> from mer_zoo.checking.small_data import tiny_batch
        >>> from mer_zoo.model import filling, recipe
        >>> batch = tiny_batch()
        >>> plan = filling.fill(recipe.read("bilstm"), {m: x.shape[1] for m, x in batch.features.items()})
        >>> facts = Facts(plan.modalities, speakers=3, classes=6)
        >>> total, output, labels = Step(Model(plan, facts), *companions(plan, facts))(batch)
        >>> total.shape, output.logits.shape, labels.shape
        (torch.Size([]), torch.Size([10, 6]), torch.Size([10]))
    """

    def __init__(self, model: Model, balancing: Balancing, loss: nn.Module, *, autocast: bool = False) -> None:
        super().__init__()
        self.model, self.balancing, self.loss, self.autocast = model, balancing, loss, autocast
        self.seen = seen_by(loss)

    def forward(self, batch: ConversationBatch) -> tuple[Tensor, Output, Tensor]:
        """Compute the loss."""
        with self.precision(batch):
            output = _exact(self.balancing(self.model, batch))
        labels = self.balancing.on_labels(batch.labels, output)
        return self.balancing.total_loss(self.value(output, labels, batch), output, labels), output, labels

    def backward(self, total: Tensor, output: Output, labels: Tensor) -> None:
        """Compute the gradients from what `forward` returned."""
        parameters = self.model.modality_parameters()
        self.balancing.backward(total, output, labels, parameters)
        self.balancing.after_backward(parameters)

    def judged(self, output: Output, batch: ConversationBatch, *, loss: bool) -> tuple[Tensor, Tensor]:
        """Return logits, float32 `[N, classes]`, and the loss without balancing, 0 where it is not wanted."""
        exact = _exact(output)
        return exact.logits, self.value(exact, batch.labels, batch) if loss else exact.logits.new_zeros(())

    def value(self, output: Output, labels: Tensor, batch: ConversationBatch) -> Tensor:
        """Return the loss alone, which sees what it asks for of the batch."""
        return self.loss(output, labels, **beside(self.seen, batch.layout, self._targets(batch)))

    def _targets(self, batch: ConversationBatch) -> dict[str, Tensor]:
        tasks = self.model.plan.tasks if "targets" in self.seen else {}
        return {task: batch.targets[task] for task in tasks}

    def precision(self, batch: ConversationBatch) -> AbstractContextManager[Any]:
        """Return the context in which the forward pass of a batch runs."""
        device = batch.labels.device
        if not self.autocast:
            return exactly(device)
        # weights are cast anew in every step: a cached cast would be left behind in a captured graph
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)

    def culprit(self, error: BaseException) -> str:
        """Return the place in the recipe of what raised an error: `model.context`, `balancing`, `loss`, or ""."""
        owners = {id(stage): f"model.{name}" for name, stage in self.model.named_stages()}
        owners |= {id(self.balancing): "balancing", id(self.loss): "loss"}
        found = ""
        for frame, _ in traceback.walk_tb(error.__traceback__):
            found = owners.get(id(frame.f_locals.get("self")), found)
        return found


def companions(plan: Plan, facts: Facts) -> tuple[Balancing, nn.Module]:
    """Make the balancing strategy and the loss that go with a model."""
    known = {
        "modalities": tuple(plan.modalities),
        "classes": facts.classes,
        "class_counts": facts.class_counts or (1,) * facts.classes,
    }
    balancing = _made("balancing", plan.balancing, known, Balancing)
    return balancing, _made("loss", plan.loss, known, nn.Module)


P = TypeVar("P", bound=nn.Module)


def _made(kind: str, choice: PartChoice, known: Mapping[str, Any], base: type[P]) -> P:
    part = registry.build(registry.find(kind, choice.name, kind), choice.settings, known, kind)
    if not isinstance(part, base):
        raise MerZooError(f"{kind}: {choice.name} makes a {type(part).__name__}, not a {base.__name__}.")
    return part


def _exact(output: Output) -> Output:
    """Logits in float32, so that losses are sums of many small numbers without rounding, whatever the precision."""
    alone = {m: logits.float() for m, logits in output.modality_logits.items()}
    tasks = {name: (logits.float(), targets) for name, (logits, targets) in output.tasks.items()}
    return replace(output, logits=output.logits.float(), modality_logits=alone, tasks=tasks)


def explained(error: Exception, step: Step, plan: Plan, when: str = "") -> MerZooError:
    """Return an error with its place in the recipe and the part's name.

    Args:
        error: what was raised within `step`.
        step, plan: what ran.
        when: such as ", on two random dialogues".
    """
    place = step.culprit(error)
    if isinstance(error, MerZooError):
        return error if not place or str(error).startswith(f"{place}:") else MerZooError(f"{place}: {error}")
    text = registry.raised(error)
    kind, part = _part_at(plan, place)
    if not part:
        return MerZooError(f"the model fails{when}: {text}.")
    return MerZooError(
        f"{place}: {kind}/{part} fails here{when}: {text}. Do the stages before give what it takes? "
        f"`mer-zoo check {kind}/{part}` says whether the part itself is sound."
    )


def _part_at(plan: Plan, place: str) -> tuple[str, str]:
    if place.startswith("model."):
        stage = plan.model[place.removeprefix("model.")]
        return stage.kind, stage.part.name if stage.part else ""
    return place, {"balancing": plan.balancing.name, "loss": plan.loss.name}.get(place, "")
