"""The field's pickles: every layout read, every protocol, and nothing that a pickle asks for is ever run."""

import builtins
import contextlib
import io
import os
import pickle
import subprocess
import sys
from collections import OrderedDict

import numpy as np
import pytest

from mer_zoo.data.importing import import_dataset
from mer_zoo.data.pickles import import_pickle, layouts
from mer_zoo.data.unpickling import load_plain
from mer_zoo.errors import MerZooError

PICKLE_LAYOUTS = {layout.name: layout for layout in layouts().values()}
LENGTHS = {"mmgcn-iemocap": 9, "mmgcn-meld": 10, "sdt-iemocap": 12, "sdt-meld": 13, "graphsmile-meld": 14}


def parts(name, **changes):
    """Three tiny dialogues in a layout, keyed as the releases key them."""
    layout = PICKLE_LAYOUTS[name]
    keys = [0, 7, 2] if layout.one_hot_speakers else ["Ses05F_impro01", "Ses01M_script02", "Ses03F_impro03"]
    rng = np.random.default_rng(0)
    made = {part: {} for part in layout.parts}
    for key, size in zip(keys, (3, 1, 2), strict=True):
        made["ids"][key] = [f"{key}_{turn}" for turn in range(size)]
        made["labels"][key] = [turn % 2 for turn in range(size)]
        if "sentiment" in made:
            made["sentiment"][key] = [turn % 3 for turn in range(size)]
        made["transcript"][key] = [f"línea {turn}" for turn in range(size)]
        if layout.one_hot_speakers:
            made["speakers"][key] = [[int(i == turn % 2 + 3) for i in range(9)] for turn in range(size)]
        else:
            made["speakers"][key] = ["FM"[turn % 2] for turn in range(size)]
        for modality, width in layout.widths.items():
            made[modality][key] = rng.normal(size=(size, width)).astype(np.float32)
    made |= {"train": keys[:2], "test": keys[2:]} | changes
    return tuple(made[part] for part in layout.parts)


@pytest.fixture
def saved(tmp_path):
    def save(content, protocol=2):
        path = tmp_path / "features.pkl"
        path.write_bytes(pickle.dumps(content, protocol))
        return path

    return save


def load(content, path):
    path.write_bytes(content)
    return load_plain(path)


@pytest.mark.parametrize("name", PICKLE_LAYOUTS)
def test_every_layout(saved, name):
    content = parts(name)
    assert len(content) == LENGTHS[name]
    data = import_dataset(name, saved(content))
    layout = PICKLE_LAYOUTS[name]
    first, second, third = (dialogue.id for dialogue in data)
    assert data.name == name
    assert data.splits == {"train": (first, second), "test": (third,)}
    assert data.widths == layout.widths
    assert data.label_names == layout.label_names
    dialogue = data[first]
    assert dialogue.labels.tolist() == [0, 1, 0]
    assert dialogue.transcript == ("línea 0", "línea 1", "línea 2")
    assert dialogue.speakers == (
        ("speaker 3", "speaker 4", "speaker 3") if layout.one_hot_speakers else ("F", "M", "F")
    )
    named = dict(zip(layout.parts, content, strict=True))
    for modality in layout.widths:
        np.testing.assert_array_equal(dialogue.features[modality], next(iter(named[modality].values())))
    assert "features.pkl" in data.provenance["text"]
    assert data.fingerprint


def test_the_first_of_four_texts_is_read(saved):
    content = list(parts("sdt-iemocap"))
    data = import_pickle(saved(tuple(content)), PICKLE_LAYOUTS["sdt-iemocap"])
    np.testing.assert_array_equal(data["Ses05F_impro01"].features["text"], content[3]["Ses05F_impro01"])


def test_sentiment_is_read_or_follows_from_the_emotions_of_iemocap(saved):
    data = import_dataset("graphsmile-meld", saved(parts("graphsmile-meld")))
    assert [dialogue.targets["sentiment"].tolist() for dialogue in data] == [[0, 1, 2], [0], [0, 1]]
    labels = {"Ses05F_impro01": [0, 1, 2], "Ses01M_script02": [-1], "Ses03F_impro03": [5, 4]}
    data = import_dataset("sdt-iemocap", saved(parts("sdt-iemocap", labels=labels)))
    assert [dialogue.targets["sentiment"].tolist() for dialogue in data] == [[2, 0, 1], [-1], [0, 2]]
    assert not import_dataset("sdt-meld", saved(parts("sdt-meld")))["0"].targets


def test_a_dialogue_without_sentiment_is_named(saved):
    content = parts("graphsmile-meld", sentiment={0: [0, 1, 2], 7: [1]})
    with pytest.raises(MerZooError, match="part 'sentiment': has no dialogue 2"):
        import_dataset("graphsmile-meld", saved(content))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("shape", ["matrix", "rows", "lists", "objects"])
def test_every_protocol_and_shape_of_features(saved, protocol, shape):
    change = {
        "matrix": lambda x: x,
        "rows": lambda x: list(x.astype(np.float64)),
        "lists": lambda x: x.tolist(),
        "objects": lambda x: x.astype(object),
    }[shape]
    plain = parts("mmgcn-iemocap")
    audio = {key: change(value) for key, value in plain[4].items()}
    data = import_pickle(saved(parts("mmgcn-iemocap", audio=audio), protocol), PICKLE_LAYOUTS["mmgcn-iemocap"])
    for dialogue in data:
        np.testing.assert_array_equal(dialogue.features["audio"], plain[4][dialogue.id])


VALUES = [
    {"a": [1, 2.5, None, True, "é", b"raw\xff", (1, 2), 10**40]},
    {1, 2}, frozenset("ab"), bytearray(b"xy"), OrderedDict(a=1),
    np.arange(6, dtype=">i2").reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.zeros((0, 3), "f2"),
    np.array(["ab", "c"]), np.array([b"ab", b"c"]), np.array([True, False]), np.array(3.0),
    np.array([[1, 2], None, "x"], dtype=object), np.float32(0.1), np.int64(-5), np.str_("word"), np.bool_(True),
    [np.ones(2, "f4"), np.ones(2, ">f8"), np.arange(10)[::2]],
]  # fmt: skip


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_plain_data_comes_through(tmp_path, protocol, value):
    back = load(pickle.dumps(value, protocol), tmp_path / "plain.pkl")
    if isinstance(value, np.ndarray):
        assert back.dtype.newbyteorder("=") == value.dtype.newbyteorder("=")  # numpy swaps some on reading
        np.testing.assert_array_equal(np.asarray(back), value)
    elif isinstance(value, list):
        for one, two in zip(back, value, strict=True):
            np.testing.assert_array_equal(np.asarray(one), two)
    else:
        assert back == value
        assert type(back) is type(value)


def test_what_python_2_wrote(tmp_path):
    """An int array and a set as Python 2's numpy and cPickle spelled them: strings for bytes, `__builtin__`."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n(S'i2'\nI0\n"
        b"I1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS'\\x01\\x00\\xff\\xff'\ntb."
    )
    np.testing.assert_array_equal(np.asarray(load(array, tmp_path / "two.pkl")), np.array([1, -1], np.int16))
    assert load(b"c__builtin__\nset\n((lI1\naI2\natR.", tmp_path / "two.pkl") == {1, 2}
    assert load(b"S'caf\\xe9'\n.", tmp_path / "two.pkl") == "café"


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(("function", "argument"), [
    (os.system, "touch ran"), (builtins.eval, "open('ran', 'w')"), (builtins.exec, "open('ran', 'w')"),
    (subprocess.Popen, "touch ran"), (builtins.getattr, "x"), (builtins.__import__, "os"), (pickle.loads, b"N."),
    (np.load, "x"), (np.frombuffer, b""), (io.open, "ran"), (type, "x"),
])  # fmt: skip
@pytest.mark.attack("H1")
def test_nothing_is_run(tmp_path, monkeypatch, protocol, function, argument):
    monkeypatch.chdir(tmp_path)
    wanted = "(open|eval|exec|getattr|__import__|loads|load|frombuffer|system|Popen|type)"
    for bomb in (
        Evil(function, argument),
        [1, {"a": Evil(function, argument)}],
        parts("mmgcn-iemocap", ids=Evil(eval, "1")),
    ):
        with pytest.raises(MerZooError, match=rf"asks to import '\S*\.{wanted}', .* Nothing was run"):
            load(pickle.dumps(bomb, protocol), tmp_path / "evil.pkl")
    assert not (tmp_path / "ran").exists()


@pytest.mark.attack("H1")
def test_nothing_is_run_from_inside_an_object_array(tmp_path):
    bomb = np.array([Evil(os.system, "true")], dtype=object)
    for protocol in range(6):
        with pytest.raises(MerZooError, match=r"asks to import '\w+\.system'"):
            load(pickle.dumps(bomb, protocol), tmp_path / "evil.pkl")


DTYPE = b"cnumpy\ndtype\n(S'%s'\ntR"
ARRAY = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
DAMAGED = {
    "empty": b"",
    "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
    "persistent id": b"Pid\n.",
    "extension registry": b"\x80\x02\x82\x01.",
    "buffers from outside": b"\x80\x05\x97.",
    "no pickle": b"these are not the bytes",
    "stack too short": b"tR.",
    "too little data": ARRAY + b"(I1\n(I1000000\nt" + DTYPE % b"f8" + b"I00\nS'short'\ntb.",
    "a negative shape": ARRAY + b"(I1\n(I-1\nI-1\nt" + DTYPE % b"i1" + b"I00\nS'x'\ntb.",
    "objects from raw bytes": ARRAY + b"(I1\n(I1\nt" + DTYPE % b"O" + b"I00\nS'AAAAAAAA'\ntb.",
    "objects from a short list": ARRAY + b"(I1\n(I9\nt" + DTYPE % b"O" + b"I00\n(lI1\natb.",
    "a record type": ARRAY + b"(I1\n(I1\nt" + DTYPE % b"i4,i4" + b"I00\nS'AAAAAAAA'\ntb.",
    "a void type": ARRAY + b"(I1\n(I1\nt" + DTYPE % b"V8" + b"I00\nS'AAAAAAAA'\ntb.",
    "fields by the back door": b"cnumpy\ndtype\n(S'i4'\ntR(I3\nS'<'\nN(S'a'\nt(dI-1\nI-1\nI0\ntb.",
    "object scalar": b"cnumpy._core.multiarray\nscalar\n(" + DTYPE % b"O" + b"S'AAAAAAAA'\ntR.",
    "object buffer": b"cnumpy._core.numeric\n_frombuffer\n(S'AAAAAAAA'\n" + DTYPE % b"O" + b"(I1\ntS'C'\ntR.",
    "not a type": ARRAY + b"(I1\n(I1\ntS'f8'\nI00\nS'AAAAAAAA'\ntb.",
    "a buffer from memory": b"cnumpy\nndarray\n((I4\ntS'O'\nS'AAAAAAAA'\ntR.",
    "patching our stubs": b"cnumpy\ndtype\n(N(dS'__setstate__'\ncnumpy\nndarray\nstb.",
    "patching them by slots": b"c_codecs\nencode\n(N(S'__new__'\ncnumpy\nndarray\ndtb.",
    "patching them by state": b"cnumpy._core.multiarray\nscalar\n(dS'x'\nI1\nsb.",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_and_crafted_pickles(tmp_path, kind):
    with pytest.raises(MerZooError, match=r"x\.pkl: (is not a pickle of plain data|asks to import)"):
        load(DAMAGED[kind], tmp_path / "x.pkl")
    back = load(pickle.dumps(np.arange(3)), tmp_path / "x.pkl")  # the reader itself is as it was
    assert np.asarray(back).tolist() == [0, 1, 2]


def test_every_truncation_is_an_error(tmp_path):
    for protocol in range(6):
        whole = pickle.dumps({"a": np.arange(4.0), "b": ["x", 1.5]}, protocol)
        for size in range(len(whole)):
            with pytest.raises(MerZooError, match=r"truncated or damaged|asks to import"):
                load(whole[:size], tmp_path / "x.pkl")


def test_random_damage_never_escapes(tmp_path):
    rng = np.random.default_rng(0)
    whole = bytearray(pickle.dumps({"a": np.arange(9.0), "b": ["x", 1.5], "c": np.array(["u", None], object)}, 4))
    for _ in range(500):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 2):
            damaged[at] = rng.integers(0, 256)
        with contextlib.suppress(MerZooError):
            load(bytes(damaged), tmp_path / "x.pkl")


def test_reading_imports_nothing(tmp_path):
    """A module that only a pickle names is not imported, not even to be refused."""
    (tmp_path / "trap.py").write_text("raise SystemExit('was imported')")
    (tmp_path / "x.pkl").write_bytes(b"ctrap\nspring\n.")
    code = "from mer_zoo.data.unpickling import load_plain\ntry: load_plain('x.pkl')\nexcept Exception as e: print(e)"
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert "asks to import 'trap.spring'" in found.stdout
    assert "was imported" not in found.stderr


def test_paths(tmp_path):
    with pytest.raises(MerZooError, match="no such file"):
        load_plain(tmp_path / "nothing.pkl")
    with pytest.raises(MerZooError, match="cannot be read"):
        load_plain(tmp_path)


@pytest.mark.parametrize("asked", PICKLE_LAYOUTS)
@pytest.mark.parametrize("given", PICKLE_LAYOUTS)
@pytest.mark.attack("D15")
def test_the_wrong_layout_names_the_right_one(saved, asked, given):
    if asked != given:
        message = rf"not in the layout '{asked}': it has {LENGTHS[given]} parts, not {LENGTHS[asked]}.*layout '{given}'"
        with pytest.raises(MerZooError, match=message):
            import_dataset(asked, saved(parts(given)))


def changed(name, part, key=None, **change):
    layout = PICKLE_LAYOUTS[name]
    content = dict(zip(layout.parts, parts(name), strict=True))[part]
    key = key or next(iter(content))
    return parts(name, **{part: {**content, key: change["to"](content[key])}})


IEMOCAP, MELD = "mmgcn-iemocap", "sdt-meld"
FAULTS = {
    "not a tuple": (IEMOCAP, lambda: {"a": 1}, "it holds a dict, not a tuple of 9 parts. It fits no layout"),
    "other features": (
        IEMOCAP,
        lambda: changed(IEMOCAP, "visual", to=lambda x: np.ones((3, 512), "f4")),
        "visual features have width 512, not 342. It fits no layout",
    ),
    "not a dict": (IEMOCAP, lambda: parts(IEMOCAP, audio=[1, 2]), r"part 5 \('audio'\) is not a dict by dialogue id"),
    "an empty dict": (IEMOCAP, lambda: parts(IEMOCAP, labels={}), r"part 3 \('labels'\) is not a dict .* in it"),
    "no list": (
        IEMOCAP,
        lambda: parts(IEMOCAP, train="Ses05"),
        r"part 8 \('train'\) is a str, not a list of dialogue ids",
    ),
    "letters for one-hots": (
        MELD,
        lambda: changed(MELD, "speakers", to=lambda s: ["M"] * len(s)),
        "speakers are such as 'M', not one-hot rows of 9",
    ),
    "an unknown letter": (
        IEMOCAP,
        lambda: changed(IEMOCAP, "speakers", to=lambda s: ["M", "X", "F"]),
        r"dialogue 'Ses05F_impro01', utterance 1: speaker 'X' is neither M nor F",
    ),
    "two-hot": (
        MELD,
        lambda: changed(MELD, "speakers", to=lambda s: [s[0], [1, 1, 0, 0, 0, 0, 0, 0, 0], s[2]]),
        "dialogue 0, utterance 1: speaker .* is not a one-hot row of 9",
    ),
    "a width that changes": (
        IEMOCAP,
        lambda: changed(IEMOCAP, "audio", "Ses03F_impro03", to=lambda x: x[:, :5]),
        "dialogue 'Ses03F_impro03', audio: width 5, the layout wants 1582",
    ),
    "ragged rows": (
        IEMOCAP,
        lambda: changed(IEMOCAP, "audio", to=lambda x: [x[0], x[1], x[2][:5]]),
        "dialogue 'Ses05F_impro01', audio: width 5, the layout wants 1582",
    ),
    "half labels": (
        IEMOCAP,
        lambda: changed(IEMOCAP, "labels", to=lambda y: [0, 0.5, 1]),
        "labels: are not whole numbers",
    ),
    "word labels": (
        IEMOCAP,
        lambda: changed(IEMOCAP, "labels", to=lambda y: ["sad"] * 3),
        "labels: is not an array of",
    ),
    "an unknown label": (IEMOCAP, lambda: changed(IEMOCAP, "labels", to=lambda y: [0, 6, 1]), "label 6 has no name"),
    "a label too few": (IEMOCAP, lambda: changed(IEMOCAP, "labels", to=lambda y: [0, 1]), "2 labels for 3 speakers"),
    "NaN": (
        IEMOCAP,
        lambda: changed(IEMOCAP, "text", to=lambda x: x * np.nan),
        "dialogue 'Ses05F_impro01', utterance 0, text: feature is NaN",
    ),
    "no words": (
        IEMOCAP,
        lambda: changed(IEMOCAP, "transcript", to=lambda t: [1, 2, 3]),
        "transcript: is not a list of str",
    ),
    "an unknown dialogue": (
        IEMOCAP,
        lambda: parts(IEMOCAP, test=["Ses99"]),
        "part 'speakers': has no dialogue 'Ses99', which the split lists name",
    ),
    "a dialogue twice": (
        IEMOCAP,
        lambda: parts(IEMOCAP, test=["Ses05F_impro01"]),
        "dialogue 'Ses05F_impro01': this id is used twice",
    ),
    "an odd id": (IEMOCAP, lambda: parts(IEMOCAP, test=[[1]]), r"part 'test': a list is not a dialogue id"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named(saved, fault):
    name, content, message = FAULTS[fault]
    with pytest.raises(MerZooError, match=message):
        import_dataset(name, saved(content()))


def test_dialogues_in_no_list_are_left_out_and_that_is_said(saved):
    data = import_dataset(IEMOCAP, saved(parts(IEMOCAP, test=[])))
    assert data.splits == {"train": ("Ses05F_impro01", "Ses01M_script02")}
    assert data.warnings[0].startswith("1 dialogue(s) of features.pkl are in neither")


def test_sets_of_ids_have_one_order(saved):
    data = import_dataset(MELD, saved(parts(MELD, train={7, 0}, test=np.array([2]))))
    assert data.splits == {"train": ("0", "7"), "test": ("2",)}
