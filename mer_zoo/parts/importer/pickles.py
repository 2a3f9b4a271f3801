"""What the importers of the field's pickles share; each of them is a layout."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, ClassVar

from mer_zoo.data.conversation import Dataset
from mer_zoo.data.pickles import MELD_SPEAKERS, PickleLayout, import_pickle

IEMOCAP = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
MELD = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
MMGCN = ("ids", "speakers", "labels", "text", "audio", "visual", "transcript", "train", "test")
SDT = (*MMGCN[:4], "text2", "text3", "text4", *MMGCN[4:])
AUDIO_VISUAL = {"audio": "openSMILE", "visual": "DenseNet faces"}


class PickleImporter:
    """A pickle of the field, read without running what it asks for."""

    layout: ClassVar[PickleLayout]
    """What the pickle holds."""

    reads = ("a pickle",)

    def __call__(self, path: Path) -> Dataset:
        """Read a file."""
        return import_pickle(path, self.layout)

    def example(self, folder: Path) -> Path:
        """Write a small file."""
        ids, count = ("d0", "d1"), 2
        speaker: Any = [1] + [0] * (MELD_SPEAKERS - 1) if self.layout.one_hot_speakers else "M"
        parts: dict[str, Any] = {"speakers": [speaker] * count, "transcript": ["Yes.", "No."]}
        parts |= {"labels": [0, 1], "sentiment": [0, 1]}
        parts |= {m: [[float(i)] * width for i in range(count)] for m, width in self.layout.widths.items()}
        whole = {"train": ["d0"], "test": ["d1"]}
        content = tuple(whole.get(p) or {each: parts.get(p, [""] * count) for each in ids} for p in self.layout.parts)
        path = folder / "example.pkl"
        path.write_bytes(pickle.dumps(content))
        return path
