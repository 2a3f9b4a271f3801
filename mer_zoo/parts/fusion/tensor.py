"""Tensor fusion."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.errors import MerZooError
from mer_zoo.parts.fusion.widths import per_modality

LARGEST = 2**18


class TensorFusion(nn.Module):
    r"""Multiply every feature of each modality with those of all others (TFN; Zadeh et al. 2017).

    $$z_m = [1; W_m x_m + b_m],\qquad
      y = \mathrm{relu}(W_2\,\mathrm{relu}(W_1 \mathrm{vec}(z_1 \otimes z_2 \otimes \dots) + b_1) + b_2)$$

    The ones keep the products of fewer modalities, down to each alone.

    Inputs:
        states: modality -> float `[N, width]`; layout: unused.
    Outputs:
        float `[N, out_width]`.

    Args:
        widths: modality -> width (a fact).
        hidden: width each modality is mapped to before the product; one for all, or modality -> width.
        inner: width of the layer behind the product.
        out_width: width of the result.
        dropout: probability on the product.

    Raises:
        MerZooError: the product has more than 262,144 entries.

    Example:
        >>> import torch
        >>> states = {"text": torch.ones(4, 2), "audio": torch.ones(4, 3)}
        >>> TensorFusion({"text": 2, "audio": 3}, hidden=4, out_width=5)(states, None).shape
        torch.Size([4, 5])
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        *,
        hidden: int | dict[str, int] = 16,
        inner: int = 128,
        out_width: int = 128,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        inside = per_modality(hidden, widths, "hidden")
        size = math.prod(width + 1 for width in inside.values())
        if size > LARGEST:
            raise MerZooError(
                f"the product of {' x '.join(str(w + 1) for w in inside.values())} features has {size:,} entries, "
                f"more than {LARGEST:,}. Make `hidden` smaller, or use `fusion: low_rank`."
            )
        self.out_width = out_width
        self.maps = nn.ModuleDict({m: nn.Linear(width, inside[m]) for m, width in widths.items()})
        self.first, self.last = nn.Linear(size, inner), nn.Linear(inner, out_width)
        self.drop = nn.Dropout(dropout)

    def product(self, states: Mapping[str, Tensor]) -> Tensor:
        """Return the outer product of the modalities, flattened, the last modality fastest: `[N, entries]`."""
        first, *others = (F.pad(layer(states[m]), (1, 0), value=1.0) for m, layer in self.maps.items())
        for other in others:
            first = (first.unsqueeze(-1) * other.unsqueeze(-2)).flatten(-2)
        return first

    def forward(self, states: Mapping[str, Tensor], layout: Layout | None) -> Tensor:
        """Multiply and map."""
        return self.last(self.first(self.drop(self.product(states))).relu()).relu()
