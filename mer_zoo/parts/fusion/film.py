"""Feature-wise linear modulation by one modality."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.fusion.widths import at_least_two, equal_width, named_modality


class FiLM(nn.Module):
    r"""Let one modality g scale and shift the features of the others (Perez et al. 2018, eq. 2; the form of OGM-GE).

    $$y = W_o\Big(\gamma \odot \sum_{m \ne g} x_m + \beta\Big) + b_o,\qquad [\gamma; \beta] = W x_g + b$$

    Inputs:
        states: modality -> float `[N, width]`; layout: unused.
    Outputs:
        float `[N, out_width]`.

    Args:
        widths: modality -> width, equal but for g (a fact).
        condition: g, the modality that modulates; null: the first.
        out_width: width of the result.

    Raises:
        MerZooError: one modality alone, no modality of that name, or the widths of the others differ.

    Example:
        >>> import torch
        >>> states = {"text": torch.ones(4, 2), "audio": torch.ones(4, 3)}
        >>> FiLM({"text": 2, "audio": 3}, out_width=5)(states, None).shape
        torch.Size([4, 5])
    """

    def __init__(self, widths: Mapping[str, int], *, condition: str | None = None, out_width: int = 128) -> None:
        super().__init__()
        at_least_two(widths)
        self.out_width = out_width
        self.condition = named_modality(condition or next(iter(widths)), widths, "condition")
        self.others = tuple(m for m in widths if m != self.condition)
        width = equal_width({m: widths[m] for m in self.others}, "added and modulated")
        self.modulation = nn.Linear(widths[self.condition], 2 * width)
        self.out = nn.Linear(width, out_width)

    def forward(self, states: Mapping[str, Tensor], layout: Layout | None) -> Tensor:
        """Modulate."""
        scale, shift = self.modulation(states[self.condition]).chunk(2, -1)
        first, *others = (states[m] for m in self.others)
        for other in others:
            first = first + other
        return self.out(scale * first + shift)
