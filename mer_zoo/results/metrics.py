"""The scores of a model, all computed from one confusion matrix; the numbers are scikit-learn's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from mer_zoo.errors import MerZooError
from mer_zoo.registry.by_path import Family

Score = Literal["weighted_f1", "accuracy", "macro_f1", "unweighted_recall"]
"""The scores there are, in the order of tables; each is the name of a function below."""


def confusion_matrix(labels: Any, predicted: Any, classes: int) -> np.ndarray:
    """Count utterances by true class (row) and predicted class (column); utterances labelled -1 do not count.

    Args:
        labels: int `[utt]`, -1 where unlabelled.
        predicted: int `[utt]`.
        classes: number of classes C.

    Returns:
        int64 `[C, C]`.

    Raises:
        MerZooError: the lengths differ, or an index is not below `classes`.

    Example:
        >>> confusion_matrix([0, 1, 1, -1], [0, 0, 1, 1], classes=2).tolist()
        [[1, 0], [1, 1]]
    """
    labels, predicted = np.asarray(labels, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if labels.ndim != 1 or labels.shape != predicted.shape:
        raise MerZooError(f"{labels.shape} labels for {predicted.shape} predictions. Give one of each per utterance.")
    if labels.size and (
        labels.min() < -1 or labels.max() >= classes or predicted.min() < 0 or predicted.max() >= classes
    ):
        raise MerZooError(
            f"labels {labels.min()}..{labels.max()} and predictions {predicted.min()}..{predicted.max()} do not fit "
            f"{classes} classes. Labels run from -1 (unlabelled) and predictions from 0, both to {classes - 1}."
        )
    known = labels >= 0
    return np.bincount(labels[known] * classes + predicted[known], minlength=classes**2).reshape(classes, classes)


def per_class(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of every class: TP/(TP+FP), TP/(TP+FN), 2TP/(2TP+FP+FN), and 0 where that is 0/0.

    Args:
        confusion: `[..., C, C]`, rows are true classes.

    Returns:
        `precision`, `recall`, `f1` float64 `[..., C]` and `support` (utterances truly of the class) `[..., C]`.

    Example:
        >>> per_class(np.array([[1, 0], [1, 1]]))["f1"].round(3).tolist()
        [0.667, 0.667]
    """
    hit = np.diagonal(confusion, axis1=-2, axis2=-1)
    support, predicted = confusion.sum(-1), confusion.sum(-2)
    return {
        "precision": hit / np.maximum(predicted, 1),
        "recall": hit / np.maximum(support, 1),
        "f1": 2 * hit / np.maximum(support + predicted, 1),
        "support": support,
    }


def weighted_f1(confusion: np.ndarray) -> np.ndarray:
    """F1 averaged over classes with their support as weight, for one matrix or a stack: `[..., C, C]` → `[...]`.

    Example:
        >>> round(float(weighted_f1(np.array([[3, 1], [0, 2]]))), 4)
        0.8381
    """
    parts = per_class(confusion)
    return (parts["f1"] * parts["support"]).sum(-1) / np.maximum(parts["support"].sum(-1), 1)


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Plain mean of F1 over the classes that occur among labels or predictions: `[..., C, C]` → `[...]`.

    A class that nobody has and nobody predicts is left out, as scikit-learn does.

    Example:
        >>> float(macro_f1(np.diag([5, 1, 0])))
        1.0
    """
    occurs = (confusion.sum(-1) + confusion.sum(-2)) > 0
    return (per_class(confusion)["f1"] * occurs).sum(-1) / np.maximum(occurs.sum(-1), 1)


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """Share of utterances whose class is predicted: `[..., C, C]` → `[...]`.

    Example:
        >>> float(accuracy(np.array([[3, 1], [0, 4]])))
        0.875
    """
    return np.trace(confusion, axis1=-2, axis2=-1) / np.maximum(confusion.sum((-2, -1)), 1)


def unweighted_recall(confusion: np.ndarray) -> np.ndarray:
    """Plain mean of recall over the classes that occur among the labels: `[..., C, C]` → `[...]`.

    Scikit-learn's `balanced_accuracy_score`; a class without labels has no recall and is left out.

    Example:
        >>> float(unweighted_recall(np.array([[3, 1], [0, 4]])))
        0.875
    """
    parts = per_class(confusion)
    return parts["recall"].sum(-1) / np.maximum((parts["support"] > 0).sum(-1), 1)


SCORES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "weighted_f1": weighted_f1,
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "unweighted_recall": unweighted_recall,
}
"""The function of every score."""

FAMILY = Family("score", {name: f"{__name__}:{name}" for name in SCORES})
"""Scores by name, or by the path of a function: confusion matrix int64 `[C, C]` → number, the higher the better."""


def value_of(score: str, confusion: np.ndarray) -> float:
    """Return a score, named or by path, of one confusion matrix.

    Args:
        score: a name of `SCORES`, or `module:function`.
        confusion: int64 `[C, C]`, rows are true classes.

    Raises:
        MerZooError: there is no such score, it fails, or it is not a number.

    Example:
        >>> value_of("accuracy", np.array([[3, 1], [0, 4]])), value_of("numpy:trace", np.array([[3, 1], [0, 4]]))
        (0.875, 7.0)
    """
    function = FAMILY.find(score)
    try:
        value = float(function(confusion))
    except Exception as error:
        raise MerZooError(f"score '{score}' fails: {type(error).__name__}: {error}.") from error
    if not np.isfinite(value):
        raise MerZooError(f"score '{score}' is {value}, which cannot be compared. Return 0 where it is not defined.")
    return value


def score_confusion(confusion: np.ndarray, label_names: Sequence[str]) -> dict[str, Any]:
    """Return every score of one confusion matrix, in plain numbers fit for JSON.

    Args:
        confusion: int `[C, C]`, rows are true classes.
        label_names: C distinct names.

    Returns:
        every score of `SCORES` (0 to 1), `per_class` (name → `precision`, `recall`,
        `f1`, `support`) and `confusion`.

    Raises:
        MerZooError: nothing is labelled, or the names do not match the classes.

    Example:
        >>> scores = score_confusion(np.array([[3, 1], [0, 4]]), ("sad", "happy"))
        >>> scores["accuracy"], scores["per_class"]["sad"]["recall"]
        (0.875, 0.75)
    """
    confusion = np.asarray(confusion)
    names = [str(name) for name in label_names]
    if confusion.shape != (len(names), len(names)) or len(set(names)) != len(names):
        raise MerZooError(
            f"confusion matrix of shape {confusion.shape} with the class names {', '.join(names)}. "
            "Give one distinct name per row and column."
        )
    if not confusion.any():
        raise MerZooError("nothing to score: no utterance has a label. Give labelled dialogues to the split.")
    parts = {what: values.tolist() for what, values in per_class(confusion).items()}
    return {
        **{name: float(score(confusion)) for name, score in SCORES.items()},
        "per_class": {name: {what: parts[what][i] for what in parts} for i, name in enumerate(names)},
        "confusion": confusion.tolist(),
    }


def score(labels: Any, predicted: Any, label_names: Sequence[str]) -> dict[str, Any]:
    """Return every score of predictions against labels; utterances labelled -1 do not count.

    Args:
        labels: int `[utt]`, -1 where unlabelled.
        predicted: int `[utt]`.
        label_names: one distinct name per class.

    Returns:
        what `score_confusion` returns.

    Raises:
        MerZooError: nothing is labelled, lengths differ, or an index has no name.

    Example:
        >>> round(score([0, 0, 1, -1], [0, 1, 1, 0], ("sad", "happy"))["weighted_f1"], 4)
        0.6667
    """
    return score_confusion(confusion_matrix(labels, predicted, len(label_names)), label_names)
