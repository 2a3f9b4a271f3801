"""A modality of a dataset made anew from its transcripts."""

from __future__ import annotations

import dataclasses
from typing import Any

from mer_zoo.data.conversation import Dataset
from mer_zoo.errors import MerZooError


def extract(dataset: Dataset, extractor: Any, name: str) -> Dataset:
    """Return the dataset with the extractor's features in place of (or beside) its modalities.

    Args:
        dataset: with transcripts.
        extractor: `utterances -> float32 [utt, out_width]`, with `modality` and `out_width`.
        name: what the provenance calls the extractor.

    Raises:
        MerZooError: a dialogue has no transcript.

    Example:
        >>> import numpy as np
        >>> from mer_zoo.data.conversation import Conversation
        >>> from mer_zoo.parts.extractor.hashed_words import HashedWords
        >>> dialogue = Conversation("d", ("A",), [0], {"audio": np.zeros((1, 3))}, transcript=("Hello there",))
        >>> data = Dataset("tiny", (dialogue,), ("calm",), {"all": ("d",)})
        >>> extract(data, HashedWords(out_width=8), "hashed_words").widths
        {'audio': 3, 'text': 8}
    """
    dialogues = []
    for dialogue in dataset:
        if dialogue.transcript is None:
            raise MerZooError(
                f"dataset '{dataset.name}', dialogue '{dialogue.id}': has no transcript to extract from. Import some."
            )
        features = {**dialogue.features, extractor.modality: extractor(dialogue.transcript)}
        present = {m: shown for m, shown in dialogue.present.items() if m != extractor.modality}
        dialogues.append(dataclasses.replace(dialogue, features=features, present=present))
    return dataclasses.replace(
        dataset,
        conversations=tuple(dialogues),
        provenance={**dataset.provenance, extractor.modality: f"extractor {name}"},
        warnings=tuple(w for w in dataset.warnings if f"The {extractor.modality} features" not in w),
        fingerprint="",
    )
