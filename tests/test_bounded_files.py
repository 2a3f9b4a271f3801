"""Files cannot take more time, stack or memory than their size explains: each is refused with one message, at once."""

import io
import json
import pickle
import re
import zipfile
from pathlib import Path

import limited
import numpy as np
import pytest

LOADED = """
import contextlib
from mer_zoo.data import container, importing
from mer_zoo.data.unpickling import load_plain
from mer_zoo.registry import document
with contextlib.suppress(ImportError):
    import pyarrow.parquet
"""


@pytest.fixture(scope="module")
def process():
    """Return a process in which a line runs with little memory."""
    with limited.Process(LOADED) as one:
        yield one


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
YAML = {
    "50,000 brackets": ("[" * 50_000, "1:51 lists and mappings are more than 50 deep"),
    "deep blocks": ("\n".join(" " * i + "a:" for i in range(300)), "are more than 50 deep"),
    "nested keys": ("? " * 10_000, "are more than 50 deep"),
    "laughs": (LAUGHS, "more than 50,000 values, with what aliases stand for"),
    "itself": ("a: &a [*a]", "1:8 'a' refers to itself by an alias"),
    "itself, deeper": ("a: &a {b: [{c: *a}]}", "'a' refers to itself by an alias"),
    "many": ("- 1\n" * 60_000, "more than 50,000 values"),
    "long": ("# " + "x" * 1_000_000, "longer than 1,000,000 characters"),
    "an endless number": ("a: " + "9" * 100_000, "not valid YAML: Exceeds the limit"),
    "a surrogate": ('a: "\\ud800"', "not valid YAML"),
}


@pytest.mark.parametrize("case", YAML)
@pytest.mark.attack("A4", "A5")
def test_yaml(process, tmp_path, case):
    text, message = YAML[case]
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    found = process.refusal("document.read(sys.argv[1])", path)
    assert any(part in found for part in message.split("|")), found
    assert found.count("\n") == 1


def test_yaml_as_large_as_any_is_read():
    from mer_zoo.registry import document

    deep = "[" * 50 + "]" * 50
    assert document.plain("a: &a [1, 2]\nb: [*a, *a]") == {"a": [1, 2], "b": [[1, 2], [1, 2]]}
    assert str(document.plain(deep)).replace(" ", "") == deep
    assert len(document.plain("- 1\n" * 49_000)) == 49_000
    assert document.plain("a: 1\r\nb: 2\r\n") == {"a": 1, "b": 2}


class Ask:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments):
        self.ask = function, arguments

    def __reduce__(self):
        return self.ask


MANY = list(range(200_000))
ROW = b"\x00" * 4_000_000
PICKLES = {
    "bytearray of a size": ([Ask(bytearray, 2**30) for _ in range(8)], "holds a int where bytes belong"),
    "bytes of a size": ([Ask(bytes, 2**30)], "holds a int where bytes belong"),
    "sets of one list": ([MANY, *(Ask(set, MANY) for _ in range(500))], "asks for more memory than its size explains"),
    "bytearrays of the same": ([bytearray(ROW), *(Ask(bytearray, ROW) for _ in range(500))], "asks for more memory"),
    "dictionaries": ([], "makes more than 2,000,000 lists, dicts and sets"),
    "a far place": ([], "numbers a value 4,294,967,279 where there are fewer"),
    "a far place in words": ([], "numbers a value 4,000,000,000 where there are fewer"),
    "a long text": ([], "declares 1,000,000,000,000 bytes where 1 are left"),
    "long bytes": ([], "declares 4,294,967,295 bytes where 1 are left"),
    "a long frame": ([], "declares 1,000,000,000,000 bytes where 1 are left"),
}
RAW = {
    "dictionaries": b"\x80\x04" + b"\x8f" * 8_000_000 + b".",
    "a far place": b"Nr\xef\xff\xff\xff.",
    "a far place in words": b"Np4000000000\n.",
    "a long text": b"\x8d" + (10**12).to_bytes(8, "little") + b".",
    "long bytes": b"B\xff\xff\xff\xff.",
    "a long frame": b"\x80\x04\x95" + (10**12).to_bytes(8, "little") + b".",
}


@pytest.mark.parametrize("case", PICKLES)
@pytest.mark.attack("A7")
def test_pickles(process, tmp_path, case):
    content, message = PICKLES[case]
    path = tmp_path / "features.pkl"
    path.write_bytes(RAW.get(case) or pickle.dumps(content, 4))
    found = process.refusal("load_plain(sys.argv[1])", path)
    assert message in found
    assert len(found) < 400


def test_arrays_of_the_same_bytes(process, tmp_path):
    """One text of 4 MB, made an array 500 times: 1 bytes in the file for 300 in memory."""
    array = np.frombuffer(ROW, "u1").copy()
    function, arguments, state = array.__reduce__()
    one = pickle.dumps([array], 2)[:-1]  # a list, left open: its array is rebuilt from the memo
    call = Ask(function, *arguments)
    content = [state, *(Built(call, state) for _ in range(500))]
    path = tmp_path / "features.pkl"
    path.write_bytes(pickle.dumps(content, 4))
    assert len(one) < path.stat().st_size
    assert "asks for more memory than its size explains" in process.refusal("load_plain(sys.argv[1])", path)


class Built:
    """Pickles as a call and a state."""

    def __init__(self, call, state):
        self.call, self.state = call, state

    def __reduce__(self):
        return (*self.call.ask, self.state)


@pytest.mark.parametrize("case", ["rows of rows", "a shared row", "a speaker"])
def test_shared_rows_of_a_layout(process, tmp_path, case):
    """Nested lists of the same lists take no room in a pickle; written out they would take all there is."""
    nested = [0.0] * 10
    for _ in range(9):
        nested = [nested] * 10
    rows, row = [[0.0] * 100], [0.0] * 1582
    audio, speaker, message = [row], "M", ""
    if case == "rows of rows":
        audio, message = [[nested] * 1582], "it holds other things than numbers|audio features have width None"
    elif case == "a shared row":
        count = 400_000
        rows, audio, speaker, message = rows * count, [row] * count, "M", "which its own size does not explain"
    else:
        speaker, message = nested, "speakers are|is not a list of strings"
    many = len(audio)
    parts = [["u"] * many, [speaker] * many, [0] * many, rows, audio, [[0.0] * 342] * many, [""] * many]
    content = (*({"d": part} for part in parts), ["d"], [])
    path = tmp_path / "features.pkl"
    path.write_bytes(pickle.dumps(content, 4))
    found = process.refusal("importing.import_dataset('mmgcn-iemocap', sys.argv[1])", path)
    assert any(part in found for part in message.split("|")), found
    assert len(found) < 400


def npz(path, **columns):
    table = {"dialogue": ["a", "a"], "turn": [0, 1], "split": ["all"] * 2, "label": [0, 1], "text": np.zeros((2, 3))}
    np.savez(path, **(table | columns))
    return path


def declared(shape, dtype="<f8"):
    """Return an .npy file that says it has this shape, and holds nothing."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def add(path, name, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "a", compression) as archive:
        archive.writestr(name, content)


NPZ = {
    "16 TiB": (
        lambda p: add(p, "audio.npy", declared((2, 2**40))),
        "declares shape (2, 1099511627776)",
    ),
    "a long text": (lambda p: add(p, "notes.npy", declared((2,), "<U100000000")), "column 'notes': declares"),
    "a negative shape": (lambda p: add(p, "audio.npy", declared((2, -1))), "column 'audio': declares"),
    "a bomb": (
        lambda p: add(p, "audio.npy", declared((2, 2**23)) + bytes(2**27), zipfile.ZIP_DEFLATED),
        "unpacks to 134,",
    ),
}


@pytest.mark.parametrize("case", NPZ)
@pytest.mark.attack("C18", "C19")
def test_npz(process, tmp_path, case):
    change, message = NPZ[case]
    path = npz(tmp_path / "dialogues.npz")
    change(path)
    found = process.refusal("importing.import_dataset('npz', sys.argv[1])", path)
    assert message in found
    assert found.count("\n") == 1


VALUES = {
    "a label of 10**12": ({"label": [0, 10**12]}, "label 1000000000000 in row 1: there can be 10,000 classes"),
    "an unsigned label": (
        {"label": np.array([0, 2**64 - 1], "u8")},
        "'label', row 1: 18446744073709551615 is too",
    ),
    "an unsigned turn": ({"turn": np.array([0, 2**64 - 1], "u8")}, "'turn', row 1: 18446744073709551615 is too"),
    "names twice": ({"label_names": ["sad", "sad"]}, "two classes are called 'sad'"),
    "a blank name": ({"label_names": ["sad", " "]}, "class 1 has no name"),
    "a dot in a modality": ({"a.b": np.zeros((2, 3))}, "modality 'a.b'"),
    "a modality of Python's": ({"__class__": np.zeros((2, 3))}, "modality '__class__'"),
    "a number that is no letter": (
        {"split": np.array([b"\xff" * 8] * 2, "S8").view("<U2")},
        "a letter numbered 4,294,967,295, which is none",
    ),
    "a surrogate in an id": ({"dialogue": ["\ud800", "b"]}, "holds half a character"),
    "a surrogate in a speaker": ({"speaker": ["a", "\udfff"]}, "holds half a character"),
    "a surrogate in a class": ({"label_names": ["sad", "\ud800"]}, "holds half a character"),
    "an endless id": ({"dialogue": ["a" * 5000, "b"]}, "5,000 characters"),
    "an endless class": ({"label_names": ["sad", "b" * 5000]}, "5,000 characters"),
    "an endless modality": ({"b" * 5000: np.zeros((2, 3))}, "modality 'bbb"),
}


@pytest.mark.parametrize("case", VALUES)
@pytest.mark.attack("A6", "B5", "B9", "C8", "C10", "C21")
def test_values(process, tmp_path, case):
    columns, message = VALUES[case]
    path = npz(tmp_path / "dialogues.npz", **columns)
    found = process.refusal("importing.import_dataset('npz', sys.argv[1])", path)
    assert message in found
    assert len(found) < 500


MANIFESTS = {
    "a label of 10**30": (lambda m: m["dialogues"][0]["labels"].__setitem__(0, 10**30), "dialogues.0.labels.0"),
    "a count below one": (lambda m: m["dialogues"][0].update(utterances=-1), "dialogues.0.utterances"),
    "a width of nothing": (lambda m: m["widths"].update(text=0), "widths.text"),
    "a class twice": (lambda m: m.update(label_names=["0", "0"]), "two classes are called '0'"),
    "a surrogate": (lambda m: m.update(name="\ud800"), "holds half a character"),
    "brackets": (lambda m: "[" * 200_000, "is not valid JSON"),
    "an endless number": (lambda m: "9" * 100_000, "is not valid JSON"),
}


@pytest.mark.parametrize("case", MANIFESTS)
@pytest.mark.attack("C20")
def test_manifests(process, tmp_path, case):
    from mer_zoo.data.container import write_dataset
    from mer_zoo.data.importing import import_dataset

    change, message = MANIFESTS[case]
    folder = write_dataset(import_dataset("npz", npz(tmp_path / "dialogues.npz")), tmp_path / "data")
    manifest = json.loads((folder / "manifest.json").read_text())
    made = change(manifest)
    (folder / "manifest.json").write_text(made if isinstance(made, str) else json.dumps(manifest))
    found = process.refusal("container.read_dataset(sys.argv[1])", folder)
    assert message in found
    assert len(found) < 700


HEAD = "dialogue,utterance,speaker,audio_0\n"
OBJECT = '{"dialogue": "d", "utterance": 0, "speaker": "A", "audio": %s}\n'
KEYS = OBJECT.replace("%s}", '[1], "k%d": 1}')
TABLES = {
    "csv, a line without end": ("csv", lambda: HEAD + "," * 50_000_000, "mine:2: a row of more than"),
    "csv, a quote without end": (
        "csv",
        lambda: HEAD + '"' + "a\n" * 50_000_000,
        "mine:.* a row of more than|field larger",
    ),
    "csv, a row of many lines": ("csv", lambda: HEAD + '"\n",' * 10_000_000, "a row of more than"),
    "csv, columns without end": ("csv", lambda: "a," * 10_000_000, "mine:1: a row of more than"),
    "csv, a number without end": ("csv", lambda: HEAD + "d,0,A," + "9" * 100_000, "row 0: features of 'audio' are"),
    "csv, an order without end": ("csv", lambda: HEAD + "d," + "9" * 100_000 + ",A,1", "'utterance', row 0: '999"),
    "csv, a modality without end": (
        "csv",
        lambda: f"dialogue,utterance,speaker,{'a' * 100_000}_0\nd,0,A,1\n",
        "modality 'aaa",
    ),
    "csv, brackets": ("csv", lambda: HEAD.replace("_0", "") + "d,0,A," + "[" * 100_000 + "]", "has no features"),
    "csv, a zero": ("csv", lambda: HEAD + "d,0,\0,1\n", "is no kind of file known here|A"),
    "jsonl, a line without end": ("jsonl", lambda: OBJECT % "[1]" + " " * 50_000_000, "mine:2: a row of more than"),
    "jsonl, brackets": ("jsonl", lambda: OBJECT % "[1]" + OBJECT % ("[" * 100_000), "mine:2: is not JSON"),
    "jsonl, a number without end": ("jsonl", lambda: OBJECT % "[1]" + OBJECT % ("9" * 100_000), "mine:2: is not JSON"),
    "jsonl, many keys": (
        "jsonl",
        lambda: OBJECT % "[1]" + "{" + ", ".join(f'"k{i}": 1' for i in range(200_000)) + "}",
        "mine:2: has no dialogue|more than 100 columns",
    ),
    "jsonl, a key a row": ("jsonl", lambda: "".join(KEYS % i for i in range(200_000)), "more than 100 columns"),
    "jsonl, lists in lists": ("jsonl", lambda: OBJECT % "[[1, 2], [3, 4]]", "features of 'audio' hold '\\[1, 2\\]'"),
    "jsonl, lists of other lengths": ("jsonl", lambda: OBJECT % "[1]" + OBJECT % "[1, 2]", "want a list of 1 numbers"),
}


@pytest.mark.parametrize("case", TABLES)
def test_tables(process, tmp_path, case):
    layout, content, message = TABLES[case]
    path = tmp_path / "mine"
    path.write_text(content(), encoding="utf-8")
    found = process.refusal(f"importing.import_dataset({layout!r}, sys.argv[1])", path)
    assert re.search(message, found), found
    assert len(found) < 400


def test_parquet_that_packs_well(process, tmp_path):
    """Millions of equal rows take nothing in the file."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    zeros = np.zeros(8_000_000, "i1")
    for column in (arrow.array(zeros), arrow.DictionaryArray.from_arrays(arrow.array(zeros), ["x" * 1_000_000])):
        path = tmp_path / "mine"
        parquet.write_table(arrow.table({"dialogue": column}), path)
        found = process.refusal("importing.import_dataset('parquet', sys.argv[1])", path)
        assert "which its own size does not explain" in found


@pytest.mark.parametrize("settings", ["out_width=0", "out_width=-3", "out_width=1000000000000", "words=0", "words=99"])
@pytest.mark.attack("A3")
def test_widths_of_an_extractor(settings):
    from mer_zoo import registry
    from mer_zoo.errors import MerZooError

    name, _, value = settings.partition("=")
    with pytest.raises(MerZooError, match=rf"{name}.* {value}|{name} {value}"):
        registry.build(registry.find("extractor", "hashed_words"), {name: int(value)}, {})


def test_the_refusals_are_measured(process, tmp_path):
    """What takes the memory itself is stopped by the limit, so a refusal is no accident."""
    ended, _, error = process.run(f"bytearray({limited.MEGABYTES << 21})", tmp_path)
    assert ended == 1
    assert "MemoryError" in error


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent / "fuzzing/corpus/parquet").iterdir()), ids=lambda path: path.name
)
@pytest.mark.attack("A8")
def test_parquet_that_ends_its_reader(path):
    """Found by fuzzing: a declaration that pyarrow answers with an abort, and words that are not there."""
    from mer_zoo.data.importing import import_dataset
    from mer_zoo.errors import MerZooError

    pytest.importorskip("pyarrow")
    with pytest.raises(MerZooError, match=r"cannot be read \(.*damaged"):
        import_dataset("parquet", path)
