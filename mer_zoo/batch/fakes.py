"""Running a module on *fake* tensors, which have a shape and no values: what a CUDA graph cannot hold fails there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


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


def run(module: nn.Module, arguments: Any, mapped: Callable[[Any, Any], Any] | None = None) -> None:
    """Run forward and backward; an operation that asks for a value, or copies one from the host, raises.

    Args:
        module: what runs; it stays as it is.
        arguments: of its forward, a tuple.
        mapped: replaces every tensor in the arguments by what a function makes of it; by default within tuples, lists
            and mappings.

    Raises:
        Forbidden: a tensor is made from Python numbers.
        Exception: torch's own, where a value is read or a shape depends on one.

    Example:
        >>> run(nn.Linear(2, 3), (torch.ones(4, 2),))
    """
    mode = FakeTensorMode()

    def fake(x: Any) -> Any:
        return mode.from_tensor(x.detach()).requires_grad_(x.requires_grad) if isinstance(x, Tensor) else x

    state = {name: fake(value) for name, value in (*module.named_parameters(), *module.named_buffers())}
    arguments = (mapped or _mapped)(arguments, fake)
    with mode:
        with Watch(torch.ops.aten.lift_fresh.default):
            result = torch.func.functional_call(module, state, arguments)
        outputs = [y for y in pytree.tree_leaves(result) if isinstance(y, Tensor) and y.is_floating_point()]
        total = sum(y.sum() for y in outputs)
        if isinstance(total, Tensor) and total.requires_grad:
            total.backward()


def _mapped(arguments: Any, function: Any) -> Any:
    return pytree.tree_map(function, arguments)
