"""Held-out dialogues that also lie in train, whole or in part: what makes a score look better than it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mer_zoo.data.conversation import Conversation, Dataset

COPIES = 0.01  # share of copied test data that can move a score by a point
RUN = 3  # turns in a row; single sentences, and pairs of them, are said again by chance ("Hi." "Hey!")
SHORT = 3  # words of an utterance that is said all the time


@dataclass(frozen=True)
class Copies:
    """Held-out data that also occurs in train, feature for feature.

    Attributes:
        utterances: in runs of at least three turns that also follow each other in train.
        dialogues: copied whole.
        repeats: other single utterances that also occur in train.
        short: those among the repeats that have at most three words, where it is known what was said.
    """

    utterances: int
    dialogues: int
    repeats: int
    short: int


def copies_in(dataset: Dataset) -> dict[str, Copies]:
    """Return what is copied, by held-out split; of a single pool, what lies in two of its dialogues.

    Args:
        dataset: any dataset.

    Example:
        >>> features = {"audio": np.arange(12.0).reshape(4, 3)}
        >>> dialogues = [Conversation(name, "ABAB", [0] * 4, features) for name in "ab"]
        >>> copies_in(Dataset("twice", dialogues, ("calm",), {"train": ["a"], "test": ["b"]}))["test"]
        Copies(utterances=4, dialogues=1, repeats=0, short=0)
    """
    numbers: dict[bytes, int] = {}
    rows = {dialogue.id: _numbered(dialogue, dataset, numbers) for dialogue in dataset}
    found = {}
    for split, held_out in dataset.splits.items():
        seen = _Seen()
        for name in dataset.splits.get("train", ()):
            seen.add(rows[name])
        if split == "train" or not held_out or not (dataset.splits.get("train") or split == "all"):
            continue
        counts = np.zeros(4, dtype=np.int64)
        for name in held_out:
            counts += seen.count(dataset[name], rows[name])
            if split == "all":  # any of its dialogues may be trained on when another is the test
                seen.add(rows[name])
        found[split] = Copies(*counts.tolist())
    return found


def copy_warnings(dataset: Dataset, copies: dict[str, Copies]) -> Iterator[str]:
    """Tell of copies that raise a score.

    Args:
        dataset: that they are in.
        copies: as `copies_in` returns them.
    """
    for split, copy in copies.items():
        dialogues = dataset.select(dataset.splits[split])
        utterances = sum(map(len, dialogues))
        if copy.utterances > COPIES * utterances or copy.dialogues > COPIES * len(dialogues):
            of, where = (" ", "occur twice") if split == "all" else (f" {split} ", "also occur in train")
            yield (
                f"{copy.utterances:,} of the {utterances:,}{of}utterances ({copy.dialogues:,} whole dialogues) {where} "
                f"in the same order, feature for feature:{of}scores are too high."
            )


def copy_notes(copies: dict[str, Copies]) -> Iterator[str]:
    """Tell of single utterances that are said again; no warning, for people repeat themselves.

    Args:
        copies: as `copies_in` returns them.
    """
    for split, copy in copies.items():
        if copy.repeats:
            where = "twice" if split == "all" else "in train too"
            short = f", {copy.short:,} of them of at most {SHORT} words" if copy.short else ""
            yield f"{copy.repeats:,} single utterances of {split} occur {where}, feature for feature{short}."


class _Seen:
    """Utterances, and runs of them, that were seen in some dialogues."""

    def __init__(self) -> None:
        self.single: set[int] = set()
        self.runs: set[tuple[int, ...]] = set()

    def add(self, rows: Sequence[int]) -> None:
        """See a dialogue."""
        self.single.update(rows)
        self.runs.update(_runs(rows))

    def count(self, dialogue: Conversation, rows: Sequence[int]) -> np.ndarray:
        """Return the four numbers of `Copies` for a dialogue."""
        copied = np.zeros(len(rows), dtype=bool)
        for start, run in enumerate(_runs(rows)):
            if run in self.runs:
                copied[start : start + RUN] = True
        repeats = [i for i, row in enumerate(rows) if row in self.single and not copied[i]]
        said = dialogue.transcript
        short = 0 if said is None else sum(len(said[i].split()) <= SHORT for i in repeats)
        return np.array([copied.sum(), copied.all(), len(repeats), short], dtype=np.int64)


def _numbered(dialogue: Conversation, dataset: Dataset, numbers: dict[bytes, int]) -> list[int]:
    """Return a number per utterance, equal where all features are; nothing at all equals nothing."""
    joined = np.concatenate([dialogue.values(m) for m in dataset.widths], axis=1)
    rows = []
    for row in joined:
        key = row.tobytes() if row.any() else f"nothing {len(numbers)}".encode()
        rows.append(numbers.setdefault(key, len(numbers)))
    return rows


def _runs(rows: Sequence[int]) -> Iterator[tuple[int, ...]]:
    return zip(*(rows[start:] for start in range(RUN)), strict=False)
