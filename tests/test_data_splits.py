"""Splits are by dialogue, disjoint, repeatable, and leave train every class they can."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mer_zoo.data.conversation import Conversation, Dataset
from mer_zoo.data.splits import SplitRule, carve_validation, fold_count, k_folds, split_dataset
from mer_zoo.errors import MerZooError

IDS = st.integers(2, 40).map(lambda n: [f"d{i}" for i in range(n)])


def dataset(splits, labels=None):
    ids = [name for names in splits.values() for name in names]
    dialogues = [
        Conversation(i, ("Ann",) * 2, (labels or {}).get(i, [0, -1]), {"text": np.zeros((2, 1), np.float32)})
        for i in ids
    ]
    return Dataset("tiny", tuple(dialogues), ("sad", "happy", "angry"), splits)


def names(prefix, count):
    return tuple(f"{prefix}{i}" for i in range(count))


@given(ids=IDS, share=st.floats(0.01, 0.99), seed=st.integers(0, 99))
def test_validation_is_carved_by_dialogue(ids, share, seed):
    train, validation = carve_validation(ids, share, seed)
    assert sorted(train + validation) == sorted(ids)
    assert train
    assert validation
    assert abs(len(validation) - share * len(ids)) <= 1
    assert (train, validation) == carve_validation(ids, share, seed)
    assert list(train) == sorted(train, key=ids.index)


@given(ids=IDS, seed=st.integers(0, 99), data=st.data())
def test_no_class_is_carved_out_of_train(ids, seed, data):
    classes = {i: data.draw(st.sets(st.integers(0, 5), max_size=3)) for i in ids}
    train, validation = carve_validation(ids, 0.3, seed, classes)
    assert sorted(train + validation) == sorted(ids)
    everything = set().union(*classes.values())
    kept = set().union(*(classes[i] for i in train))
    each_has_its_own = all(any(sum(c in classes[j] for j in ids) == 1 for c in classes[i]) for i in ids)
    assert kept == everything or each_has_its_own


@given(ids=IDS, k=st.integers(2, 6), seed=st.integers(0, 99), data=st.data())
def test_folds_part_the_dialogues(ids, k, seed, data):
    classes = {i: data.draw(st.sets(st.integers(0, 5), max_size=3)) for i in ids}
    if k > len(ids):
        with pytest.raises(MerZooError, match="cannot be parted into"):
            k_folds(ids, k, seed, classes)
        return
    folds = k_folds(ids, k, seed, classes)
    assert sorted(name for fold in folds for name in fold) == sorted(ids)
    sizes = [len(fold) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    assert folds == k_folds(ids, k, seed, classes)


def test_the_few_dialogues_of_a_rare_class_do_not_meet():
    ids = list(names("d", 50))
    classes = {name: {0, 1} if name in ("d3", "d4", "d5") else {0} for name in ids}
    for seed in range(50):
        assert max(sum(name in ("d3", "d4", "d5") for name in fold) for fold in k_folds(ids, 5, seed, classes)) == 1


def test_given_splits_are_used_as_given():
    splits = {"test": names("c", 2), "train": names("a", 5), "validation": names("b", 3)}
    assert split_dataset(dataset(splits)) == (splits["train"], splits["validation"], splits["test"])


def test_validation_comes_out_of_train_alone():
    data = dataset({"train": names("a", 40), "test": names("b", 9)})
    split = split_dataset(data)
    assert (len(split.train), len(split.validation)) == (36, 4)
    assert set(split.train) | set(split.validation) == set(names("a", 40))
    assert split.test == names("b", 9)
    assert fold_count(data) == 1
    assert split != split_dataset(data, rule=SplitRule(seed=1))


def test_cross_validation_tests_every_dialogue_once():
    data = dataset({"all": names("d", 23)})
    splits = [split_dataset(data, fold) for fold in range(fold_count(data))]
    assert sorted(name for split in splits for name in split.test) == sorted(names("d", 23))
    for split in splits:
        assert sorted(split.train + split.validation + split.test) == sorted(names("d", 23))
        assert len(split.validation) == 2


def test_the_only_dialogue_with_a_class_stays_in_train():
    for lonely in names("d", 10):
        data = dataset({"train": names("d", 10), "test": ("t",)}, {lonely: [2, 0]})
        assert lonely in split_dataset(data).train


def test_bad_requests():
    every = dataset({"all": names("d", 10)})
    with pytest.raises(MerZooError, match="dataset 'tiny': no fold 5; there are 5, counted from 0"):
        split_dataset(every, fold=5)
    with pytest.raises(MerZooError, match="no fold -1"):
        split_dataset(every, fold=-1)
    with pytest.raises(MerZooError, match="no fold 1; there are 1"):
        split_dataset(dataset({"train": names("a", 3), "test": names("b", 1)}), fold=1)
    with pytest.raises(MerZooError, match=r"dataset 'tiny': 3 dialogue\(s\) cannot be parted into 5 folds"):
        split_dataset(dataset({"all": names("d", 3)}))
    with pytest.raises(MerZooError, match=r"1 dialogue\(s\) cannot be parted into train and validation"):
        split_dataset(dataset({"train": names("a", 1), "test": names("b", 1)}))
    with pytest.raises(MerZooError, match=r"has the splits train. Want train, validation and test; or"):
        split_dataset(dataset({"train": names("a", 3)}))
    with pytest.raises(MerZooError, match="the validation share must lie between 0 and 1, not be 1"):
        carve_validation(["a", "b"], 1.0, 0)
    with pytest.raises(MerZooError, match="needs at least 2 folds, not 1"):
        k_folds(["a", "b"], 1, 0)


def speaking(*pairs):
    """Dialogues by id and speakers, in one pool."""
    dialogues = [
        Conversation(name, tuple(speakers), [0] * len(speakers), {"text": np.zeros((len(speakers), 1), np.float32)})
        for name, speakers in pairs
    ]
    return Dataset("spoken", tuple(dialogues), ("sad",), {"train": [d.id for d in dialogues[:-1]], "test": ["Ses3_b"]})


SPOKEN = [("Ses1_a", "AB"), ("Ses1_b", "BA"), ("Ses2_a", "CD"), ("Ses2_b", "CD"), ("Ses3_a", "EF"), ("Ses3_b", "EA")]


def test_each_session_is_the_test_once():
    data, rule = speaking(*SPOKEN), SplitRule(test="sessions", validation="last")
    folds = [split_dataset(data, fold, rule) for fold in range(fold_count(data, rule))]
    assert [fold.test for fold in folds] == [("Ses1_a", "Ses1_b"), ("Ses2_a", "Ses2_b"), ("Ses3_a", "Ses3_b")]
    assert all(
        set(fold.train) | set(fold.validation) | set(fold.test) == {name for name, _ in SPOKEN} for fold in folds
    )
    with pytest.raises(MerZooError, match=r"'Ses1_a' has no session: its id does not match"):
        split_dataset(data, 0, SplitRule(test="sessions", session="^x"))


def test_no_one_who_speaks_in_the_test_speaks_elsewhere():
    data, rule = speaking(*SPOKEN), SplitRule(test="speakers")
    voices = {name: set(speakers) for name, speakers in SPOKEN}
    assert fold_count(data, rule) == 6
    for fold in range(6):
        split = split_dataset(data, fold, rule)
        heard = set().union(*(voices[name] for name in split.test))
        assert all(not heard & voices[name] for name in (*split.train, *split.validation))


@pytest.mark.parametrize(("where", "taken"), [("first", "a0"), ("last", "b2")])
def test_validation_is_the_first_or_the_last_share(where, taken):
    data = dataset({"train": names("a", 7), "validation": names("b", 3), "test": names("c", 2)})
    split = split_dataset(data, rule=SplitRule(validation=where, share=0.1))
    assert split.validation == (taken,)
    assert len(split.train) == 9
    assert split.test == names("c", 2)
