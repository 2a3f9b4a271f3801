"""A run that left no result, as comparisons tell of it; apart, for what trains needs none of their statistics."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Broken:
    """A run that left no result.

    Attributes:
        model: the recipe's name.
        seed: of the run.
        data: fingerprint of its dataset.
        why: in one or a few lines.
    """

    model: str
    seed: int
    data: str
    why: str

    @property
    def told(self) -> str:
        """Which run, and why; some reasons name the run themselves.

        Example:
            >>> Broken("A", 0, "f00d", "no memory.").told, Broken("A", 0, "f00d", "A, seed 0, epoch 3: nan.").told
            ('A, seed 0: no memory.', 'A, seed 0, epoch 3: nan.')
        """
        place = f"{self.model}, seed {self.seed}"
        return self.why if self.why.startswith(place) else f"{place}: {self.why}"
