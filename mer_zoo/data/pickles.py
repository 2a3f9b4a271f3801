"""Importers for the feature pickles of the field's IEMOCAP and MELD releases, which never run what a pickle asks for.

A pickle is a program: it may import and call anything. `load_plain` knows a dozen harmless names, answers every other
one with an error, and builds numpy arrays itself from checked types and raw bytes.

The layouts are tuples, most of whose parts are dicts from dialogue id to one entry per utterance:

| layout | released with | parts, in order |
|---|---|---|
| `mmgcn-iemocap` | MMGCN | ids, speakers, labels, text, audio, visual, transcript, train, test |
| `mmgcn-meld` | MMGCN | the same and one more that is not read |
| `sdt-iemocap` | SDT, AMB-DSGDN | ids, speakers, labels, text, 3 other texts, audio, visual, transcript, train, test |
| `sdt-meld` | SDT, AMB-DSGDN | the same and one more that is not read |

Speakers are `M` or `F` for IEMOCAP and one-hot rows of 9 for MELD. None has a validation split. Of the four RoBERTa
layers in the `sdt` layouts, the first is read, as AMB-DSGDN does.
"""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mer_zoo.data.conversation import MODALITIES, Conversation, Dataset
from mer_zoo.errors import MerZooError

IEMOCAP_LABELS = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
MELD_LABELS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
MELD_SPEAKERS = 9


@dataclass(frozen=True)
class PickleLayout:
    """What one released pickle holds: parts in order, feature widths and origins, classes, how speakers are told."""

    name: str
    parts: tuple[str, ...]
    widths: dict[str, int]
    features: dict[str, str]
    label_names: tuple[str, ...]
    one_hot_speakers: bool


_MMGCN = ("ids", "speakers", "labels", "text", "audio", "visual", "transcript", "train", "test")
_SDT = (
    "ids",
    "speakers",
    "labels",
    "text",
    "text2",
    "text3",
    "text4",
    "audio",
    "visual",
    "transcript",
    "train",
    "test",
)
_OPENSMILE_DENSEFACE = {"audio": "openSMILE", "visual": "DenseNet faces"}
PICKLE_LAYOUTS = {
    layout.name: layout
    for layout in (
        PickleLayout(
            name="mmgcn-iemocap",
            parts=_MMGCN,
            widths={"text": 100, "audio": 1582, "visual": 342},
            features={"text": "TextCNN", **_OPENSMILE_DENSEFACE},
            label_names=IEMOCAP_LABELS,
            one_hot_speakers=False,
        ),
        PickleLayout(
            name="mmgcn-meld",
            parts=(*_MMGCN, "extra"),
            widths={"text": 600, "audio": 300, "visual": 342},
            features={"text": "TextCNN", **_OPENSMILE_DENSEFACE},
            label_names=MELD_LABELS,
            one_hot_speakers=True,
        ),
        PickleLayout(
            name="sdt-iemocap",
            parts=_SDT,
            widths={"text": 1024, "audio": 1582, "visual": 342},
            features={"text": "RoBERTa, first of four", **_OPENSMILE_DENSEFACE},
            label_names=IEMOCAP_LABELS,
            one_hot_speakers=False,
        ),
        PickleLayout(
            name="sdt-meld",
            parts=(*_SDT, "extra"),
            widths={"text": 1024, "audio": 300, "visual": 342},
            features={"text": "RoBERTa, first of four", **_OPENSMILE_DENSEFACE},
            label_names=MELD_LABELS,
            one_hot_speakers=True,
        ),
    )
}


def import_pickle(path: str | os.PathLike[str], layout: PickleLayout, name: str | None = None) -> Dataset:
    """Read one of the field's feature pickles as a dataset with the splits `train` and `test`.

    Args:
        path: the pickle.
        layout: what it should hold; one of `PICKLE_LAYOUTS`.
        name: the dataset's name, by default the layout's.

    Returns:
        The dataset: train dialogues first, then test, in the pickle's order (sorted where it holds a set).

    Raises:
        MerZooError: the pickle asks for something forbidden, is damaged, or holds something else than the layout says.
    """
    file = Path(path)
    parts = _parts(load_plain(file), layout, file)
    splits = {split: _dialogue_list(parts[split], split, file) for split in ("train", "test")}
    ids = [key for keys in splits.values() for key in keys]
    for part in ("speakers", "labels", *MODALITIES, "transcript"):
        for key in ids:
            if key not in parts[part]:
                raise MerZooError(f"{file}, part '{part}': has no dialogue {key!r}, which the split lists name.")
    dialogues = [_conversation(parts, key, layout, file) for key in ids]
    unlisted = len(set(parts["labels"]) - set(ids))
    left_out = f"{unlisted} dialogue(s) of {file.name} are in neither its train nor its test list and were left out."
    return Dataset(
        name=name or layout.name,
        conversations=tuple(dialogues),
        label_names=layout.label_names,
        splits={split: tuple(str(key) for key in keys) for split, keys in splits.items() if keys},
        provenance={m: f"{layout.features[m]}, from {file.name} (layout {layout.name})" for m in MODALITIES},
        warnings=(left_out,) if unlisted else (),
    )


def load_plain(path: str | os.PathLike[str]) -> Any:
    """Unpickle a file of plain containers, strings, numbers and numpy arrays, and refuse any other.

    Args:
        path: a pickle of any protocol.

    Returns:
        The object; strings of Python 2 are decoded as latin1. Nothing that the pickle names is imported or called.

    Raises:
        MerZooError: the pickle names anything else, or is damaged.

    Example:
        >>> import pickle, tempfile
        >>> with tempfile.TemporaryDirectory() as home:
        ...     _ = Path(home, "evil.pkl").write_bytes(pickle.dumps(eval))
        ...     load_plain(f"{home}/evil.pkl")
        Traceback (most recent call last):
        ...
        mer_zoo.errors.MerZooError: .../evil.pkl: asks to import 'builtins.eval', which feature data has no need of. ...
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            return _Unpickler(stream, encoding="latin1").load()
    except FileNotFoundError:
        raise MerZooError(f"{file}: no such file. Check the path.") from None
    except OSError as error:
        raise MerZooError(f"{file}: cannot be read: {error.strerror or error}.") from None
    except _Forbidden as error:
        raise MerZooError(
            f"{file}: asks to import '{error}', which feature data has no need of. Nothing was run. "
            "Only plain containers, strings, numbers and numpy arrays are read; do not open this file with pickle."
        ) from None
    except Exception as error:  # damaged bytes can make the unpickler raise nearly anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise MerZooError(f"{file}: is not a pickle of plain data ({reason}). It is truncated or damaged.") from None


class _Forbidden(Exception):
    pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Forbidden(f"{module}.{name}") from None


class _Sealed(type):
    """A pickle may set attributes of whatever it names; those of our stubs stay as they are."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise pickle.UnpicklingError(f"sets '{name}' of {cls.__name__}")


class _Dtype(metaclass=_Sealed):
    """Stands in for `numpy.dtype`: simple numbers, strings and objects; no records, no sub-arrays, no metadata."""

    def __init__(self, code: str, align: object = False, copy: object = True) -> None:
        self.dtype = self._plain(np.dtype(str(code)))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *nested = state[:5]
        if any(part is not None for part in nested):
            raise pickle.UnpicklingError("holds an array of records")
        if order in ("<", ">"):
            self.dtype = self._plain(self.dtype.newbyteorder(order))

    @staticmethod
    def _plain(dtype: np.dtype) -> np.dtype:
        if dtype.kind not in "biufSUO" or dtype.fields or dtype.subdtype:
            raise pickle.UnpicklingError(f"holds an array of type {dtype}")
        return dtype


class _Array(np.ndarray, metaclass=_Sealed):
    """Stands in for `numpy.ndarray`; numpy fills it only after its state was found sound. `np.asarray` undresses it."""

    def __new__(cls) -> _Array:
        return super().__new__(cls, (0,), np.dtype("b"))

    def __setstate__(self, state: Any) -> None:
        _, sizes, dtype, fortran, raw = state
        shape = tuple(int(size) for size in sizes)
        count = _count(shape)
        if dtype.dtype.kind == "O":
            sound = type(raw) is list and len(raw) == count
        else:
            raw = _bytes(raw)
            sound = len(raw) == count * dtype.dtype.itemsize
        if not sound:
            raise pickle.UnpicklingError(f"holds an array whose data does not fill its shape {shape}")
        super().__setstate__((1, shape, dtype.dtype, bool(fortran), raw))  # type: ignore[arg-type]


class _Reconstruct(metaclass=_Sealed):
    """Stands in for numpy's `_reconstruct`: an empty array, whose state follows."""

    def __new__(cls, subtype: object, shape: object, code: object) -> Any:
        return _Array()


class _FromBuffer(metaclass=_Sealed):
    """Stands in for numpy's `_frombuffer`: how protocol 5 stores arrays."""

    def __new__(cls, raw: Any, dtype: _Dtype, shape: Any, order: str, axes: Any = None) -> Any:
        if dtype.dtype.kind == "O":
            raise pickle.UnpicklingError("holds raw bytes for an array of objects")
        flat = np.frombuffer(_bytes(raw), dtype.dtype)
        return flat.reshape(shape, order="F" if order == "F" else "C")


class _Scalar(metaclass=_Sealed):
    """Stands in for numpy's `scalar`: one number or string."""

    def __new__(cls, dtype: _Dtype, raw: Any) -> Any:
        if dtype.dtype.kind == "O":
            raise pickle.UnpicklingError("holds an object scalar")
        return np.frombuffer(_bytes(raw), dtype.dtype, count=1)[0]


class _Encode(metaclass=_Sealed):
    """Stands in for `_codecs.encode`, by which old protocols spell bytes."""

    def __new__(cls, text: str, encoding: str = "latin1") -> Any:
        return _bytes(text)


def _bytes(raw: object) -> bytes:
    if isinstance(raw, str):  # Python 2 wrote bytes as strings, and they came in as latin1
        return raw.encode("latin1")
    if isinstance(raw, bytes | bytearray):
        return bytes(raw)
    raise pickle.UnpicklingError(f"holds a {type(raw).__name__} where bytes belong")


def _count(shape: tuple[int, ...]) -> int:
    if any(size < 0 for size in shape):
        raise pickle.UnpicklingError(f"holds an array of shape {shape}")
    count = 1
    for size in shape:
        count *= size
    return count


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _Encode,
    ("collections", "OrderedDict"): OrderedDict,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _Reconstruct
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _Scalar
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _FromBuffer
for _builtins in ("builtins", "__builtin__"):
    for _plain in (set, frozenset, bytes, bytearray):
        _ALLOWED[_builtins, _plain.__name__] = _plain


def _parts(content: object, layout: PickleLayout, file: Path) -> dict[str, Any]:
    """Name the tuple's parts after checking that they are what the layout says."""
    fitting = [other.name for other in PICKLE_LAYOUTS.values() if _fault(content, other) is None]
    fault = _fault(content, layout)
    if fault:
        hint = f"It fits the layout '{fitting[0]}'; import it as that." if fitting else "It fits no layout known here."
        raise MerZooError(f"{file}: is not in the layout '{layout.name}': {fault}. {hint}")
    assert isinstance(content, Sequence)
    return dict(zip(layout.parts, content, strict=True))


def _fault(content: object, layout: PickleLayout) -> str | None:
    """Say in what a pickle's content differs from a layout, judged by its first dialogue; None where it fits."""
    if not isinstance(content, tuple | list):
        return f"it holds a {type(content).__name__}, not a tuple of {len(layout.parts)} parts"
    if len(content) != len(layout.parts):
        return f"it has {len(content)} parts, not {len(layout.parts)}"
    parts = dict(zip(layout.parts, content, strict=True))
    for position, (part, value) in enumerate(parts.items(), start=1):
        if part in ("train", "test"):
            if not isinstance(value, list | tuple | set | frozenset | np.ndarray):
                return f"part {position} ('{part}') is a {type(value).__name__}, not a list of dialogue ids"
        elif part in ("speakers", "labels", "transcript", *MODALITIES) and not (isinstance(value, dict) and value):
            return f"part {position} ('{part}') is not a dict by dialogue id with something in it"
    for modality, width in layout.widths.items():
        row = _first(_first(parts[modality]))
        found = len(row) if isinstance(row, list | tuple | np.ndarray) and np.ndim(_first(row)) == 0 else None
        if found != width:
            return f"{modality} features have width {found}, not {width}"
    speaker = _first(_first(parts["speakers"]))
    if isinstance(speaker, str) == layout.one_hot_speakers:
        want = f"one-hot rows of {MELD_SPEAKERS}" if layout.one_hot_speakers else "M or F"
        return f"speakers are such as {speaker!r}, not {want}"
    return None


def _first(collection: Any) -> Any:
    """Return the first entry of a dict or sequence, None where there is none."""
    try:
        return next(iter(collection.values() if isinstance(collection, dict) else collection), None)
    except TypeError:
        return None


def _dialogue_list(value: Any, split: str, file: Path) -> list[Hashable]:
    keys = value.tolist() if isinstance(value, np.ndarray) else list(value)
    for key in keys:
        if not isinstance(key, str | int | np.integer):
            raise MerZooError(f"{file}, part '{split}': {key!r} is not a dialogue id; want strings or integers.")
    if isinstance(value, set | frozenset):  # a set has no order of its own that another run would repeat
        keys.sort(key=lambda key: (isinstance(key, str), key))
    return keys


def _conversation(parts: dict[str, Any], key: Hashable, layout: PickleLayout, file: Path) -> Conversation:
    here = f"{file}, dialogue {key!r}"
    labels = _numbers(parts["labels"][key], f"{here}, labels", 1)
    if (labels != np.round(labels)).any():
        raise MerZooError(f"{here}, labels: are not whole numbers.")
    features = {}
    for modality, width in layout.widths.items():
        features[modality] = _numbers(parts[modality][key], f"{here}, {modality}", 2)
        if features[modality].shape[1] != width:
            raise MerZooError(f"{here}, {modality}: width {features[modality].shape[1]}, the layout wants {width}.")
    return Conversation(
        id=str(key),
        speakers=_speakers(parts["speakers"][key], layout.one_hot_speakers, here),
        roles=tuple(f"speaker {i}" for i in range(MELD_SPEAKERS)) if layout.one_hot_speakers else ("M", "F"),
        labels=labels.astype(np.int64),
        features=features,
        transcript=_texts(parts["transcript"][key], f"{here}, transcript"),
    )


def _numbers(value: Any, where: str, dimensions: int) -> np.ndarray:
    try:
        array = np.asarray([np.asarray(row, dtype=np.float32) for row in value], dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise MerZooError(f"{where}: is not an array of numbers, one row per utterance ({error}).") from None
    if array.ndim != dimensions:
        raise MerZooError(f"{where}: has {array.ndim} dimension(s), want {dimensions} and at least one utterance.")
    return array


def _texts(value: Any, where: str) -> tuple[str, ...]:
    texts = tuple(value) if isinstance(value, list | tuple | np.ndarray) else ()
    if not texts or not all(isinstance(text, str) for text in texts):
        raise MerZooError(f"{where}: is not a list of strings, one per utterance.")
    return texts


def _speakers(value: Any, one_hot: bool, here: str) -> tuple[str, ...]:
    if one_hot:
        rows = _numbers(value, f"{here}, speakers", 2)
        bad = (np.sort(rows, axis=1) != np.eye(rows.shape[1])[-1]).any(axis=1)
        if rows.shape[1] != MELD_SPEAKERS or bad.any():
            raise MerZooError(
                f"{here}, utterance {int(bad.argmax())}: speaker {rows[int(bad.argmax())].tolist()} is not a one-hot "
                f"row of {MELD_SPEAKERS}."
            )
        return tuple(f"speaker {number}" for number in rows.argmax(axis=1))
    letters = _texts(value, f"{here}, speakers")
    for utterance, letter in enumerate(letters):
        if letter not in ("M", "F"):
            raise MerZooError(f"{here}, utterance {utterance}: speaker {letter!r} is neither M nor F.")
    return letters
