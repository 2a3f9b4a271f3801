"""Catching what a CUDA graph cannot hold: values read back to the host, and Python that branches on them.

A part runs on *fake* tensors, which have a shape and no values: whoever asks for a value, or makes a shape depend on
one, is caught in the act, with the line. Tensors made from Python numbers within forward are copies from the host,
which cannot be captured either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)

from mer_zoo.batch import fakes
from mer_zoo.batch.fakes import Forbidden, Watch
from mer_zoo.checking.examples import mapped
from mer_zoo.checking.part import where

READ = "a tensor's value is read on the host (item, tolist, bool, int, float or if)"


def find_sync(module: nn.Module, arguments: tuple[Any, ...]) -> str | None:
    """Run forward and backward on fake tensors; return where a value is asked for, or None."""
    try:
        fakes.run(module, arguments, mapped)
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        operation = str(getattr(error, "func", error)).removeprefix("aten.").removesuffix(".default")
        what = READ if operation == "_local_scalar_dense" else f"a shape depends on values ({operation})"
        return f"promised `capturable`, but {what}{where(error)}. Use torch.where, masks and products with one-hots."
    except Forbidden as error:
        what = f"a tensor is made from Python numbers or on the processor, a copy from the host{where(error)}"
        return (
            f"promised `capturable`, but {what}. Make it once, in __init__, as a buffer, or with `device=x.device`; "
            "a list as an index is such a copy too."
        )
    except (RuntimeError, TypeError, UnsupportedOperatorException) as error:
        if "numpy" in str(error) or "__array__" in str(error):
            return f"promised `capturable`, but a tensor goes through numpy{where(error)}."
        raise
    return None


def find_read(act: Callable[[], object]) -> str | None:
    """Run on real tensors; return where a value is read back to the host, or None."""
    try:
        with Watch(torch.ops.aten._local_scalar_dense.default):
            act()
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, Forbidden):
            cause = cause.__cause__
        if cause is None:
            raise
        return f"{READ}{where(cause)}"
    return None
