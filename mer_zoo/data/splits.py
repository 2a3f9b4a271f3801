"""Splits by dialogue: what is trained on, what chooses the model, what is reported. Utterances never part company."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pydantic

from mer_zoo.data.conversation import UNLABELLED, Dataset
from mer_zoo.errors import MerZooError
from mer_zoo.registry.faults import described


class Split(NamedTuple):
    """Dialogue ids to train on, to choose the model by, and to report on; no id is in two of them."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


class SplitRule(pydantic.BaseModel):
    """How dialogues are split; it belongs to the protocol, not to a run: every training seed sees the same splits.

    Attributes:
        test: `given`: the data's own test split, or folds where it has a single split `all`; `folds`, `sessions` or
            `speakers`: all dialogues are pooled, and each part, session or speaker is the test once. Who speaks in the
            test dialogues then speaks in no other (`speakers`).
        validation: `given`: the data's own validation split, or `random` where it has none; `random`, `first` or
            `last`: that share of the train dialogues, the data's own validation dialogues among them.
        share: share of the train dialogues that validation takes, above 0 and below 1.
        folds: number of parts for cross-validation, at least 2.
        seed: decides which dialogues go where.
        session: pattern that finds the session in a dialogue's id, as in `Ses01F_impro02`.

    Example:
        >>> SplitRule(test="sessions").session
        '^Ses\\\\d+'
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    test: Literal["given", "folds", "sessions", "speakers"] = "given"
    validation: Literal["given", "random", "first", "last"] = "given"
    share: float = pydantic.Field(default=0.1, gt=0, lt=1)
    folds: int = pydantic.Field(default=5, ge=2)
    seed: int = pydantic.Field(default=0, ge=0)
    session: str = r"^Ses\d+"

    def plain(self) -> dict[str, Any]:
        """Return what differs from the default, as result files and run ids hold it."""
        return self.model_dump(exclude_defaults=True)


def rule_of(fields: Mapping[str, Any], place: Callable[..., str]) -> SplitRule:
    """Return a rule made of its fields; text stands for numbers too.

    Args:
        fields: field -> value.
        place: says where a field was given.

    Raises:
        MerZooError: an unknown field or a value that does not fit, with the nearest match.
    """
    try:
        return SplitRule.model_validate(fields)
    except pydantic.ValidationError as error:
        raise MerZooError(described(error, SplitRule, fields, place)) from None


def split_dataset(dataset: Dataset, fold: int = 0, rule: SplitRule | None = None) -> Split:
    """Return the dialogues to train, validate and test on.

    Args:
        dataset: with the splits `train`, `validation`, `test`; or `train`, `test`; or `all`.
        fold: which part is the test, from 0 to `fold_count(dataset, rule) - 1`.
        rule: how to split; by default splits that the data has are used as given, and missing ones are made.

    Returns:
        Ids in the dataset's order.

    Raises:
        MerZooError: other splits, no such fold, too few dialogues, or ids without a session.

    Example:
        >>> from mer_zoo.data.conversation import Conversation
        >>> features = {"text": np.zeros((1, 3), np.float32)}
        >>> dialogues = [Conversation(f"d{i}", ("Ann",), [0], features) for i in range(10)]
        >>> data = Dataset("tiny", dialogues, ("sad",), {"all": [t.id for t in dialogues]})
        >>> [len(ids) for ids in split_dataset(data, fold=4)]
        [7, 1, 2]
    """
    rule = rule or SplitRule()
    folds = fold_count(dataset, rule)
    if not 0 <= fold < folds:
        raise MerZooError(f"dataset '{dataset.name}': no fold {fold}; there are {folds}, counted from 0.")
    try:
        rest, given, test = _test(dataset, fold, rule)
        if given and rule.validation == "given":
            return Split(rest, given, test)
        kept = {*given, *rest}
        pool = tuple(dialogue.id for dialogue in dataset if dialogue.id in kept) if given else rest
        train, validation = _carve(pool, rule, _classes(dataset))
    except MerZooError as error:
        raise MerZooError(f"dataset '{dataset.name}': {error}") from None
    return Split(train, validation, test)


def fold_count(dataset: Dataset, rule: SplitRule | None = None) -> int:
    """Return how many folds there are to run."""
    rule = rule or SplitRule()
    if rule.test == "given":
        return rule.folds if dataset.splits.get("all") else 1
    if rule.test == "folds":
        return rule.folds
    return len(_groups(dataset, rule))


def is_folded(dataset: Dataset, rule: SplitRule | None = None) -> bool:
    """Return whether the test split is one fold of several."""
    return (rule or SplitRule()).test != "given" or bool(dataset.splits.get("all"))


def _test(dataset: Dataset, fold: int, rule: SplitRule) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the ids to train on, those of a given validation split, and those of the test."""
    given = {name: ids for name, ids in dataset.splits.items() if ids}
    if rule.test in ("sessions", "speakers"):
        test, barred = _groups(dataset, rule)[fold]
        rest = tuple(dialogue.id for dialogue in dataset if dialogue.id not in barred)
        if not rest:
            raise MerZooError(f"no dialogue is left to train on without those of fold {fold} of `test: {rule.test}`.")
        return rest, (), test
    if rule.test == "folds" or given.keys() == {"all"}:
        pool = given["all"] if given.keys() == {"all"} else tuple(dialogue.id for dialogue in dataset)
        test = k_folds(pool, rule.folds, rule.seed, _classes(dataset))[fold]
        held_out = set(test)
        return tuple(name for name in pool if name not in held_out), (), test
    if given.keys() in ({"train", "validation", "test"}, {"train", "test"}):
        return given["train"], given.get("validation", ()), given["test"]
    raise MerZooError(
        f"has the splits {', '.join(given) or '(none)'}. Want train, validation and test; or train and test; or a "
        "single 'all', which is cross-validated."
    )


def _groups(dataset: Dataset, rule: SplitRule) -> list[tuple[tuple[str, ...], frozenset[str]]]:
    """Return, for every session or speaker, its dialogues, and all that must not be trained on then."""
    members: dict[str, list[str]] = {}
    for dialogue in dataset:
        for name in _group_names(dialogue.id, dialogue.speakers, rule):
            members.setdefault(name, []).append(dialogue.id)
    if len(members) < 2:
        raise MerZooError(f"`test: {rule.test}` needs at least 2 {rule.test}; there is {', '.join(members)}.")
    voices = {dialogue.id: set(dialogue.speakers) for dialogue in dataset}
    found = []
    for name in sorted(members):
        test = dict.fromkeys(members[name])
        heard = set().union(*(voices[one] for one in test)) if rule.test == "speakers" else set()
        barred = frozenset(one for one, speakers in voices.items() if one in test or speakers & heard)
        found.append((tuple(test), barred))
    return found


def _group_names(name: str, speakers: Sequence[str], rule: SplitRule) -> set[str]:
    if rule.test == "speakers":
        return set(speakers)
    session = re.search(rule.session, name)
    if session is None:
        raise MerZooError(f"dialogue '{name}' has no session: its id does not match '{rule.session}'. Set `session`.")
    return {session[0]}


def _classes(dataset: Dataset) -> dict[str, set[int]]:
    return {dialogue.id: {int(y) for y in dialogue.labels if y != UNLABELLED} for dialogue in dataset}


def _carve(
    ids: Sequence[str], rule: SplitRule, classes: Mapping[str, Collection[int]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if rule.validation in ("given", "random"):
        return carve_validation(ids, rule.share, rule.seed, classes)
    if len(ids) < 2:
        raise MerZooError(f"{len(ids)} dialogue(s) cannot be parted into train and validation. Give at least 2.")
    size = min(max(round(rule.share * len(ids)), 1), len(ids) - 1)
    if rule.validation == "first":
        return tuple(ids[size:]), tuple(ids[:size])
    return tuple(ids[:-size]), tuple(ids[-size:])


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
