"""How large a model may become: counted while it is made, before its memory is used."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as hooks

from mer_zoo import registry
from mer_zoo.errors import MerZooError
from mer_zoo.model.model import Facts, Model
from mer_zoo.model.plan import Plan
from mer_zoo.registry.faults import short

SPARE = 1 << 24  # numbers in buffers that no file holds, such as tables of positions
OTHERS = 10  # modules without weights for one with weights, and a thousand more


class TooLarge(MerZooError):
    """A model that is larger than it may be."""


@contextmanager
def at_most(weights: int, modules: int) -> Iterator[None]:
    """Stop what makes modules in the block as soon as there are more.

    Args:
        weights: numbers in all parameters and buffers.
        modules: modules inside modules.

    Raises:
        TooLarge: there were more.

    Example:
        >>> with at_most(weights=5, modules=9):
        ...     nn.Linear(3, 2)
        Traceback (most recent call last):
        mer_zoo.model.budget.TooLarge: the model has more than 5 weights.
    """
    left = {"weights": weights, "modules": modules}

    def refuse() -> None:
        for what, count in (("weights", weights), ("modules", modules)):
            if left[what] < 0:
                raise TooLarge(f"the model has more than {count:,} {what}.") from None

    def spend(what: str, count: int) -> None:
        left[what] -= count
        refuse()

    def tensor(owner: nn.Module, name: str, made: Any) -> None:
        spend("weights", made.numel() if isinstance(made, torch.Tensor) else 0)

    held = [
        hooks.register_module_parameter_registration_hook(tensor),
        hooks.register_module_buffer_registration_hook(tensor),
        hooks.register_module_module_registration_hook(lambda owner, name, made: spend("modules", 1)),
    ]
    try:
        yield
    except Exception:  # who catches errors on the way may have reworded it
        refuse()
        raise
    finally:
        for one in held:
            one.remove()


def sketch(plan: Plan, facts: Facts, weights: int, tensors: int) -> Model | None:
    """Make a model without memory, on torch's `meta` device, and no further than a file's weights go.

    Args:
        plan, facts: what the file says of it.
        weights: numbers in the file.
        tensors: how many tensors hold them.

    Returns:
        the model; None where a part of someone else's must see its numbers.

    Raises:
        MerZooError: it is larger than the file, or cannot be made.
    """
    try:
        with at_most(weights + SPARE, OTHERS * tensors + 1000), torch.device("meta"):
            return Model(plan, facts)
    except TooLarge:
        raise MerZooError(f"the model is larger than the {weights:,} numbers there are for it.") from None
    except Exception as error:
        if all(registry.find(kind, part.name).target.startswith("mer_zoo.") for kind, part in plan.parts()):
            raise MerZooError(short(str(error))) from None
        return None


def size(plan: Plan, facts: Facts) -> int:
    """Return the bytes that a model's weights take, without making room for them; 0 where it cannot be told."""
    try:
        with torch.device("meta"):
            model = Model(plan, facts)
    except Exception:  # a part of someone's own that must see its numbers
        return 0
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())


def refuse_other_weights(plan: Plan, facts: Facts, shapes: Mapping[str, Sequence[int]]) -> None:
    """Refuse a plan whose model has other weights than a file, before room is made for any.

    Raises:
        MerZooError: weights that the file lacks, does not name, or has in another shape.
    """
    model = sketch(plan, facts, sum(math.prod(shape) for shape in shapes.values()), len(shapes))
    if model is None:
        return
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    have = {name: tuple(shape) for name, shape in shapes.items()}
    for name in sorted(wanted.keys() | have.keys()):
        if wanted.get(name) != have.get(name):
            raise MerZooError(f"'{short(name)}' has shape {have.get(name)}, and the model has {wanted.get(name)}.")
