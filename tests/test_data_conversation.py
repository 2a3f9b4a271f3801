"""Conversations and datasets refuse what no model could use, with a word on where and how to fix it."""

import numpy as np
import pytest

from mer_zoo.data.conversation import Conversation, Dataset
from mer_zoo.errors import MerZooError


def dialogue(name="d0", **changes):
    given = {
        "speakers": ("Ann", "Bob", "Ann"),
        "labels": [0, -1, 1],
        "features": {"text": np.zeros((3, 4)), "audio": np.ones((3, 2), np.float32)},
    }
    return Conversation(name, **(given | changes))


def dataset(*dialogues, splits=None):
    return Dataset("tiny", dialogues or (dialogue(),), ("sad", "happy"), splits or {})


def test_what_is_given_becomes_plain_arrays():
    one = dialogue(present={"audio": [True, False, True]}, transcript=["a", "b", "c"])
    assert one.labels.dtype == np.int64
    assert one.features["text"].dtype == np.float32
    assert one.present["audio"].tolist() == [True, False, True]
    assert one.transcript == ("a", "b", "c")
    assert one.speaker_index.tolist() == [0, 1, 0]
    assert one.widths == {"text": 4, "audio": 2}


def test_a_dataset_finds_its_dialogues():
    data = dataset(dialogue("a"), dialogue("b", speakers=("Ann", "Bob", "Cy")), splits={"all": ("b", "a")})
    assert (len(data), data.max_speakers, data.widths) == (2, 3, {"text": 4, "audio": 2})
    assert [one.id for one in data.select(data.splits["all"])] == ["b", "a"]
    assert [one.id for one in data] == ["a", "b"]


CONVERSATION_FAULTS = {
    "no utterances": ({"speakers": ()}, "dialogue 'd0': has no utterances"),
    "no features": ({"features": {}}, "dialogue 'd0': has no features"),
    "no speaker": ({"speakers": ("Ann", " ", "Bob")}, "dialogue 'd0', utterance 1: has no speaker"),
    "labels too few": ({"labels": [0, 1]}, "2 labels for 3 speakers"),
    "features too few": ({"features": {"text": np.zeros((2, 4))}}, "2 text features for 3 speakers"),
    "mask too short": ({"present": {"text": [True]}}, "1 text mask for 3 speakers"),
    "transcript too long": ({"transcript": ("a",) * 4}, "4 transcript for 3 speakers"),
    "label below -1": ({"labels": [0, -2, 1]}, "labels must be one class index per utterance, -1 where unlabelled"),
    "mask of nothing": ({"present": {"txt": [True] * 3}}, "mask for unknown modality 'txt'. Did you mean 'text'?"),
    "features flat": ({"features": {"text": np.zeros(3)}}, r"text: features have shape \(3,\); want"),
    "features without width": ({"features": {"text": np.zeros((3, 0))}}, r"text: features have shape \(3, 0\); want"),
    "NaN": (
        {"features": {"text": np.array([[0], [np.nan], [0]])}},
        "utterance 1, text: feature is NaN or infinite in 1",
    ),
    "infinite": (
        {"features": {"text": np.array([[0], [0], [np.inf]])}},
        "utterance 2, text: feature is NaN or infinite",
    ),
}


@pytest.mark.parametrize("fault", CONVERSATION_FAULTS)
def test_faulty_conversations(fault):
    changes, message = CONVERSATION_FAULTS[fault]
    with pytest.raises(MerZooError, match=message):
        dialogue(**changes)


DATASET_FAULTS = {
    "an id twice": (lambda: dataset(dialogue("a"), dialogue("a")), "dialogue 'a': this id is used twice"),
    "a width that changes": (
        lambda: dataset(dialogue("a"), dialogue("b", features={"text": np.zeros((3, 4)), "audio": np.zeros((3, 3))})),
        "dialogue 'b': feature widths .* differ from .* of dialogue 'a'",
    ),
    "a modality that goes": (
        lambda: dataset(dialogue("a"), dialogue("b", features={"text": np.zeros((3, 4))})),
        "dialogue 'b': feature widths",
    ),
    "an unknown label": (
        lambda: dataset(dialogue(labels=[0, 1, 2])),
        "label 2 has no name; the 2 classes are sad, happy",
    ),
    "an unknown split": (lambda: dataset(splits={"trian": ("d0",)}), "unknown split 'trian'. Did you mean 'train'?"),
    "an unknown dialogue": (
        lambda: dataset(splits={"all": ("d01",)}),
        "split 'all': no dialogue 'd01'. Did you mean 'd0'?",
    ),
    "a dialogue in two": (lambda: dataset(splits={"train": ("d0",), "test": ("d0",)}), "is in 'train' and 'test'"),
    "a dialogue twice": (lambda: dataset(splits={"train": ("d0", "d0")}), "is in 'train' twice"),
    "all and others": (lambda: dataset(splits={"all": ("d0",), "test": ()}), "split 'all' beside 'test'"),
    "nothing": (lambda: Dataset("tiny", (), (), {}), "dataset 'tiny': has no dialogues"),
    "asking in vain": (lambda: dataset()["d01"], "no dialogue 'd01'. Did you mean 'd0'?"),
}


@pytest.mark.parametrize("fault", DATASET_FAULTS)
def test_faulty_datasets(fault):
    make, message = DATASET_FAULTS[fault]
    with pytest.raises(MerZooError, match=message):
        make()


def test_two_halves_of_a_character_are_one_as_in_every_file():
    features = {"text": np.zeros((2, 3))}
    dialogue = Conversation("d", ("A", "B"), [0, 0], features, transcript=("\ud83d\ude00", "half \ud83d"))
    assert dialogue.transcript == ("\U0001f600", "half \ud83d")
