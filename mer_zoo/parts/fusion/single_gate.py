"""One modality gates the others."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from mer_zoo.batch.index import Layout
from mer_zoo.parts.fusion.widths import at_least_two, named_modality


class SingleGate(nn.Module):
    r"""Let one modality g open and close the features of the others (Kiela et al. 2018; the gated fusion of OGM-GE).

    $$y = W_o\Big(\sigma(h_g) \odot \sum_{m \ne g} h_m\Big) + b_o,\qquad h_m = W_m x_m + b_m$$

    Inputs:
        states: modality -> float `[N, width]`; layout: unused.
    Outputs:
        float `[N, out_width]`.

    Args:
        widths: modality -> width (a fact).
        gate: the modality that gates; null: the first.
        hidden: width at the gate.
        out_width: width of the result.

    Raises:
        MerZooError: one modality alone, or no modality of that name.

    Example:
        >>> import torch
        >>> states = {"text": torch.ones(4, 2), "audio": torch.ones(4, 3)}
        >>> SingleGate({"text": 2, "audio": 3}, gate="audio", out_width=5)(states, None).shape
        torch.Size([4, 5])
    """

    def __init__(
        self, widths: Mapping[str, int], *, gate: str | None = None, hidden: int = 128, out_width: int = 128
    ) -> None:
        super().__init__()
        at_least_two(widths)
        self.out_width = out_width
        self.gate = named_modality(gate or next(iter(widths)), widths, "gate")
        self.maps = nn.ModuleDict({m: nn.Linear(width, hidden) for m, width in widths.items()})
        self.out = nn.Linear(hidden, out_width)

    def forward(self, states: Mapping[str, Tensor], layout: Layout | None) -> Tensor:
        """Gate."""
        first, *others = (layer(states[m]) for m, layer in self.maps.items() if m != self.gate)
        for other in others:
            first = first + other
        return self.out(self.maps[self.gate](states[self.gate]).sigmoid() * first)
