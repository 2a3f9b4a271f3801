"""Random dialogues of the sizes that published numbers were measured on: speed needs the shape, not the content."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mer_zoo.data.conversation import Conversation, Dataset
from mer_zoo.data.splits import Split
from mer_zoo.training.experiment import prepare
from mer_zoo.training.task import Task


@dataclass(frozen=True)
class Shape:
    """Dialogues and utterances of the training and the test split, the longest dialogue, widths, speakers, classes."""

    name: str
    train: tuple[int, int]
    test: tuple[int, int]
    longest: int
    widths: dict[str, int]
    speakers: int
    classes: int


IEMOCAP = Shape("iemocap", (120, 5810), (31, 1623), 110, {"text": 1024, "audio": 1582, "visual": 342}, 2, 6)
MELD = Shape("meld", (1152, 11098), (280, 2610), 33, {"text": 1024, "audio": 300, "visual": 342}, 9, 7)
SMALL = Shape("small", (12, 200), (4, 60), 30, {"text": 24, "audio": 16, "visual": 8}, 2, 6)
SHAPES = {shape.name: shape for shape in (IEMOCAP, MELD, SMALL)}


def lengths(dialogues: int, utterances: int, longest: int, draw: np.random.Generator) -> np.ndarray:
    """Lengths that add up: gamma-distributed about the mean, none above `longest`, one equal to it."""
    found = np.clip(draw.gamma(6, utterances / dialogues / 6, dialogues).round().astype(int), 1, longest)
    found[0] = longest
    while (gap := utterances - int(found.sum())) != 0:
        movable = 1 + np.flatnonzero((found[1:] < longest) if gap > 0 else (found[1:] > 1))
        chosen = draw.choice(movable, min(abs(gap), len(movable)), replace=False)
        found[chosen] += np.sign(gap)
    return found


def dataset(shape: Shape, seed: int = 0) -> Dataset:
    """Return random dialogues of a shape; the test split serves as validation split too."""
    draw = np.random.default_rng(seed)
    dialogues, splits = [], {}
    for split in ("train", "test"):
        counts = lengths(*getattr(shape, split), shape.longest, draw)
        splits[split] = tuple(f"{split}{i}" for i in range(len(counts)))
        for name, count in zip(splits[split], counts, strict=True):
            cast = 2 if shape.speakers == 2 else int(draw.integers(1, shape.speakers + 1))
            features = {m: draw.standard_normal((count, w), np.float32) for m, w in shape.widths.items()}
            speakers = tuple(f"s{i}" for i in draw.integers(0, cast, count))
            dialogues.append(Conversation(name, speakers, draw.integers(0, shape.classes, count), features))
    return Dataset(shape.name, dialogues, tuple(f"c{i}" for i in range(shape.classes)), splits)


def task(recipe: str, shape: Shape, device: str = "cpu", **change: object) -> Task:
    """Return a recipe ready to train on dialogues of a shape; `change` as `training__epochs=3`."""
    data = dataset(shape)
    keep = {key.replace("__", "."): value for key, value in change.items()}
    if "/" in recipe:  # made for the widths of its data
        keep.setdefault("modalities", dict(shape.widths))
    split = Split(data.splits["train"], data.splits["test"], data.splits["test"])
    return Task(recipe, prepare(recipe, data, changes=keep).plan, data, split, device=device)
