"""Splits by dialogue: what is trained on, what chooses the model, what is reported. Utterances never part company."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mer_zoo.data.conversation import UNLABELLED, Dataset
from mer_zoo.errors import MerZooError


class Split(NamedTuple):
    """Dialogue ids to train on, to choose the model by, and to report on; no id is in two of them."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class SplitRule:
    """How missing splits are made; it belongs to the protocol, not to a run: every training seed sees the same splits.

    Attributes:
        validation_share: share of the train dialogues to carve a validation split from, where none is given.
        folds: number of parts for cross-validation, where the data has the single split `all`.
        seed: decides which dialogues go where.
    """

    validation_share: float = 0.1
    folds: int = 5
    seed: int = 0


def split_dataset(dataset: Dataset, fold: int = 0, rule: SplitRule | None = None) -> Split:
    """Return the dialogues to train, validate and test on.

    Splits that the data has are used as given. Without `validation`, it is carved out of `train`; with the single split
    `all`, part number `fold` is the test and validation is carved out of the rest.

    Args:
        dataset: with the splits `train`, `validation`, `test`; or `train`, `test`; or `all`.
        fold: which part is the test, from 0 to `fold_count(dataset) - 1`.
        rule: how to make what is missing; `SplitRule()` by default.

    Returns:
        Ids in the dataset's order.

    Raises:
        MerZooError: other splits, no such fold, or too few dialogues.

    Example:
        >>> from mer_zoo.data.conversation import Conversation
        >>> features = {"text": np.zeros((1, 3), np.float32)}
        >>> dialogues = [Conversation(f"d{i}", ("Ann",), [0], features) for i in range(10)]
        >>> data = Dataset("tiny", dialogues, ("sad",), {"all": [t.id for t in dialogues]})
        >>> [len(ids) for ids in split_dataset(data, fold=4)]
        [7, 1, 2]
    """
    rule = rule or SplitRule()
    given = {name: ids for name, ids in dataset.splits.items() if ids}
    folds = fold_count(dataset, rule)
    if not 0 <= fold < folds:
        raise MerZooError(f"dataset '{dataset.name}': no fold {fold}; there are {folds}, counted from 0.")
    classes = {dialogue.id: {int(y) for y in dialogue.labels if y != UNLABELLED} for dialogue in dataset}
    try:
        if given.keys() == {"train", "validation", "test"}:
            return Split(given["train"], given["validation"], given["test"])
        if given.keys() == {"train", "test"}:
            train, validation = carve_validation(given["train"], rule.validation_share, rule.seed, classes)
            return Split(train, validation, given["test"])
        if given.keys() == {"all"}:
            test = k_folds(given["all"], folds, rule.seed, classes)[fold]
            rest = [name for name in given["all"] if name not in set(test)]
            train, validation = carve_validation(rest, rule.validation_share, rule.seed, classes)
            return Split(train, validation, test)
    except MerZooError as error:
        raise MerZooError(f"dataset '{dataset.name}': {error}") from None
    raise MerZooError(
        f"dataset '{dataset.name}': has the splits {', '.join(given) or '(none)'}. Want train, validation and test; or "
        "train and test; or a single 'all', which is cross-validated."
    )


def fold_count(dataset: Dataset, rule: SplitRule | None = None) -> int:
    """Return how many folds there are to run: those of the rule for the single split `all`, else 1."""
    return (rule or SplitRule()).folds if dataset.splits.get("all") else 1


def carve_validation(
    ids: Sequence[str], share: float, seed: int, classes: Mapping[str, Collection[int]] | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Part dialogues at random into train and validation, in that order, both in the order given.

    Args:
        ids: dialogue ids.
        share: share that goes to validation, above 0 and below 1; at least one dialogue goes to each side.
        seed: decides which.
        classes: the classes each dialogue holds. The last train dialogue with a class is never taken away.

    Raises:
        MerZooError: fewer than two dialogues, or a share outside (0, 1).

    Example:
        >>> carve_validation(["a", "b", "c", "d"], 0.25, seed=0)
        (('a', 'b', 'd'), ('c',))
    """
    if not 0 < share < 1:
        raise MerZooError(f"the validation share must lie between 0 and 1, not be {share}.")
    if len(ids) < 2:
        raise MerZooError(f"{len(ids)} dialogue(s) cannot be parted into train and validation. Give at least 2.")
    classes = classes or {}
    size = min(max(round(share * len(ids)), 1), len(ids) - 1)
    left = Counter(c for name in ids for c in set(classes.get(name, ())))
    shuffled = [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))]
    taken: list[str] = []
    for name in shuffled:
        held = set(classes.get(name, ()))
        if len(taken) < size and all(left[c] > 1 for c in held):
            taken.append(name)
            left.subtract(held)
    taken = taken or shuffled[:1]  # every dialogue holds the only case of some class: one has to go all the same
    chosen = set(taken)
    return tuple(name for name in ids if name not in chosen), tuple(name for name in ids if name in chosen)


def k_folds(
    ids: Sequence[str], k: int, seed: int, classes: Mapping[str, Collection[int]] | None = None
) -> tuple[tuple[str, ...], ...]:
    """Part dialogues at random into k disjoint parts whose sizes differ by at most one, each in the order given.

    Args:
        ids: dialogue ids.
        k: number of parts, at least 2.
        seed: decides which dialogue is in which.
        classes: the classes each dialogue holds. Dialogues are dealt out by the rarest class they hold, so that the
            few with a rare class do not meet in one part.

    Raises:
        MerZooError: k is below 2, or above the number of dialogues.

    Example:
        >>> k_folds(["a", "b", "c", "d"], 2, seed=0)
        (('b', 'c'), ('a', 'd'))
    """
    if k < 2:
        raise MerZooError(f"cross-validation needs at least 2 folds, not {k}.")
    if k > len(ids):
        raise MerZooError(f"{len(ids)} dialogue(s) cannot be parted into {k} folds. Give more, or fewer folds.")
    classes = classes or {}
    frequency = Counter(c for name in ids for c in set(classes.get(name, ())))
    shuffled = [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))]
    dealt = sorted(shuffled, key=lambda name: min(((frequency[c], c) for c in classes.get(name, ())), default=(0, 0)))
    parts = [set(dealt[part::k]) for part in range(k)]
    return tuple(tuple(name for name in ids if name in part) for part in parts)
