"""What a learner must do, and the rows that most learners work on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from mer_zoo.data.conversation import UNLABELLED, Conversation
from mer_zoo.data.normalising import Normaliser
from mer_zoo.errors import MerZooError

PENALTIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Values of C, the inverse of the penalty, that a logistic regression chooses from."""


class Learner(ABC):
    """Base of all learners: fit once, then give probabilities for any dialogue of the same features.

    A learner sees labels in `fit` alone. Utterances without a label, absent modalities, dialogues of one utterance and
    speakers never met are all welcome; a class without an example among the train dialogues gets probability 0.

    Example:
        >>> from mer_zoo.data.synthetic import synthetic
        >>> from mer_zoo.parts.learner.majority import Majority
        >>> data = synthetic(dialogues=(9, 2, 2), utterances=(2, 5))
        >>> train, validation, test = (data.select(ids) for ids in data.splits.values())
        >>> Majority().fit(train, validation, data.label_names).predict_proba(test[0]).shape == (len(test[0]), 6)
        True
    """

    @abstractmethod
    def fit(
        self,
        train: Sequence[Conversation],
        validation: Sequence[Conversation],
        label_names: Sequence[str],
        *,
        seed: int = 0,
    ) -> Learner:
        """Learn, and return the learner itself.

        Args:
            train: the dialogues to learn from.
            validation: dialogues to choose settings by; nothing is fitted to them.
            label_names: the classes.
            seed: decides what is random.

        Raises:
            MerZooError: no train utterance has a label.
        """

    @abstractmethod
    def predict_proba(self, conversation: Conversation) -> np.ndarray:
        """Return float64 `[utt, classes]`, rows of sum 1; the labels of the dialogue are not read."""


def labels_of(dialogues: Sequence[Conversation]) -> np.ndarray:
    """Return the labels of all utterances, int64 `[rows]`, -1 where there is none."""
    return np.concatenate([dialogue.labels for dialogue in dialogues] or [np.zeros(0, np.int64)])


def seen_classes(train: Sequence[Conversation]) -> np.ndarray:
    """Return the classes that train has examples of, ascending.

    Raises:
        MerZooError: there is none.
    """
    labels = labels_of(train)
    if not (labels != UNLABELLED).any():
        raise MerZooError("no train utterance has a label. A learner needs some.")
    return np.unique(labels[labels != UNLABELLED])


def rows_of(dialogues: Sequence[Conversation], normaliser: Normaliser) -> np.ndarray:
    """Return the normalised features of all modalities side by side, float64 `[rows, width]`; absent ones are 0."""
    applied = [normaliser.apply(dialogue).features for dialogue in dialogues]
    rows = [np.concatenate([features[m] for m in normaliser.ways], axis=1) for features in applied]
    return np.concatenate(rows).astype(np.float64)


def fit_regression(rows: np.ndarray, labels: np.ndarray, penalty: float) -> Any:
    """Fit a logistic regression to the labelled rows; `predict_log_proba` of one class alone is 0."""
    from sklearn.dummy import DummyClassifier  # here, for sklearn takes a second to import
    from sklearn.linear_model import LogisticRegression

    known = labels != UNLABELLED
    single = len(np.unique(labels[known])) == 1
    model = DummyClassifier() if single else LogisticRegression(C=penalty, max_iter=2000)
    return model.fit(rows[known], labels[known])


def choose_regression(
    rows: np.ndarray, labels: np.ndarray, validation_rows: np.ndarray, validation_labels: np.ndarray
) -> tuple[Any, float]:
    """Return the logistic regression of highest likelihood on validation, and its C; without labels there, of C 0.03.

    Classes that the regression has not met do not count on validation.
    """
    known = np.isin(validation_labels, np.unique(labels[labels != UNLABELLED]))
    if not known.any():
        return fit_regression(rows, labels, 0.03), 0.03
    best: tuple[float, Any, float] | None = None
    for penalty in PENALTIES:
        model = fit_regression(rows, labels, penalty)
        column = np.searchsorted(model.classes_, validation_labels[known])
        likelihood = float(model.predict_log_proba(validation_rows[known])[np.arange(len(column)), column].mean())
        if best is not None and likelihood < best[0]:
            break  # it has a single peak
        best = (likelihood, model, penalty)
    assert best is not None
    return best[1:]


def spread(probabilities: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Put the columns of some classes among all, float64 `[rows, count]`."""
    found = np.zeros((len(probabilities), count))
    found[:, classes] = probabilities
    return found
