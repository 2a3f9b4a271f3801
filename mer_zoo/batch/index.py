"""Where the utterances of a batch lie: index tensors, the layout by dialogue, and shapes to pad to."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from mer_zoo.batch import launch_cost
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
        going: dialogues that have a turn, for every turn; None where what is computed must not depend on it.
        within: the layout without padding, where this one shows it.
    """

    speaker: Tensor
    position: Tensor
    lengths: Tensor
    rows: Tensor
    cells: Tensor
    going: tuple[int, ...] | None = None
    within: Layout | None = None

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
        position = torch.arange(size, device=self.rows.device).expand(count, size).flatten()
        speaker = self.pad(self.speaker.unsqueeze(-1)).flatten()
        full = torch.full_like(self.lengths, size)
        return Layout(speaker, position, full, rows.view(count, size), rows, within=self)

    @cached_property
    def dialogue(self) -> Tensor:
        """Which dialogue of the batch an utterance belongs to, int64 `[N]`; B for rows that belong to none."""
        return self.cells // self.rows.shape[1]

    @cached_property
    def is_utterance(self) -> Tensor:
        """Whether a place of the padded layout holds an utterance, bool `[B, L]`."""
        return self.rows < self.cells.shape[0]


@dataclass
class Turns:
    """Utterances in the order of a walk along their dialogues: turn by turn, the longest dialogue first.

    Attributes:
        sizes: dialogues that take part, for every turn.
        order: int64 `[B]`, the dialogues, the longest first.
        there: int64 `[rows]`, the utterance of each row of the walk; N where there is none.
        back: int64 `[N]`, the inverse.
    """

    sizes: tuple[int, ...]
    order: Tensor
    there: Tensor
    back: Tensor

    @classmethod
    def of(cls, index: Layout | BatchIndex, *, backwards: bool = False) -> Turns:
        """Return the walk along the dialogues of a batch, from the first turn or from the last.

        Where launches are cheap, dialogues that have ended are left behind; else all walk on to the end.

        Example:
            >>> from mer_zoo.checking.small_data import tiny_batch
            >>> Turns.of(tiny_batch().layout).sizes
            (2, 2, 2, 1, 1, 1, 1)
        """
        rows, total = index.rows, index.cells.shape[0]
        lengths = (rows < total).sum(1)
        order = torch.arange(rows.shape[0], device=rows.device)
        sizes = (rows.shape[0],) * rows.shape[1]
        if index.going is not None and not launch_cost.is_costly(rows.device):
            order, sizes = lengths.argsort(descending=True, stable=True), index.going
        rows = rows[order]
        if backwards:
            place, last = torch.arange(rows.shape[1], device=rows.device), lengths[order].unsqueeze(1) - 1
            rows = rows.gather(1, torch.where(place <= last, last - place, place))
        there = torch.cat([turn[:size] for turn, size in zip(rows.unbind(1), sizes, strict=False)])
        back = rows.new_full((total + 1,), len(there))
        back = back.scatter(0, there, torch.arange(len(there), device=rows.device))[:-1]
        return cls(sizes, order, there, back)

    def lay(self, x: Tensor) -> Tensor:
        """Bring utterances into the order of the walk: `[N, d]` → `[rows, d]`, zeros where there is none."""
        return rearranged(x, self.there, self.back)

    def unlay(self, x: Tensor) -> Tensor:
        """The inverse of `lay`: `[rows, d]` → `[N, d]`."""
        return rearranged(x, self.back, self.there)


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
        going: dialogues that have a turn, for every turn, known on the host; None for batches that are stacked, or
            copied into the place of others.
    """

    utterances: Tensor
    dialogues: Tensor
    rows: Tensor
    cells: Tensor
    edges: dict[str, dict[str, Tensor]]
    going: tuple[int, ...] | None = None

    def tensors(self) -> dict[str, Any]:
        """What makes an index of the same shape: all but `going`."""
        return {name: value for name, value in vars(self).items() if name != "going"}
