"""How much differential attention takes off with its second map, read after every epoch."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, nn

from mer_zoo.model.model import Model


class Lambdas(nn.Module):
    """Reads lambda of every module of a model that has a method `lambdas`, mean over its heads.

    A module, so that weights of another seed can be put in the place of the model's own.

    Outputs:
        float `[places]`.

    Args:
        model: whose lambdas.

    Attributes:
        places: stage, node types of its part, and module within, as attention maps name them.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self._modules_of = {
            ", ".join(word for word in (name, "+".join(group), place) if word): module
            for name, stage in model.named_stages()
            for key, group in stage.groups.items()
            for place, module in stage.parts[key].named_modules()
            if inspect.ismethod(getattr(module, "lambdas", None))
        }
        self.places = tuple(self._modules_of)

    def forward(self) -> Tensor:
        """Read."""
        return torch.stack([module.lambdas().mean() for module in self._modules_of.values()])
