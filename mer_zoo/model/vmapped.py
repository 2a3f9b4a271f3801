"""Parts that compute the same, such as those of several modalities, run as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mer_zoo.batch import launch_cost
from mer_zoo.parts.ops.scan import stacking


class Call(NamedTuple):
    """A part and what it is called with: states, and tensors or structures beside them."""

    part: nn.Module
    x: Tensor
    beside: tuple[Any, ...]


def run(calls: Sequence[Call], stackable: bool) -> list[Tensor]:
    """Return what parts of one card and equal settings make of their arguments.

    Where launches are costly, parts with weights and states of equal shapes in the same surroundings are one program:
    the first part, mapped over the weights of all by `torch.func.vmap`.

    Args:
        calls: parts with their arguments.
        stackable: whether the parts can be mapped.

    Example:
        >>> twins = nn.Linear(3, 2), nn.Linear(3, 2)
        >>> [y.shape for y in run([Call(part, torch.ones(5, 3), ()) for part in twins], stackable=True)]
        [torch.Size([5, 2]), torch.Size([5, 2])]
    """
    results: dict[int, Tensor] = {}
    alike: dict[Any, list[int]] = {}
    for number, call in enumerate(calls):
        costly = stackable and launch_cost.is_costly(call.x.device)
        together = costly and _is_torch(call) and not remembers(call.part) and not _is_fused(call.part)
        alike.setdefault(_form(call) if together else number, []).append(number)
    for numbers in alike.values():
        several = [calls[number] for number in numbers]
        results.update(zip(numbers, _as_one(several) if len(several) > 1 else _alone(several[0]), strict=True))
    return [results[number] for number in range(len(calls))]


def _is_torch(call: Call) -> bool:
    """Whether the call is made of torch's own operations, which `torch.func.vmap` knows."""
    return not any(getattr(y, "foreign", False) for y in call.beside)


def _is_fused(part: nn.Module) -> bool:
    """Whether a part holds a recurrent layer of torch, few launches for all turns, which mapped are many for each."""
    return any(isinstance(module, nn.RNNBase) for module in part.modules())


def can_be_mapped(part: nn.Module) -> bool:
    """Whether a part holds no batch norm of torch, which cannot be mapped over its statistics."""
    return not any(isinstance(module, _BatchNorm) for module in part.modules())


def remembers(part: nn.Module) -> bool:
    """Whether a part keeps more than its weights, such as running means: changes of a stacked copy would be lost."""
    return not part.state_dict().keys() <= dict(part.named_parameters()).keys()


def _form(call: Call) -> Any:
    """What calls have in common that can be one."""
    state = tuple((name, value.shape) for name, value in _state(call.part).items())
    return state, call.x.shape, tuple(y.shape if isinstance(y, Tensor) else id(y) for y in call.beside)


def _state(part: nn.Module) -> dict[str, Tensor]:
    return {**dict(part.named_parameters()), **dict(part.named_buffers())}


def lay_side_by_side(parts: Sequence[nn.Module]) -> None:
    """Move the weights of parts that may become one next to one another in memory, where they are one already.

    They stay the weights that they were, for optimisers, files and whoever else holds them. Where that is no longer so,
    since somebody gave a part other memory, `run` stacks them again.

    Args:
        parts: of one card, in the order in which they run.

    Example:
        >>> twins = nn.Linear(3, 2), nn.Linear(3, 2)
        >>> lay_side_by_side(twins)
        >>> twins[1].weight.storage_offset() - twins[0].weight.storage_offset()
        6
    """
    alike: dict[Any, list[nn.Module]] = {}
    for part in parts:
        if not remembers(part) and not _is_fused(part):
            alike.setdefault(tuple((name, x.shape, x.dtype) for name, x in _state(part).items()), []).append(part)
    for several in (several for several in alike.values() if len(several) > 1):
        for kept in zip(*(_state(part).values() for part in several), strict=True):
            for x, place in zip(kept, torch.stack([x.detach() for x in kept]), strict=True):
                x.data = place


def _joined(weights: Sequence[Tensor]) -> Tensor:
    """Return weights of equal shapes as one tensor, without moving them where they lie side by side."""
    if torch.compiler.is_compiling() or stacking() or not _lie_side_by_side(weights):
        return torch.stack(list(weights))
    joined: Tensor = _SideBySide.apply(*weights)
    return joined


def _lie_side_by_side(weights: Sequence[Tensor]) -> bool:
    first = weights[0]
    begins = [x.storage_offset() for x in weights]
    evenly = begins == list(range(begins[0], begins[0] + first.numel() * len(weights), max(first.numel(), 1)))
    memory = {(x.untyped_storage().data_ptr(), x.dtype, x.stride()) for x in weights}
    return evenly and first.is_contiguous() and len(memory) == 1 and first.untyped_storage().data_ptr() != 0


class _SideBySide(torch.autograd.Function):
    """Reads weights that lie side by side as one; each gets its layer of the gradient."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> Tensor:
        first = weights[0]
        return first.as_strided((len(weights), *first.shape), (first.numel(), *first.stride()))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return gradient.unbind()


def _alone(call: Call) -> list[Tensor]:
    return [call.part(call.x, *call.beside)]


def _as_one(calls: Sequence[Call]) -> Sequence[Tensor]:
    part = calls[0].part
    states = [_state(call.part) for call in calls]
    state = {name: _joined([each[name] for each in states]) for name in states[0]}
    x = torch.stack([call.x for call in calls])
    beside = [
        torch.stack(y) if isinstance(y[0], Tensor) else y[0] for y in zip(*(c.beside for c in calls), strict=True)
    ]

    def one(state: dict[str, Tensor], *arguments: Any) -> Tensor:
        return torch.func.functional_call(part, state, arguments)

    mapped = (0, 0, *(0 if isinstance(y, Tensor) else None for y in beside))
    return torch.func.vmap(one, mapped, randomness="different")(state, x, *beside).unbind()
