"""Catching what a CUDA graph cannot hold: values read back to the host, and Python that branches on them.

A part runs on *fake* tensors, which have a shape and no values: whoever asks for a value, or makes a shape depend on
one, is caught in the act, with the line. Tensors made from Python numbers within forward are copies from the host,
which cannot be captured either.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils._python_dispatch import TorchDispatchMode

from mer_zoo.checking.examples import mapped, tensors
from mer_zoo.checking.part import Broken, where


class _Copied(Exception):
    """A tensor was made from Python numbers."""


class _NoCopies(TorchDispatchMode):
    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        if function is torch.ops.aten.lift_fresh.default:
            raise _Copied
        return function(*arguments, **(named or {}))


def watch_for_syncs(module: nn.Module, arguments: tuple[Any, ...]) -> None:
    """Run forward and backward on fake tensors; a value that is asked for is a fault with its line."""
    mode = FakeTensorMode()

    def fake(x: Tensor) -> Tensor:
        return mode.from_tensor(x.detach()).requires_grad_(x.requires_grad)

    state = {name: fake(value) for name, value in (*module.named_parameters(), *module.named_buffers())}
    arguments = mapped(arguments, fake)
    try:
        with mode:
            with _NoCopies():
                result = torch.func.functional_call(module, state, arguments)
            total = sum(y.sum() for _, y in tensors(result) if y.is_floating_point())
            if isinstance(total, Tensor) and total.requires_grad:
                total.backward()
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        operation = str(getattr(error, "func", error)).removeprefix("aten.").removesuffix(".default")
        reading = {"_local_scalar_dense": "a tensor's value is read on the host (item, tolist, bool, int, float or if)"}
        raise Broken(
            f"promised `capturable`, but {reading.get(operation, f'a shape depends on values ({operation})')}"
            f"{where(error)}. Use torch.where, masks and products with one-hots."
        ) from None
    except _Copied as error:
        raise Broken(
            f"promised `capturable`, but a tensor is made from Python numbers, a copy from the host{where(error)}. "
            "Make it once, in __init__, as a buffer; a list as an index is such a copy too."
        ) from None
    except (RuntimeError, TypeError, UnsupportedOperatorException) as error:
        if "numpy" in str(error) or "__array__" in str(error):
            raise Broken(f"promised `capturable`, but a tensor goes through numpy{where(error)}.") from None
        raise
