"""Logistic regression in two stages: per utterance, then over what it said of the neighbours, by speaker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mer_zoo.data.conversation import Conversation
from mer_zoo.data.normalising import Normaliser
from mer_zoo.data.splits import k_folds
from mer_zoo.parts.learner.base import (
    Learner,
    choose_regression,
    fit_regression,
    labels_of,
    rows_of,
    seen_classes,
    spread,
)

FOLDS = 5
LEAST = 1e-6  # probability; its logarithm is an input


class TwoStageRegression(Learner):
    r"""Judge utterances alone, then again given how their neighbours were judged, those of the same speaker apart.

    $$p_i = \operatorname{softmax}(W x_i + b),\qquad
    q_i = \operatorname{softmax}\Big(V_0 \log p_i + \sum_{j=1}^{w} \sum_{r} V_{rj} \log p_{r_j(i)} + c\Big)$$

    with $r_j(i)$ the $j$-th utterance before or after $i$ of the same speaker, or of any other; where there is none,
    the term is 0. The second stage learns from predictions of the first on dialogues that this one was not fitted to
    (5 folds). The penalties of both are those of highest likelihood on validation. Fitted by scikit-learn.

    Inputs:
        conversation: with the modalities of the train dialogues; absent ones count as average.
    Outputs:
        float64 `[utt, classes]`.

    Args:
        window: $w$, neighbours on each side, of the same speaker and of others each.

    Example:
        >>> from mer_zoo.data.synthetic import synthetic
        >>> data = synthetic(dialogues=(30, 10, 20))
        >>> train, validation, test = (data.select(ids) for ids in data.splits.values())
        >>> learner = TwoStageRegression().fit(train, validation, data.label_names)
        >>> learner.predict_proba(test[0]).shape == (len(test[0]), 6)
        True
    """

    def __init__(self, *, window: int = 5) -> None:
        self.window = window

    def fit(
        self,
        train: Sequence[Conversation],
        validation: Sequence[Conversation],
        label_names: Sequence[str],
        *,
        seed: int = 0,
    ) -> TwoStageRegression:
        """Fit the first stage, predict out of fold, fit the second."""
        self._classes, self._count = seen_classes(train), len(label_names)
        self._normaliser = Normaliser.fit(train, dict.fromkeys(train[0].widths, "train"))
        held_out = rows_of(validation, self._normaliser) if validation else np.zeros((0, 0))
        rows = rows_of(train, self._normaliser)
        labels, expected = labels_of(train), labels_of(validation)
        self._first, penalty = choose_regression(rows, labels, held_out, expected)
        second = self._context(train, self._out_of_fold(train, rows, labels, penalty, seed))
        held_out = self._context(validation, self._alone(self._first, held_out)) if validation else held_out
        self._second, _ = choose_regression(second, labels, held_out, expected)
        return self

    def predict_proba(self, conversation: Conversation) -> np.ndarray:
        """Judge each utterance, then each in its context."""
        alone = self._alone(self._first, rows_of([conversation], self._normaliser))
        return spread(self._second.predict_proba(self._context([conversation], alone)), self._classes, self._count)

    def _alone(self, model: object, rows: np.ndarray) -> np.ndarray:
        """First-stage log-probabilities over the classes met in train, float64 `[rows, seen]`."""
        found = np.full((len(rows), len(self._classes)), LEAST)
        found[:, np.searchsorted(self._classes, model.classes_)] = model.predict_proba(rows)  # type: ignore[attr-defined]
        return np.log(np.maximum(found, LEAST))

    def _out_of_fold(
        self, train: Sequence[Conversation], rows: np.ndarray, labels: np.ndarray, penalty: float, seed: int
    ) -> np.ndarray:
        """First-stage log-probabilities of every dialogue, by a model fitted to others."""
        found = self._alone(self._first, rows)
        owner = np.repeat(np.arange(len(train)), [len(dialogue) for dialogue in train])
        names = [str(number) for number in range(len(train))]
        for part in k_folds(names, min(FOLDS, len(train)), seed) if len(train) > 1 else ():
            inside = np.isin(owner, [int(name) for name in part])
            if (labels[~inside] >= 0).any():
                found[inside] = self._alone(fit_regression(rows[~inside], labels[~inside], penalty), rows[inside])
        return found

    def _context(self, dialogues: Sequence[Conversation], alone: np.ndarray) -> np.ndarray:
        """Inputs of the second stage: an utterance's own log-probabilities and those of its neighbours."""
        inputs, start = [], 0
        for dialogue in dialogues:
            stop = start + len(dialogue)
            padded = np.concatenate([alone[start:stop], np.zeros((1, alone.shape[1]))])  # the last row: no neighbour
            inputs.append(padded[self._neighbours(dialogue.speaker_index)].reshape(len(dialogue), -1))
            start = stop
        return np.concatenate(inputs)

    def _neighbours(self, speakers: np.ndarray) -> np.ndarray:
        """Each utterance itself, and its neighbours of the same and of other speakers, nearest first; -1 for none."""
        turns = np.arange(len(speakers))
        found = np.full((len(speakers), 1 + 4 * self.window), -1)
        found[:, 0] = turns
        for turn in turns:
            same = speakers == speakers[turn]
            sides = [turns[m & s] for m in (same, ~same) for s in (turns < turn, turns > turn)]
            sides = [side[::-1] if number % 2 == 0 else side for number, side in enumerate(sides)]
            for number, side in enumerate(sides):
                near = side[: self.window]
                found[turn, 1 + number * self.window :][: len(near)] = near
        return found
