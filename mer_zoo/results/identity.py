"""The identity of a run: a hash of all that decides what comes out."""

from __future__ import annotations

import hashlib
import json
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, JsonValue

from mer_zoo.errors import MerZooError, nearest

Protocol = Literal["validation", "test-oracle"]
Precision = Literal["float32", "tf32", "bf16"]

COMPUTES = 2
"""Raised whenever the same recipe on the same data with the same seed gives other numbers than before."""


def protocol_of(name: str) -> Protocol:
    """Return a protocol by its name.

    Example:
        >>> protocol_of("valdation")
        Traceback (most recent call last):
        mer_zoo.errors.MerZooError: no protocol 'valdation'. Did you mean 'validation'?
    """
    for protocol in get_args(Protocol):
        if protocol == name:
            return protocol
    raise MerZooError(f"no protocol '{name}'.{nearest(name, get_args(Protocol))}")


class Identity(BaseModel):
    """What determines a run; two runs that differ in any of it are never taken for one another.

    Attributes:
        recipe: the plan in plain JSON values; the order of its keys does not matter.
        data: fingerprint of the dataset.
        seed: of the run.
        fold: number of the held-out fold; None where the dataset has a test split.
        protocol: how the epoch was chosen.
        split: what of the split rule differs from the default.
        precision: of the products.
        versions: `mer_zoo` -> `COMPUTES`, and `kind/name` -> version of each part of the recipe.

    Example:
        >>> one = Identity(recipe={"a": 1, "b": [2.5]}, data="f00d", seed=0)
        >>> one.run == Identity(recipe={"b": [2.5], "a": 1}, data="f00d", seed=0).run
        True
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    recipe: dict[str, JsonValue]
    data: str
    seed: int
    fold: int | None = None
    protocol: Protocol = "validation"
    split: dict[str, JsonValue] = {}
    precision: Precision = "float32"
    versions: dict[str, int] = {"mer_zoo": COMPUTES}

    @property
    def run(self) -> str:
        """16 hexadecimal digits of the sha256 of the canonical JSON.

        Raises:
            MerZooError: the recipe holds NaN or an infinite number.
        """
        try:
            text = json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        except ValueError as error:
            raise MerZooError(f"recipe: not plain JSON ({error}). Use finite numbers.") from None
        return hashlib.sha256(text.encode()).hexdigest()[:16]
