"""Numbers of published implementations (`tests/parity/*.npz`) as conversations and node states."""

from functools import cache
from pathlib import Path

import numpy as np
import torch

from mer_zoo.data.conversation import Conversation

FOLDER = Path(__file__).parent / "parity"


class Numbers:
    """One file: its weights, its dialogues, and states that several dialogues hold."""

    def __init__(self, name):
        self.arrays = np.load(FOLDER / f"{name}.npz")
        self.dialogues = sum(key.endswith(".label") for key in self.arrays.files)

    def __getitem__(self, key):
        return torch.from_numpy(self.arrays[key])

    def weights(self, prefix, names):
        """`{ours: theirs}` → our state dict."""
        return {ours: self[f"weight.{prefix}{theirs}"] for ours, theirs in names.items()}

    def conversations(self, features):
        """`features`: modality → published key."""
        roles = tuple(str(i) for i in range(10))
        return [
            Conversation(
                f"d{i}",
                tuple(str(s) for s in self.arrays[f"dialogue{i}.speaker"]),
                self.arrays[f"dialogue{i}.label"],
                {m: self.arrays[f"dialogue{i}.{key}"] for m, key in features.items()},
                roles=roles,
            )
            for i in range(self.dialogues)
        ]

    def states(self, key, blocks=1):
        """States of all dialogues, from modality blocks to one utterance after the other."""
        parts = [self[f"dialogue{i}.{key}"] for i in range(self.dialogues)]
        return torch.cat([part.unflatten(0, (blocks, -1)).transpose(0, 1).flatten(0, 1) for part in parts])


numbers = cache(Numbers)
