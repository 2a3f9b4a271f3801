"""Words of the transcript, hashed to a vector of fixed width."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class HashedWords:
    r"""Count words and word groups by hash (Weinberger et al. 2009, eq. 3), scaled to length one.

    $$\phi_i(u) = \sum_{w \in u:\,h(w) = i} \xi(w),\qquad \xi(w) \in \{-1, 1\}$$

    Nothing is fitted, so no label and no test utterance can leak into the features.

    Inputs:
        utterances: transcripts of a dialogue, str.
    Outputs:
        float32 `[utt, out_width]`.

    Args:
        out_width: width of the features.
        words: longest group of neighbouring words that is counted.

    Example:
        >>> HashedWords(out_width=16)(["I am so happy!", ""]).shape
        (2, 16)
    """

    modality = "text"

    def __init__(self, *, out_width: int = 512, words: int = 2) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        self.out_width = out_width
        self._count = HashingVectorizer(n_features=out_width, ngram_range=(1, words))

    def __call__(self, utterances: Sequence[str]) -> np.ndarray:
        """Extract."""
        return self._count.transform(utterances).toarray().astype(np.float32)
