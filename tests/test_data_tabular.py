"""The general importer: rows in any order become dialogues; every bad column is named with its place."""

import pickle
import zipfile

import numpy as np
import pytest

from mer_zoo.data.container import fingerprint_of, read_dataset, write_dataset
from mer_zoo.data.importing import import_dataset
from mer_zoo.data.tabular import import_table
from mer_zoo.errors import MerZooError


def columns(**changes):
    """Five utterances of two dialogues, out of order; None removes a column."""
    table = {
        "dialogue": np.array(["b", "a", "b", "a", "a"]),
        "turn": np.array([1, 7, 0, 2, 3], dtype=np.int16),
        "split": np.array(["dev", "train", "dev", "train", "train"]),
        "label": np.array([0, 1, -1, 0, 1], dtype=np.int8),
        "transcript": np.array(["b1", "a7", "b0", "a2", "a3"]),
        "speaker": np.array(["Bo", "Al", "Cy", "Al", "Di"]),
        "label_names": np.array(["sad", "happy"]),
        "text": np.arange(10, dtype=np.float16).reshape(5, 2),
        "gaze": np.arange(15, dtype=np.float64).reshape(5, 3),
    }
    return {key: value for key, value in (table | changes).items() if value is not None}


@pytest.fixture
def table(tmp_path):
    def write(**changes):
        path = tmp_path / "dialogues.npz"
        np.savez(path, **columns(**changes))
        return path

    return write


def test_rows_are_sorted_into_dialogues(table):
    data = import_table(table())
    assert data.name == "dialogues"
    assert [dialogue.id for dialogue in data] == ["b", "a"]
    assert data["a"].transcript == ("a2", "a3", "a7")
    assert data["a"].speakers == ("Al", "Di", "Al")
    assert data["b"].labels.tolist() == [-1, 0]
    assert data["b"].features["text"].tolist() == [[4, 5], [0, 1]]
    assert data.widths == {"text": 2, "gaze": 3}
    assert data.splits == {"train": ("a",), "validation": ("b",)}
    assert data.label_names == ("sad", "happy")
    assert data.provenance["gaze"] == "dialogues.npz, column 'gaze' (float64)"


def test_what_is_optional_may_be_absent(table):
    data = import_table(table(speaker=None, label_names=None, transcript=None, gaze=None), name="mine")
    assert data.name == "mine"
    assert data["a"].speakers == ("a", "a", "a")
    assert data.label_names == ("0", "1")
    assert data["a"].transcript is None


def test_integer_ids(table):
    data = import_table(table(dialogue=np.array([4, 2, 4, 2, 2])))
    assert [dialogue.id for dialogue in data] == ["4", "2"]


def test_further_columns_are_labels_beside_the_emotion(table, tmp_path):
    """Rows are sorted like the rest, text is numbered by name, and all of it comes back from a container."""
    data = import_table(table(sentiment=np.array(["pos", "neg", "", "neg", "mid"]), age=np.array([3, 1, -1, 0, 2])))
    assert {task: x.tolist() for task, x in data["a"].targets.items()} == {"sentiment": [1, 0, 1], "age": [0, 2, 1]}
    assert data["b"].targets["sentiment"].tolist() == [-1, 2]
    assert data.provenance["sentiment"] == "labels 0 mid, 1 neg, 2 pos"
    assert list(read_dataset(write_dataset(data, tmp_path / "kept"))) == list(data)
    assert list(import_table(table(sentiment=np.array(["pos"] * 5), age=np.array([3, 1, -1, 0, 2])))) != list(data)


def test_missing_rows_are_marked_not_guessed(table):
    text = columns()["text"].copy()
    text[2] = np.nan
    data = import_table(table(text=text, text_present=np.array([True, True, False, True, True])))
    assert data["b"].present["text"].tolist() == [False, True]
    assert data["b"].features["text"][0].tolist() == [0, 0]
    assert "text" not in data["a"].present


@pytest.mark.parametrize(("word", "split"), [
    ("train", "train"), ("dev", "validation"), ("val", "validation"), ("validation", "validation"), ("test", "test"),
    ("all", "all"),
])  # fmt: skip
def test_words_for_splits(table, word, split):
    assert import_table(table(split=np.array([word] * 5))).splits == {split: ("b", "a")}


def bad(value, at):
    array = columns()["text"].astype(np.float64)
    array[at] = value
    return array


FAULTS = {
    "missing column": ({"turn": None}, "has no column 'turn'. It needs dialogue, turn, split, label and a modality"),
    "no modality": ({"text": None, "gaze": None}, "has no features. Add a float array of shape"),
    "unknown column": ({"speakr": np.array(["x"] * 5)}, "column 'speakr' .* is unknown.* Did you mean 'speaker'"),
    "float labels of another kind": ({"mood": np.zeros(5)}, "column 'mood' .* is unknown.* labels integers or text"),
    "labels of another length": ({"mood": np.zeros(4, int)}, "column 'mood': has 4 rows, 'text' has 5"),
    "another label below -1": ({"mood": np.full(5, -2)}, "labels of 'mood' must be one class index"),
    "integer features": (
        {"audio": np.ones((5, 2), int)},
        r"column 'audio' \(int64, shape \(5, 2\)\): is unknown, and feat",
    ),
    "a mask of nothing": ({"txt_present": np.ones(5, bool)}, "'txt_present' .* Did you mean 'text_present'"),
    "float labels": ({"label": np.zeros(5)}, "column 'label': has dtype float64 .* want integers, one per row"),
    "numeric splits": ({"split": np.zeros(5, int)}, "column 'split': has dtype int64 .* want text"),
    "two-dimensional turns": ({"turn": np.zeros((5, 1), int)}, r"column 'turn': has dtype int64 and shape \(5, 1\)"),
    "numeric class names": ({"label_names": np.arange(2)}, "column 'label_names': .* want text, one per class"),
    "mask of numbers": ({"text_present": np.ones(5)}, "'text_present': has dtype float64 .* want true or false"),
    "rows that disagree": ({"label": np.zeros(4, int)}, "column 'label': has 4 rows, 'text' has 5"),
    "no rows": ({"text": np.zeros((0, 2)), "gaze": None}, "has no utterances"),
    "a turn twice": ({"turn": np.array([1, 2, 0, 2, 3])}, "dialogue 'a' has turn 2 twice .* Number the turns"),
    "unknown split": ({"split": np.array(["tset"] * 5)}, "dialogue 'b': unknown split 'tset'. Did you mean 'test'"),
    "a dialogue torn": (
        {"split": np.array(["test", "train", "dev", "train", "train"])},
        "dialogue 'b': lies in the splits test and validation. Splits are by dialogue",
    ),
    "NaN": (
        {"text": bad(np.nan, 3)},
        r"column 'text', row 3 \(dialogue 'a', turn 2\): NaN or infinite .* 'text_present'",
    ),
    "beyond float32": ({"text": bad(1e300, 0)}, r"column 'text', row 0 .*NaN or infinite as float32; 1 such row"),
    "a label without a name": ({"label": np.array([0, 1, 2, 0, 1])}, "label 2 has no name"),
    "a label below -1": ({"label": np.array([0, 1, -2, 0, 1])}, "dialogue 'b': labels must be one class index"),
    "a nameless speaker": (
        {"speaker": np.array(["Bo", "Al", "", "Al", "Di"])},
        "dialogue 'b', utterance 0: has no spea",
    ),
    "all beside others": (
        {"split": np.array(["all", "train", "all", "train", "train"])},
        "has the split 'all' beside 'train'",
    ),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(table, fault):
    changes, message = FAULTS[fault]
    with pytest.raises(MerZooError, match=message):
        import_table(table(**changes))


def test_a_column_of_sentences_is_no_column_of_labels(tmp_path):
    count = 101
    table = {
        "dialogue": np.array(["a"] * count), "turn": np.arange(count), "split": np.array(["all"] * count),
        "label": np.zeros(count, int), "text": np.zeros((count, 1)),
        "said": np.array([f"no {i}" for i in range(count)]),
    }  # fmt: skip
    np.savez(tmp_path / "t.npz", **table)
    with pytest.raises(MerZooError, match="'said': holds 101 different texts, so it is no column of labels"):
        import_table(tmp_path / "t.npz")


@pytest.mark.attack("D9")
def test_objects_are_refused_unopened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("was run",)

    path = tmp_path / "bomb.npz"
    np.savez(path, **columns(speaker=np.array([Bomb()] * 5, dtype=object)))
    with pytest.raises(
        MerZooError, match=r"column 'speaker': holds Python objects, which are pickles and are not read"
    ):
        import_table(path)


def test_files_that_are_no_table(tmp_path):
    with pytest.raises(MerZooError, match="no such file"):
        import_table(tmp_path / "nothing.npz")
    with pytest.raises(MerZooError, match="is a folder"):
        import_table(tmp_path)
    contents = {"empty": b"", "text": b"dialogue,turn\n", "pickle": pickle.dumps({}), "zip": b"PK\x03\x04"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MerZooError, match=r"is not a readable .npz .* Write it with numpy.savez"):
            import_table(tmp_path / name)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(MerZooError, match="is a single array"):
        import_table(tmp_path / "one.npy")
    with zipfile.ZipFile(tmp_path / "odd.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(MerZooError, match=r"'readme.txt': is not a numpy array"):
        import_table(tmp_path / "odd.npz")


def test_every_truncation_of_a_table_is_an_error(table):
    path = table()
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(MerZooError):
            import_table(path)


def test_a_damaged_column_is_named(table):
    path = table()
    content = bytearray(path.read_bytes())
    at = content.index(np.arange(10, dtype=np.float16).tobytes())
    content[at] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(MerZooError, match=r"column 'text': cannot be read .*The file is damaged"):
        import_table(path)


def test_unknown_layouts_have_a_nearest_match(table):
    with pytest.raises(MerZooError, match=r"no layout named 'mmgcn-iemocp'. Did you mean 'mmgcn_iemocap'\?"):
        import_dataset("mmgcn-iemocp", table())


def test_an_import_and_its_container_have_one_fingerprint(table, tmp_path):
    data = import_dataset("npz", table())
    assert data.fingerprint == fingerprint_of(data)
    assert read_dataset(write_dataset(data, tmp_path / "dialogues")).fingerprint == data.fingerprint


REAL = {
    "mosi/mosi.npz": ({"text": 100, "audio": 73, "visual": 100}, {"train": (62, 1447), "test": (31, 752)}, 1, 2),
    "meld/meld_text.npz": (
        {"text": 384},
        {"train": (1038, 9989), "validation": (114, 1109), "test": (280, 2610)},
        9,
        7,
    ),
    "meld/meld_dev_text_audio.npz": ({"text": 768, "audio": 768}, {"all": (114, 1108)}, 8, 7),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(shared_data, name):
    widths, splits, speakers, classes = REAL[name]
    path = shared_data(name)
    data = import_table(path)
    assert data.widths == widths
    assert {s: (len(ids), sum(map(len, data.select(ids)))) for s, ids in data.splits.items()} == splits
    assert data.max_speakers == speakers
    assert len(data.label_names) == classes
    with np.load(path) as table:
        first = np.flatnonzero(table["dialogue"] == table["dialogue"][0])
        dialogue = data[str(table["dialogue"][0])]
        np.testing.assert_array_equal(dialogue.features["text"], table["text"][first].astype(np.float32))
        assert dialogue.transcript == tuple(table["transcript"][first].tolist())
