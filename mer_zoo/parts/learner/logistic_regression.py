"""Logistic regression on the features of one utterance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mer_zoo.data.conversation import Conversation
from mer_zoo.data.normalising import Normaliser
from mer_zoo.parts.learner.base import Learner, choose_regression, labels_of, rows_of, seen_classes, spread


class LogisticRegression(Learner):
    r"""Judge each utterance alone by a linear model of all its features, in z-scores of the train dialogues.

    $$p_i = \operatorname{softmax}(W x_i + b),\qquad
    \min_{W,b}\; -\sum_i \log p_i(y_i) + \tfrac{1}{2C}\lVert W\rVert^2$$

    C is that of highest likelihood on validation. Fitted by scikit-learn.

    Inputs:
        conversation: with the modalities of the train dialogues; absent ones count as average.
    Outputs:
        float64 `[utt, classes]`.

    Attributes:
        penalty: the C that was chosen.

    Example:
        >>> train = [Conversation("d", ("A",) * 4, [0, 0, 1, 1], {"text": [[0], [1], [5], [6]]})]
        >>> LogisticRegression().fit(train, train, ("sad", "happy")).predict_proba(train[0]).argmax(1).tolist()
        [0, 0, 1, 1]
    """

    penalty: float

    def fit(
        self,
        train: Sequence[Conversation],
        validation: Sequence[Conversation],
        label_names: Sequence[str],
        *,
        seed: int = 0,
    ) -> LogisticRegression:
        """Fit for every penalty, keep the best."""
        self._classes, self._count = seen_classes(train), len(label_names)
        self._normaliser = Normaliser.fit(train, dict.fromkeys(train[0].widths, "train"))
        held_out = rows_of(validation, self._normaliser) if validation else np.zeros((0, 0))
        rows = rows_of(train, self._normaliser)
        self._model, self.penalty = choose_regression(rows, labels_of(train), held_out, labels_of(validation))
        return self

    def predict_proba(self, conversation: Conversation) -> np.ndarray:
        """Judge each utterance."""
        rows = rows_of([conversation], self._normaliser)
        return spread(self._model.predict_proba(rows), self._classes, self._count)
