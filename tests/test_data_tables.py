"""Tables as people have them: CSV, JSON Lines, Parquet, DataFrames and arrays become the same data, or are refused."""

import builtins
import gzip
import json
import pickle

import numpy as np
import pytest

import mer_zoo
from mer_zoo import registry
from mer_zoo.data.container import read_dataset, write_dataset
from mer_zoo.data.importing import import_dataset
from mer_zoo.data.sniffing import what_is
from mer_zoo.errors import MerZooError
from mer_zoo.training.experiment import keep, prepare, weights_beside

pandas = pytest.importorskip("pandas")
parquet = pytest.importorskip("pyarrow.parquet")

ROWS = [
    {"dialogue": f"d{d}", "utterance": 10 - u, "speaker": "AB"[u % 2], "label": ("sad", "glad", None)[u % 3]}
    | {"split": ("train", "dev", "test")[d], "text": ("Oh, no!", "Yes.", "[laughs]")[u % 3]}
    | {"mood": ("low", "high")[d % 2], "audio_0": float(d), "audio_1": u / 2, "face": [d + 0.5, u - 0.5, 1.0]}
    for d in range(3)
    for u in range(3)
]
ROWS[4] |= {"audio_0": None, "audio_1": None}
ROWS[5] |= {"face": None}


def frame(rows=ROWS):
    return pandas.DataFrame(rows)


def write(kind, path, rows=ROWS):
    path = path / f"mine.{kind}"
    table = frame(rows)
    if kind == "csv":
        if "face" in table:
            table["face"] = [json.dumps(x) if isinstance(x, list) else None for x in table["face"]]
        table.to_csv(path, index=False)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n" for row in rows))
    else:
        table.to_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "dataframe"])
def test_every_way_gives_the_same(kind, tmp_path):
    data = mer_zoo.from_dataframe(frame()) if kind == "dataframe" else import_dataset(kind, write(kind, tmp_path))
    assert data.label_names == ("glad", "sad")
    assert data.splits == {"train": ("d0",), "validation": ("d1",), "test": ("d2",)}
    assert data.widths == {"audio": 2, "face": 3}
    second = data["d1"]
    assert second.speakers == ("A", "B", "A")
    assert second.labels.tolist() == [-1, 0, 1]  # by `utterance`, which counts down in the file
    assert second.transcript == ("[laughs]", "Yes.", "Oh, no!")
    assert second.values("face").tolist() == [[0, 0, 0], [1.5, 0.5, 1], [1.5, -0.5, 1]]
    assert second.mask("face").tolist() == [False, True, True]
    assert second.mask("audio").tolist() == [True, False, True]
    assert second.targets["mood"].tolist() == [0, 0, 0]
    assert data.provenance["mood"] == "labels 0 high, 1 low"
    assert read_dataset(write_dataset(data, tmp_path / "data")).fingerprint == data.fingerprint
    same = mer_zoo.from_dataframe(frame())
    assert data.fingerprint == same.fingerprint


def test_other_names_and_order_of_classes():
    renamed = frame().rename(columns={"dialogue": "Dialogue_ID", "utterance": "Utterance_ID", "label": "Emotion"})
    columns = {"dialogue": "Dialogue_ID", "utterance": "Utterance_ID", "label": "Emotion"}
    data = mer_zoo.from_dataframe(renamed, **columns, label_names=["sad", "glad", "calm"], ignore=["mood", "face"])
    assert data.label_names == ("sad", "glad", "calm")
    assert data["d0"].labels.tolist() == [-1, 1, 0]
    assert data.widths == {"audio": 2}
    assert data["d0"].targets == {}


def test_without_labels_and_splits_there_is_one_pool(tmp_path):
    rows = [{k: v for k, v in row.items() if k not in ("label", "split", "mood")} for row in ROWS]
    data = import_dataset("csv", write("csv", tmp_path, rows))
    assert data.splits == {"all": ("d0", "d1", "d2")}
    assert data["d0"].labels.tolist() == [-1, -1, -1]


def test_a_model_predicts_on_a_table_without_labels(tmp_path):
    rng = np.random.default_rng(0)
    columns = {"dialogue": np.repeat(np.arange(12), 5), "utterance": np.tile(np.arange(5), 12)}
    columns["speaker"] = ["A", "B"] * 30
    features = {"audio": rng.normal(size=(60, 4))}
    labelled = mer_zoo.from_arrays(**columns, features=features, label=["sad", "glad", "calm"] * 20)
    experiment = prepare("bilstm", labelled, changes=["training.epochs=1"])
    file = weights_beside(keep(experiment, experiment.run(), tmp_path, weights=True))
    bare = mer_zoo.from_dataframe(pandas.DataFrame(columns), features=features)
    assert mer_zoo.load_model(file).predict(list(bare))["0"].shape == (5, 3)
    with pytest.raises(MerZooError, match="label"):
        prepare("bilstm", bare)


def test_features_beside_the_table(tmp_path):
    rows = [{k: row[k] for k in ("dialogue", "utterance", "speaker", "label", "text")} for row in ROWS]
    path = write("csv", tmp_path, rows)
    values = np.arange(27.0).reshape(9, 3)
    np.savez(tmp_path / "mine.npz", text=values, text_present=np.arange(9) != 4)
    data = import_dataset("csv", path)
    assert data["d1"].values("text").tolist() == [values[5].tolist(), [0, 0, 0], values[3].tolist()]
    assert data["d1"].transcript is not None
    (tmp_path / "mine.npz").rename(tmp_path / "other.npz")
    assert import_dataset("csv", path, settings={"features": "other.npz"}).fingerprint == data.fingerprint
    np.savez(tmp_path / "other.npz", text=values[:4])
    with pytest.raises(MerZooError, match=r"'text' has 4 rows, 'dialogue' has 9"):
        import_dataset("csv", path, settings={"features": "other.npz"})


def test_separators_and_marks(tmp_path):
    text = "﻿dialogue;utterance;speaker;audio0\nd;2;Ann;1,5\n".replace("1,5", "1.5")
    (tmp_path / "mine.csv").write_text(text, encoding="utf-8")
    assert import_dataset("csv", tmp_path / "mine.csv")["d"].features["audio"].tolist() == [[1.5]]


def many_notes(table):
    tables = [
        table.assign(dialogue=[f"{i}_{d}" for d in table["dialogue"]], note=[f"n{i}.{j}" for j in range(9)])
        for i in range(120)
    ]
    return pandas.concat(tables, ignore_index=True)


REFUSALS = {
    "no column": (lambda t: t.drop(columns="speaker"), r"has no column 'speaker'.*`speaker: NAME`"),
    "a word for order": (lambda t: t.assign(utterance="first"), r"'utterance', row 0: 'first' is not a number that"),
    "the same utterance": (lambda t: t.assign(utterance=1), r"dialogue 'd0' has the utterance 1 twice"),
    "two splits": (lambda t: t.assign(split=["train", "test", "dev"] * 3), r"'d0': lies in the splits test and"),
    "a split": (lambda t: t.assign(split="trian"), r"unknown split 'trian'\. Did you mean 'train'"),
    "no split": (lambda t: t.assign(split=None), r"unknown split ''"),
    "half a modality": (
        lambda t: t.assign(audio_0=[None] + [1.0] * 8),
        "'audio' (are .* in part|hold '')",
    ),
    "a number missing": (lambda t: t.rename(columns={"audio_1": "audio_2"}), r"'audio' number 1 is missing"),
    "features called label": (
        lambda t: t.rename(columns={"audio_0": "label_0", "audio_1": "label_1"}),
        "would be a modality called 'label'",
    ),
    "a column of floats": (lambda t: t.assign(age=1.5), r"'age', row 0: '1.5' is no label"),
    "too many values": (many_notes, r"'note': holds 1,080 different values, so it is no column of labels"),
    "a slip": (lambda t: t.rename(columns={"label": "labels"}), r"'labels' is not known, and there is no 'label'"),
    "a capital": (lambda t: t.rename(columns={"split": "Split"}), r"'Split' is not known, and there is no 'split'"),
    "no features": (lambda t: t.drop(columns=["audio_0", "audio_1", "face"]), "has no features"),
    "no speaker": (
        lambda t: t.assign(speaker=None),
        r"'speaker', row 0: nothing is not|mine\.csv:2: has no speaker",
    ),
    "lists of two lengths": (
        lambda t: t.assign(face=[[1.0]] + [[1.0, 2.0]] * 8),
        "Give all one length|want a list of 1 numbers",
    ),
}


@pytest.mark.parametrize("kind", ["csv", "parquet", "dataframe"])
@pytest.mark.parametrize("case", REFUSALS)
def test_refusals(case, kind, tmp_path):
    change, message = REFUSALS[case]
    table = change(frame())
    if kind == "dataframe":
        with pytest.raises(MerZooError, match=message):
            mer_zoo.from_dataframe(table)
    else:
        path = write(kind, tmp_path, table.astype(object).where(table.notna(), None).to_dict("records"))
        with pytest.raises(MerZooError, match=message):
            import_dataset(kind, path)


def test_a_table_without_rows(tmp_path):
    (tmp_path / "mine.csv").write_text("dialogue,utterance,speaker,audio_0\n")
    with pytest.raises(MerZooError, match=r"mine\.csv: has no rows"):
        import_dataset("csv", tmp_path / "mine.csv")
    with pytest.raises(MerZooError, match="has no rows"):
        mer_zoo.from_dataframe(frame().head(0), ignore=["face"])


def test_what_is_asked_for_must_be_there():
    with pytest.raises(MerZooError, match=r"has no column 'mod' to ignore\. Did you mean 'mood'"):
        mer_zoo.from_dataframe(frame(), ignore=["mod"])
    with pytest.raises(MerZooError, match=r"from_dataframe takes dialogue.*given: lable"):
        mer_zoo.from_dataframe(frame(), lable="label")
    with pytest.raises(MerZooError, match=r"no class 'glad'\. Known: calm, sad"):
        mer_zoo.from_dataframe(frame(), label_names=["sad", "calm"])
    with pytest.raises(MerZooError, match=r"want a DataFrame of pandas or polars, not a list"):
        mer_zoo.from_dataframe([1])
    with pytest.raises(MerZooError, match=r"'mood' 2 times\. Rename one"):
        mer_zoo.from_dataframe(pandas.concat([frame(), frame()[["mood"]]], axis=1))
    with pytest.raises(MerZooError, match=r"the name of column 0 is no text"):
        mer_zoo.from_dataframe(frame().rename(columns={"mood": 0}))


FILES = {
    "a CSV table": b"dialogue,utterance,speaker\n",
    "a text file": b"hello\n",
    "JSON, an object a line": b'{"a": 1}\n{"a": 2}\n',
    "a JSON document": b'[{"a": 1},\n{"a": 2}]',
    "a page of HTML": b"\n<!DOCTYPE html><html></html>",
    "an XML file": b"<?xml version='1.0'?>",
    "a Parquet file": b"PAR1....",
    "a gzip archive": gzip.compress(b"x"),
    "a pickle": pickle.dumps({"a": 1}),
    "an empty file": b"",
    "a zip archive": b"PK\x03\x04",
    "a single numpy array": b"\x93NUMPY\x01\x00",
    "an HDF5 file": b"\x89HDF\r\n\x1a\n",
    "text, but not in UTF-8": "Gefühl,1\n".encode("latin1"),
    "a picture": b"\x89PNG\r\n",
    "a safetensors file": (2).to_bytes(8, "little") + b'{"__metadata__":{}}',
    "a pointer of Git LFS: the file itself was not fetched": b"version https://git-lfs.github.com/spec/v1\n",
    "no kind of file known here": bytes(range(256)),
}


@pytest.mark.parametrize("what", FILES)
def test_a_wrong_file_is_called_what_it_is(what, tmp_path):
    path = tmp_path / "features"
    path.write_bytes(FILES[what])
    assert what_is(path) == what
    for card in registry.cards("importer"):
        with pytest.raises(MerZooError) as caught:
            import_dataset(card.name, path)
        reads = registry.load(card).reads
        assert what in reads or str(caught.value).startswith(f"{path}: is {what}; '{card.name}' reads {reads[0]}")
        assert "allow_pickle" not in str(caught.value)


def test_a_pickle_of_protocol_0_is_a_pickle(tmp_path):
    for content in ({"a": [1]}, [1, 2], (1, "a"), "a"):
        (tmp_path / "x").write_bytes(pickle.dumps(content, 0))
        assert what_is(tmp_path / "x") == "a pickle"


def test_the_right_importer_is_named(tmp_path):
    (tmp_path / "features.npz").write_bytes(b"dialogue,turn\n")
    with pytest.raises(MerZooError, match=r"is a CSV table; 'npz' reads an \.npz\. Import it by: csv\."):
        import_dataset("npz", tmp_path / "features.npz")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    path = write("parquet", tmp_path)
    kept = builtins.__import__
    monkeypatch.setattr(
        builtins, "__import__", lambda name, *rest: _refuse() if name.startswith("pyarrow") else kept(name, *rest)
    )
    with pytest.raises(MerZooError, match=r"pip install 'mer-zoo\[tables\]'"):
        import_dataset("parquet", path)


def _refuse():
    raise ImportError("no module")


def test_from_arrays_takes_further_label_columns():
    x = np.ones((2, 3))
    rows = {"dialogue": [0, 0], "utterance": [0, 1], "speaker": "AB"}
    data = mer_zoo.from_arrays(**rows, features={"text": x}, sentiment=["up", None])
    assert data["0"].targets["sentiment"].tolist() == [0, -1]
    with pytest.raises(MerZooError, match=r"'text' has 1 rows, 'dialogue' has 2"):
        mer_zoo.from_arrays(**rows, features={"text": x[:1]})
