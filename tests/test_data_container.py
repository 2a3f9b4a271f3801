"""The container: exact round trips, atomic writing, and a clear word for every kind of damage."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from mer_zoo.data.container import FEATURES, MANIFEST, fingerprint_of, read_dataset, write_dataset
from mer_zoo.data.conversation import Conversation, Dataset
from mer_zoo.errors import MerZooError

MODALITIES = ["text", "audio", "visual", "Blick", "声", "text_present", "features", "a1"]
NAMES = st.text(min_size=1, max_size=8).filter(str.strip)


@st.composite
def datasets(draw):
    widths = draw(st.dictionaries(st.sampled_from(MODALITIES), st.integers(1, 4), min_size=1, max_size=3))
    ids = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    classes = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    spoken = draw(st.booleans())
    dialogues = []
    for name in ids:
        size = draw(st.integers(1, 5))
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        masked = draw(st.sets(st.sampled_from(sorted(widths))))
        dialogues.append(
            Conversation(
                id=name,
                speakers=tuple(draw(st.lists(NAMES, min_size=size, max_size=size))),
                labels=rng.integers(-1, len(classes), size),
                features={
                    m: (rng.normal(size=(size, width)) * 10.0 ** rng.integers(-40, 38, (size, width))).astype(
                        np.float32
                    )
                    for m, width in widths.items()
                },
                present={m: rng.random(size) < 0.5 for m in masked},
                transcript=tuple(draw(st.lists(st.text(max_size=9), min_size=size, max_size=size))) if spoken else None,
            )
        )
    cut = draw(st.integers(0, len(ids)))
    splits = {"train": tuple(ids[:cut]), "test": tuple(ids[cut:])} if draw(st.booleans()) else {"all": tuple(ids)}
    return Dataset(
        name=draw(NAMES),
        conversations=tuple(dialogues),
        label_names=tuple(classes),
        splits=splits,
        provenance={m: draw(st.text(max_size=9)) for m in widths},
        warnings=tuple(draw(st.lists(st.text(max_size=9), max_size=2))),
        ceiling=draw(st.none() | st.floats(0, 1)),
    )


def small(labels=(0, -1)):
    features = {"text": np.arange(6, dtype=np.float32).reshape(2, 3), "audio": np.ones((2, 2), np.float32)}
    dialogue = Conversation("d0", ("Ann", "Bob"), labels, features, {"audio": [True, False]}, ("Hi.", "Hé \ud83d"))
    other = Conversation("d1", ("Bob",), [1], {"text": -features["text"][:1], "audio": features["audio"][:1]})
    return Dataset("small", (dialogue, other), ("sad", "happy"), {"train": ("d0",), "test": ("d1",)}, {"text": "dice"})


@pytest.fixture
def folder(tmp_path):
    return write_dataset(small(), tmp_path / "small")


def assert_equal(one, two):
    for key in ("name", "label_names", "splits", "provenance", "warnings", "ceiling", "widths"):
        assert getattr(one, key) == getattr(two, key)
    for a, b in zip(one, two, strict=True):
        assert (a.id, a.speakers, a.transcript) == (b.id, b.speakers, b.transcript)
        np.testing.assert_array_equal(a.labels, b.labels)
        assert list(a.features) == list(b.features)
        for modality in a.features:
            assert a.features[modality].tobytes() == b.features[modality].tobytes()
            everywhere = np.ones(len(a), dtype=bool)
            np.testing.assert_array_equal(a.present.get(modality, everywhere), b.present.get(modality, everywhere))


@given(dataset=datasets())
@settings(max_examples=50, deadline=None)
def test_any_dataset_comes_back_as_it_was(dataset, tmp_path_factory):
    folder = write_dataset(dataset, tmp_path_factory.mktemp("home") / "data")
    back = read_dataset(folder)
    assert_equal(dataset, back)
    assert back.fingerprint == fingerprint_of(dataset) == fingerprint_of(back)


def test_the_fingerprint_is_of_contents_alone():
    data = small()
    assert fingerprint_of(data) == fingerprint_of(replace(data, name="other", warnings=("Beware.",), provenance={}))
    assert fingerprint_of(data) != fingerprint_of(small(labels=(0, 0)))
    assert fingerprint_of(data) != fingerprint_of(replace(data, splits={"all": ("d0", "d1")}))
    dialogue = data["d0"]
    seen = replace(dialogue, present={})
    assert fingerprint_of(data) != fingerprint_of(replace(data, conversations=(seen, data["d1"])))
    nudged = replace(
        dialogue, features={**dialogue.features, "text": np.nextafter(dialogue.features["text"], 9, dtype=np.float32)}
    )
    assert fingerprint_of(data) != fingerprint_of(replace(data, conversations=(nudged, data["d1"])))


def test_overwriting_takes_a_container_and_a_word(folder):
    with pytest.raises(MerZooError, match="holds a dataset already"):
        write_dataset(small(), folder)
    write_dataset(small(labels=(1, 1)), folder, overwrite=True)
    assert read_dataset(folder)["d0"].labels.tolist() == [1, 1]
    assert [entry.name for entry in folder.parent.iterdir()] == ["small"]  # nothing is left of the work


@pytest.mark.parametrize("make", [
    lambda target: target.write_text("thesis"),
    lambda target: target.mkdir(),
    lambda target: (target.mkdir(), (target / MANIFEST).write_text('{"format": "something else"}')),
    lambda target: (write_dataset(small(), target), (target / "thesis.tex").write_text("thesis")),
])  # fmt: skip
def test_what_is_not_ours_is_never_overwritten(tmp_path, make):
    target = tmp_path / "precious"
    make(target)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(MerZooError, match=r"exists and is not a mer_zoo dataset.*Name a new folder"):
        write_dataset(small(), target, overwrite=True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_write_that_fails_leaves_what_was_there(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(MerZooError, match="cannot be written: No space left on device"):
        write_dataset(small(labels=(1, 1)), folder, overwrite=True)
    assert read_dataset(folder)["d0"].labels.tolist() == [0, -1]
    assert [entry.name for entry in folder.parent.iterdir()] == ["small"]


def test_a_place_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MerZooError, match="cannot be written"):
        write_dataset(small(), tmp_path / "file" / "data")


def edit(folder, change):
    content = json.loads((folder / MANIFEST).read_text())
    change(content)
    (folder / MANIFEST).write_text(json.dumps(content))


def rewrite_features(folder, change):
    """Change the feature file and the sha256 that the manifest has of it."""
    import hashlib

    tensors = safetensors.numpy.load_file(folder / FEATURES)
    change(tensors)
    safetensors.numpy.save_file(tensors, folder / FEATURES)
    digest = hashlib.sha256((folder / FEATURES).read_bytes()).hexdigest()
    edit(folder, lambda m: m.update(features_sha256=digest))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


DAMAGE = {
    "no manifest": (lambda f: (f / MANIFEST).unlink(), r"is not a mer_zoo dataset \(it has no manifest.json\)"),
    "manifest truncated": (lambda f: truncate(f / MANIFEST), "is not valid JSON .* truncated or damaged"),
    "manifest not text": (lambda f: (f / MANIFEST).write_bytes(b"\xff\x00\xfe"), "is not valid JSON"),
    "manifest a list": (lambda f: (f / MANIFEST).write_text("[]"), "is not the manifest of a mer_zoo dataset"),
    "another format": (lambda f: edit(f, lambda m: m.update(format="zip")), "is not the manifest of a mer_zoo dataset"),
    "a later version": (lambda f: edit(f, lambda m: m.update(version=2)), "is of version 2; .* Update mer_zoo"),
    "a missing key": (lambda f: edit(f, lambda m: m.pop("splits")), "splits: field required.*import the data again"),
    "a key too many": (lambda f: edit(f, lambda m: m.update(colour="red")), "colour: extra inputs are not permitted"),
    "a wrong type": (
        lambda f: edit(f, lambda m: m["dialogues"][0].update(labels=["sad", "sad"])),
        r"dialogues\.0\.labels\.0: input should be a valid integer",
    ),
    "a label changed": (
        lambda f: edit(f, lambda m: m["dialogues"][0].update(labels=[1, 1])),
        "do not have the fingerprint written with them",
    ),
    "a speaker lost": (
        lambda f: edit(f, lambda m: m["dialogues"][0]["speakers"].pop()),
        "dialogue 'd0': 2 labels for 1",
    ),
    "a count changed": (lambda f: edit(f, lambda m: m["dialogues"][1].update(utterances=4)), "'features/audio': found"),
    "features missing": (lambda f: (f / FEATURES).unlink(), "feature file features.safetensors is missing"),
    "features truncated": (lambda f: truncate(f / FEATURES), "sha256 is .* truncated or changed"),
    "features not ours": (
        lambda f: rewrite_features(f, lambda t: t.pop("features/audio")),
        "'features/audio': found None, the manifest wants",
    ),
    "a float64 among them": (
        lambda f: rewrite_features(f, lambda t: t.update({"features/text": t["features/text"].astype(np.float64)})),
        r"'features/text': found \('float64', \(3, 3\)\)",
    ),
    "a mask lost": (
        lambda f: rewrite_features(f, lambda t: t.pop("present/audio")),
        "do not have the fingerprint written with them",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named(folder, kind):
    harm, message = DAMAGE[kind]
    harm(folder)
    with pytest.raises(MerZooError, match=message) as caught:
        read_dataset(folder)
    assert str(folder) in str(caught.value) or kind == "a speaker lost"


def test_a_feature_file_that_is_not_safetensors(folder):
    import hashlib

    (folder / FEATURES).write_bytes(b"not a tensor in sight")
    digest = hashlib.sha256((folder / FEATURES).read_bytes()).hexdigest()
    edit(folder, lambda m: m.update(features_sha256=digest))
    with pytest.raises(MerZooError, match="is not a safetensors file of numpy arrays"):
        read_dataset(folder)


def test_paths_that_lead_nowhere(tmp_path):
    with pytest.raises(MerZooError, match=re.escape("no such dataset folder")):
        read_dataset(tmp_path / "nothing")
    file = tmp_path / "mosi.npz"
    file.write_bytes(b"")
    with pytest.raises(MerZooError, match=r"is a file, not a dataset folder. Import it first: mer-zoo import LAYOUT"):
        read_dataset(file)


def test_the_manifest_is_readable_line_by_line(folder):
    lines = (folder / MANIFEST).read_text().splitlines()
    assert '"label_names": ["sad", "happy"],' in lines
    assert sum(line.startswith('  {"id": ') for line in lines) == 2
