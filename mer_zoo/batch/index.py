"""Where the utterances of a batch lie: index tensors, the layout by dialogue, and shapes to pad to."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from mer_zoo.batch.rearranging import rearranged


@dataclass
class Layout:
    """Who speaks where: the structure of a batch, without its features.

    With N utterances, B dialogues, L utterances in the longest.

    Attributes:
        speaker: int64 `[N]`, numbered by first appearance in the dialogue.
        position: int64 `[N]`, turn within the dialogue, from 0.
        lengths: int64 `[B]`.
        rows: int64 `[B, L]`, utterance at a place of a dialogue; N where there is none.
        cells: int64 `[N]`, `dialogue * L + place`.
    """

    speaker: Tensor
    position: Tensor
    lengths: Tensor
    rows: Tensor
    cells: Tensor

    def pad(self, x: Tensor) -> Tensor:
        """Lay utterances out by dialogue: `[N, d]` → `[B, L, d]`, zeros where there is none."""
        return rearranged(x, self.rows.flatten(), self.cells).unflatten(0, self.rows.shape)

    def unpad(self, x: Tensor) -> Tensor:
        """The inverse of `pad`: `[B, L, d]` → `[N, d]`."""
        return rearranged(x.flatten(0, 1), self.cells, self.rows.flatten())

    def with_padding(self) -> Layout:
        """Return the layout in which padding is utterances too, of the first speaker: `[B * L]` of them.

        Example:
            >>> from mer_zoo.checking.small_data import tiny_batch
            >>> padded = tiny_batch().layout.with_padding()
            >>> padded.rows.shape, padded.speaker.shape, padded.lengths.tolist()
            (torch.Size([2, 7]), torch.Size([14]), [7, 7])
        """
        count, size = self.rows.shape
        rows = torch.arange(count * size, device=self.rows.device)
        speaker = self.pad(self.speaker.unsqueeze(-1)).flatten()
        return Layout(speaker, rows % size, torch.full_like(self.lengths, size), rows.view(count, size), rows)

    @cached_property
    def dialogue(self) -> Tensor:
        """Which dialogue of the batch an utterance belongs to, int64 `[N]`; B for rows that belong to none."""
        return self.cells // self.rows.shape[1]

    @cached_property
    def is_utterance(self) -> Tensor:
        """Whether a place of the padded layout holds an utterance, bool `[B, L]`."""
        return self.rows < self.cells.shape[0]


@dataclass(frozen=True)
class Shape:
    """How large a batch is, so that several batches can be padded to be alike.

    Attributes:
        dialogues, utterances: how many.
        longest: utterances of the longest dialogue.
        edges: view name -> edges, for kernels that list them.

    Example:
        >>> Shape(2, 9, 6, {}) | Shape(2, 8, 7, {})
        Shape(dialogues=2, utterances=9, longest=7, edges={})
    """

    dialogues: int = 0
    utterances: int = 0
    longest: int = 0
    edges: dict[str, int] = field(default_factory=dict)

    def __or__(self, other: Shape) -> Shape:
        """The smallest shape that holds both."""
        edges = {name: max(count, other.edges[name]) for name, count in self.edges.items()}
        dialogues, utterances = max(self.dialogues, other.dialogues), max(self.utterances, other.utterances)
        return Shape(dialogues, utterances, max(self.longest, other.longest), edges)


@dataclass
class BatchIndex:
    """Which dialogues are in a batch and where their utterances lie, as index tensors on the device.

    With N utterances, B dialogues, L utterances in the longest; a corpus has U utterances and D dialogues.

    Attributes:
        utterances: int64 `[N]`, rows of the corpus; U for padding.
        dialogues: int64 `[B]`, dialogue numbers in the corpus; D for padding.
        rows: int64 `[B, L]`, utterance of the batch at a place of a dialogue; N where there is none.
        cells: int64 `[N]`, the inverse: `dialogue * L + place`; `B * L` for padding.
        edges: view name -> kernel's own index tensors.
    """

    utterances: Tensor
    dialogues: Tensor
    rows: Tensor
    cells: Tensor
    edges: dict[str, dict[str, Tensor]]
