"""A modality of a dataset made anew from its transcripts."""

from __future__ import annotations

import dataclasses
from typing import Any

from mer_zoo.data.conversation import Dataset
from mer_zoo.errors import MerZooError


def extract(dataset: Dataset, extractor: Any, name: str) -> Dataset:
    """Return the dataset with the extractor's features in place of (or beside) its modalities.

    Inputs:
        dataset: with transcripts.
        extractor: `utterances -> float32 [utt, out_width]`, with `modality` and `out_width`.
        name: what the provenance calls the extractor.

    Raises:
        MerZooError: a dialogue has no transcript.

    Example:
        >>> import numpy as np
        >>> from mer_zoo.data.conversation import Conversation
        >>> from mer_zoo.parts.extractor.hashed_words import HashedWords
        >>> talk = Conversation("d", ("A",), [0], {"audio": np.zeros((1, 3))}, transcript=("Hello there",))
        >>> data = Dataset("tiny", (talk,), ("calm",), {"all": ("d",)})
        >>> extract(data, HashedWords(out_width=8), "hashed_words").widths
        {'audio': 3, 'text': 8}
    """
    talks = []
    for talk in dataset:
        if talk.transcript is None:
            raise MerZooError(
                f"dataset '{dataset.name}', dialogue '{talk.id}': has no transcript to extract from. Import some."
            )
        features = {**talk.features, extractor.modality: extractor(talk.transcript)}
        present = {m: shown for m, shown in talk.present.items() if m != extractor.modality}
        talks.append(dataclasses.replace(talk, features=features, present=present))
    return dataclasses.replace(
        dataset,
        conversations=tuple(talks),
        provenance={**dataset.provenance, extractor.modality: f"extractor {name}"},
        warnings=tuple(w for w in dataset.warnings if f"The {extractor.modality} features" not in w),
        fingerprint="",
    )
