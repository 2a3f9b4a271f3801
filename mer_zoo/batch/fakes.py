"""Running on *fake* tensors, which have a shape and no values: what a GPU, or a CUDA graph, cannot do fails there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = "meta"
"""Stands for a GPU where there is none: a device of its own, whose tensors have no values."""

FROM_THE_HOST = (torch.tensor, torch.as_tensor, torch.from_numpy, Tensor.new_tensor)


class Forbidden(Exception):
    """An operation that is watched for took place."""


class Watch(TorchDispatchMode):
    """Raise where an operation takes place, so that the traceback shows the line.

    Args:
        operations: what is watched for.
    """

    def __init__(self, *operations: Any) -> None:
        super().__init__()
        self.operations = operations

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        if function in self.operations:
            raise Forbidden
        return function(*arguments, **(named or {}))


@contextmanager
def on_the_device() -> Iterator[None]:
    """Refuse whatever touches the memory of the processor: for what computes on `DEVICE`, as if that were a GPU.

    Raises:
        Forbidden: a tensor of the processor takes part or is made, or one of the device is made from Python numbers.
        Exception: torch's own, where a value is read or a shape depends on one.

    Example:
        >>> x = torch.ones(3, device=DEVICE)
        >>> with on_the_device():
        ...     y = x + torch.arange(3, device=x.device)
        >>> with on_the_device():
        ...     y = x + torch.arange(3)
        Traceback (most recent call last):
        mer_zoo.batch.fakes.Forbidden: aten.arange.default on the processor
        >>> with on_the_device():
        ...     y = x[[0, 2]]
        Traceback (most recent call last):
        mer_zoo.batch.fakes.Forbidden: a list or array as an index
    """
    with _Operations(), _Sources():
        yield


class _Operations(TorchDispatchMode):
    """Raise where an operation takes or makes a tensor of the processor."""

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        result = function(*arguments, **(named or {}))
        taken = [x for x in pytree.tree_leaves((arguments, named)) if isinstance(x, Tensor)]
        made = [x for x in pytree.tree_leaves(result) if isinstance(x, Tensor)]
        if function is torch.ops.aten._to_copy.default and not taken:
            # a Python number beside a number of a stack: vmap gives it the other's type; kernels take it as a number
            made[0].is_number = True  # type: ignore[attr-defined]
        if any(x.device.type == "cpu" and not hasattr(x, "is_number") for x in (*taken, *made)):
            raise Forbidden(f"{function} on the processor")
        return result


class _Sources(TorchFunctionMode):
    """Raise where Python numbers or arrays become a tensor, which cannot be seen once they are one."""

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        if function in FROM_THE_HOST:
            raise Forbidden(f"{function.__name__}")
        if function in (Tensor.__getitem__, Tensor.__setitem__) and _on_the_host(arguments[1]):
            raise Forbidden("a list or array as an index")
        return function(*arguments, **(named or {}))


def _on_the_host(index: Any) -> bool:
    return any(isinstance(x, (list, np.ndarray)) for x in (index if isinstance(index, tuple) else (index,)))


def run(module: nn.Module, arguments: Any, mapped: Callable[[Any, Any], Any] | None = None) -> None:
    """Run forward and backward, on fake tensors of the processor and of a device of their own.

    An operation that asks for a value, copies one from the host, or mixes devices, raises.

    Args:
        module: what runs; it stays as it is.
        arguments: of its forward, a tuple.
        mapped: replaces every tensor in the arguments by what a function makes of it; by default within tuples, lists
            and mappings.

    Raises:
        Forbidden: a tensor is made from Python numbers, or elsewhere than on the device of the arguments.
        Exception: torch's own, where a value is read or a shape depends on one.

    Example:
        >>> run(nn.Linear(2, 3), (torch.ones(4, 2),))
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)  # what a part keeps beside its weights is seen to on the device
    watch = Watch(torch.ops.aten.lift_fresh.default)
    _there_and_back(module, arguments, mapped or _mapped, mode.from_tensor, mode, watch)
    _there_and_back(module, arguments, mapped or _mapped, lambda x: x.to(DEVICE), on_the_device())


def _there_and_back(
    module: nn.Module,
    arguments: Any,
    mapped: Callable[[Any, Any], Any],
    faked: Callable[[Tensor], Tensor],
    *watching: AbstractContextManager[Any],
) -> None:
    def fake(x: Any) -> Any:
        return faked(x.detach()).requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x

    state = {name: fake(value) for name, value in (*module.named_parameters(), *module.named_buffers())}
    arguments = mapped(arguments, fake)
    with ExitStack() as contexts:
        for context in watching:
            contexts.enter_context(context)
        result = torch.func.functional_call(module, state, arguments)
        outputs = [y for y in pytree.tree_leaves(result) if isinstance(y, Tensor) and y.is_floating_point()]
        total = sum(y.sum() for y in outputs)
        if isinstance(total, Tensor) and total.requires_grad:
            total.backward()


def _mapped(arguments: Any, function: Any) -> Any:
    return pytree.tree_map(function, arguments)
