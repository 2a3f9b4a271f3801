"""The shares of the classes in train, whatever is said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mer_zoo.data.conversation import Conversation
from mer_zoo.parts.learner.base import Learner, labels_of, seen_classes


class Majority(Learner):
    r"""Give every utterance the shares of the classes among the labelled train utterances: what any model must beat.

    $$p_i(k) = \frac{1}{N}\sum_j [y_j = k]$$

    Inputs:
        conversation: of any features.
    Outputs:
        float64 `[utt, classes]`, all rows the same.

    Example:
        >>> train = [Conversation("d", ("A", "B", "A"), [1, 1, 0], {"text": np.zeros((3, 2))})]
        >>> Majority().fit(train, (), ("sad", "happy")).predict_proba(train[0])[0].round(2).tolist()
        [0.33, 0.67]
    """

    def fit(
        self,
        train: Sequence[Conversation],
        validation: Sequence[Conversation],
        label_names: Sequence[str],
        *,
        seed: int = 0,
    ) -> Majority:
        """Count."""
        seen_classes(train)
        labels = labels_of(train)
        counts = np.bincount(labels[labels >= 0], minlength=len(label_names))
        self._shares = counts / counts.sum()
        return self

    def predict_proba(self, conversation: Conversation) -> np.ndarray:
        """Give the shares."""
        return np.tile(self._shares, (len(conversation), 1))
