"""Parts that compute the same, such as those of several modalities, run as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mer_zoo.batch import launch_cost


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


def _alone(call: Call) -> list[Tensor]:
    return [call.part(call.x, *call.beside)]


def _as_one(calls: Sequence[Call]) -> Sequence[Tensor]:
    part = calls[0].part
    states = [_state(call.part) for call in calls]
    state = {name: torch.stack([each[name] for each in states]) for name in states[0]}
    x = torch.stack([call.x for call in calls])
    beside = [
        torch.stack(y) if isinstance(y[0], Tensor) else y[0] for y in zip(*(c.beside for c in calls), strict=True)
    ]

    def one(state: dict[str, Tensor], *arguments: Any) -> Tensor:
        return torch.func.functional_call(part, state, arguments)

    mapped = (0, 0, *(0 if isinstance(y, Tensor) else None for y in beside))
    return torch.func.vmap(one, mapped, randomness="different")(state, x, *beside).unbind()
