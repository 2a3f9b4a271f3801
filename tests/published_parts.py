"""Weights and gradients that published parts had, by prefix, and their way into ours."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parent / "parity"
LOGITS = {"rtol": 1e-5, "atol": 1e-5}
GRADIENTS = {"rtol": 1e-4, "atol": 1e-6}


class Published(dict[str, Tensor]):
    """A file's arrays by name."""

    def __init__(self, name: str) -> None:
        with np.load(FOLDER / f"{name}.npz") as archive:
            super().__init__({key: torch.from_numpy(archive[key]) for key in archive if key != "meta"})

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(f"{prefix}."): value for key, value in self.items() if key.startswith(f"{prefix}.")}


def load_weights(module: nn.Module, weights: dict[str, Tensor], names: dict[str, str]) -> None:
    """Give a module published weights; `names`: start of our name -> start of theirs."""
    module.load_state_dict({name: weights[translate(name, names)] for name in module.state_dict()})


def translate(name: str, names: dict[str, str]) -> str:
    ours = next(start for start in names if name == start or name.startswith(f"{start}."))
    return names[ours] + name.removeprefix(ours)


def same_gradients(module: nn.Module, gradients: dict[str, Tensor], names: dict[str, str]) -> None:
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[translate(name, names)], **GRADIENTS)
