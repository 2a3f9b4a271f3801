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
        out_width: width of the features, from 1 to 1,000,000.
        words: longest group of neighbouring words that is counted, from 1 to 10.

    Raises:
        ValueError: a width or a group outside these bounds.

    Example:
        >>> HashedWords(out_width=16)(["I am so happy!", ""]).shape
        (2, 16)
    """

    modality = "text"

    def __init__(self, *, out_width: int = 512, words: int = 2) -> None:
        if not 1 <= out_width <= 1_000_000:
            raise ValueError(f"out_width {out_width} is not between 1 and 1,000,000")
        if not 1 <= words <= 10:
            raise ValueError(f"words {words} is not between 1 and 10")
        from sklearn.feature_extraction.text import HashingVectorizer

        self.out_width = out_width
        self._count = HashingVectorizer(n_features=out_width, ngram_range=(1, words))

    def __call__(self, utterances: Sequence[str]) -> np.ndarray:
        """Extract."""
        return self._count.transform(utterances).toarray().astype(np.float32)
