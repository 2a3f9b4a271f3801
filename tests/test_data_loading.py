"""From a reference to a dataset: fresh from disk, shared without harm, one message for what is none."""

import copy
import os
import pickle
from importlib.resources import files

import numpy as np
import pytest

import mer_zoo
from mer_zoo import registry
from mer_zoo.data.container import write_dataset
from mer_zoo.data.conversation import Conversation, Dataset
from mer_zoo.errors import MerZooError


def tiny(label=0):
    features = {"text": np.arange(6, dtype=np.float32).reshape(2, 3)}
    dialogue = Conversation("d0", ("Ann", "Bob"), [label, 1], features, {"text": [True, False]}, ("Hi", "Ho"))
    return Dataset("tiny", (dialogue,), ("sad", "happy"), {"all": ("d0",)}, {"text": "drawn"})


def test_a_folder_written_anew_is_read_anew(tmp_path):
    write_dataset(tiny(0), tmp_path / "data")
    first = mer_zoo.load_data(str(tmp_path / "data"))
    assert mer_zoo.load_data(str(tmp_path / "data")) is first
    write_dataset(tiny(1), tmp_path / "data", overwrite=True)
    assert mer_zoo.load_data(str(tmp_path / "data"))["d0"].labels.tolist() == [1, 1]


def test_an_edited_class_makes_its_dataset_anew(tmp_path):
    source = """
from mer_zoo.data.synthetic import synthetic
class Mine:
    def __new__(cls):
        return synthetic(dialogues=({}, 2, 2), utterances=(2, 3))
"""
    file = tmp_path / "mine.py"
    file.write_text(source.format(2))
    assert len(mer_zoo.load_data(f"{file}:Mine")) == 6
    file.write_text(source.format(5))
    os.utime(file, ns=(1, 1))
    assert len(mer_zoo.load_data(f"{file}:Mine")) == 9


@pytest.mark.parametrize("remade", [lambda x: x, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_nothing_in_a_dataset_can_be_written(remade):
    data = remade(tiny())
    dialogue = data["d0"]
    assert data == tiny()
    for array in (dialogue.labels, dialogue.features["text"], dialogue.present["text"], dialogue.speaker_index):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    for mapping in (dialogue.features, dialogue.present, data.splits, data.provenance):
        with pytest.raises(TypeError):
            mapping["text"] = None


def test_an_array_given_stays_writable():
    labels = np.array([0, 1])
    Conversation("d", ("A", "B"), labels, {"text": np.zeros((2, 3))})
    labels[0] = 1


def test_equal_contents_are_equal():
    assert tiny() == tiny()
    assert tiny()["d0"] == tiny()["d0"]
    assert hash(tiny()["d0"]) == hash(tiny()["d0"])
    assert tiny(0)["d0"] != tiny(1)["d0"]
    assert tiny(0) != tiny(1)
    assert tiny()["d0"] != "d0"
    bare = Conversation("d", ("A",), [0], {"text": [[1.0]]})
    assert bare == Conversation("d", ("A",), [0], {"text": [[1.0]]}, {"text": [True]})
    assert bare != Conversation("d", ("A",), [0], {"text": [[1.0]]}, {"text": [False]})
    assert bare != Conversation("d", ("A",), [0], {"audio": [[1.0]]})


FAULTS = {
    "settings alone": ({"seed": 1}, r"data {'seed': 1} has no name. Add one, such as `name: synthetic`"),
    "a drive": ("C:\\data", "no dataset or folder 'C:\\\\data'"),
    "a drive with slashes": ("C:/data/mine", "no dataset or folder 'C:/data/mine'"),
    "a function of Python's": ("os:getcwd", "dataset/os:getcwd makes a str, not a dataset"),
    "settings that are no data": ({"name": "synthetic", "seed": object()}, "must be plain data"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_dataset_says_so(fault):
    reference, message = FAULTS[fault]
    with pytest.raises(MerZooError, match=message):
        mer_zoo.load_data(reference)


@pytest.mark.attack("D3")
def test_a_folder_with_a_colon_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_dataset(tiny(), "ds:x/good")
    write_dataset(tiny(), "json:JSONDecoder")
    assert mer_zoo.load_data("ds:x/good") == mer_zoo.load_data("json:JSONDecoder")


@pytest.mark.attack("D2")
def test_a_windows_path_is_no_class():
    with pytest.raises(MerZooError, match=r"no fusion named 'C:\\data'. To name a class, write"):
        registry.find("fusion", "C:\\data")


def test_types_are_for_others_too():
    assert files(mer_zoo).joinpath("py.typed").is_file()
