"""The strongest modality wins, feature by feature."""

import torch
from torch import nn


class Peak(nn.Module):
    """Map every modality to one width and keep the largest value of each feature.

    Args:
        widths: modality -> width of its states (a fact, given by the library).
        out_width: width of the result.
    """

    def __init__(self, widths, *, out_width: int = 64):
        super().__init__()
        self.out_width = out_width
        self.maps = nn.ModuleDict({m: nn.Linear(width, out_width) for m, width in widths.items()})

    def forward(self, states, layout):
        """States by modality, each `[utterances, width]` -> `[utterances, out_width]`."""
        return torch.stack([layer(states[m]) for m, layer in self.maps.items()]).amax(0)
