"""From a table with one row per utterance to a dataset: what its columns mean, checked; wherever they come from.

| column | values | meaning |
|---|---|---|
| `dialogue` | text or whole numbers | the dialogue's id; its rows need not be neighbours |
| `utterance` | numbers that increase | order within the dialogue |
| `speaker` | text or whole numbers | who speaks |
| `label` | text or whole numbers | optional; the emotion's name or number, empty (or -1) for none |
| `split` | text | optional: `train`, `dev`/`val`/`validation`, `test`, `all`; one per dialogue; by default `all` |
| `text` | text | optional; what is said |
| `NAME_0`, `NAME_1`, ... | numbers | the features of the modality NAME, one a column; all empty where missing |
| any other name | lists of numbers | the features of the modality of that name; empty where missing |
| `NAME_present` | true or false | optional; false where that modality is missing, its values then count as zeros |
| any other name | text or whole numbers | a label column beside the emotion, for recipes with `tasks` |

Features may also lie in an `.npz` beside the table, `FILE.npz` beside `FILE.csv`: arrays `[row, width]` in the order
of the table's rows. A column of text is `text` even where a modality of that name is there too.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mer_zoo.data.conversation import CLASSES, UNLABELLED, Conversation, Dataset
from mer_zoo.errors import MerZooError, nearest

MOST_NAMES = 1000  # different texts in a label column; beyond that it is something else
SPLITS = {
    "train": "train",
    "dev": "validation",
    "val": "validation",
    "validation": "validation",
    "test": "test",
    "all": "all",
}
TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class Naming:
    """What the columns of a table are called, where it is not as the table of this module says.

    Attributes:
        dialogue, utterance, speaker, label, split, text: names of columns.
        label_names: names of the emotions in the order of their numbers; by default those that occur, sorted.
        ignore: columns that are not read.
    """

    dialogue: str = "dialogue"
    utterance: str = "utterance"
    speaker: str = "speaker"
    label: str = "label"
    split: str = "split"
    text: str = "text"
    label_names: Sequence[str] | None = None
    ignore: Sequence[str] = ()

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that every table has."""
        return (self.dialogue, self.utterance, self.speaker)

    @property
    def known(self) -> tuple[str, ...]:
        """The columns with a meaning of their own."""
        return (*self.required, self.label, self.split, self.text)


def refuse_unknown(columns: Iterable[str], naming: Naming, where: str) -> None:
    """Refuse to ignore a column that is not there.

    Args:
        columns: names of all there are.
        naming: what columns are called.
        where: put in front of an error.
    """
    known = list(columns)
    for key in naming.ignore:
        if key not in known:
            raise MerZooError(f"{where}: has no column '{key}' to ignore.{nearest(key, known)}")


def feature_groups(columns: Iterable[str], naming: Naming, where: str) -> dict[str, list[str]]:
    """Return modality -> its columns in order, of those that are called `NAME_0`, `NAME_1`, ...

    Args:
        columns: names.
        naming: what columns are called.
        where: put in front of an error.

    Raises:
        MerZooError: a number is missing or there twice, or a modality is called like a column.

    Example:
        >>> feature_groups(["speaker", "audio_1", "audio_0", "bert.0"], Naming(), "a table")
        {'audio': ['audio_0', 'audio_1'], 'bert': ['bert.0']}
    """
    numbered: dict[str, dict[int, str]] = {}
    for column in columns:
        found = re.fullmatch(r"(.*?[^\W\d])[_.]?(\d{1,6})", column)
        if found and column not in (*naming.known, *naming.ignore):
            name, number = found[1].rstrip("_."), int(found[2])
            if number in numbered.setdefault(name, {}):
                raise MerZooError(
                    f"{where}: '{numbered[name][number]}' and '{column}' are both number {number}. Rename one."
                )
            numbered[name][number] = column
    groups = {}
    for name, members in numbered.items():
        first = min(members)
        if sorted(members) != list(range(first, first + len(members))) or first > 1:
            gap = next((n for n in range(first, max(members)) if n not in members), 0)
            missing = f"'{name}' number {gap}" if first <= 1 else f"'{name}' numbers 0 to {first - 1}"
            raise MerZooError(
                f"{where}: columns {members[first]} ... {members[max(members)]} are the features of '{name}', but "
                f"{missing} is missing. Number them from 0, or leave them out by `ignore`."
            )
        if name in (*naming.required, naming.label, naming.split):
            raise MerZooError(
                f"{where}: columns {members[first]} ... would be a modality called '{name}'. Give them another name."
            )
        groups[name] = [members[number] for number in sorted(members)]
    return groups


def dataset_of(
    features: Mapping[str, np.ndarray],
    columns: Mapping[str, Sequence[Any]],
    name: str,
    where: str,
    naming: Naming | None = None,
    sources: Mapping[str, str] | None = None,
) -> Dataset:
    """Return a table as a dataset.

    Args:
        features: modality -> float `[row, width]`, rows of NaN where it is missing.
        columns: name of any other column -> a value per row.
        name: the dataset's.
        where: put in front of errors: the file.
        naming: what the columns are called.
        sources: modality -> where its features come from; by default `where` and the column.

    Returns:
        The dataset: dialogues in order of first appearance, utterances in order, features as float32.

    Raises:
        MerZooError: a column is missing or means nothing, an utterance is there twice, a dialogue lies in two splits.

    Example:
        >>> table = {"dialogue": ["a", "a"], "utterance": [2, 1], "speaker": ["Ann", "Bob"], "label": ["sad", None]}
        >>> data = dataset_of({"audio": np.ones((2, 3))}, table, "mine", "a table")
        >>> data["a"].speakers, data["a"].labels.tolist(), data.label_names, list(data.splits)
        (('Bob', 'Ann'), [-1, 0], ('sad',), ['all'])
    """
    naming = naming or Naming()
    masks, plain = _parted(features, columns, naming, where)
    features = {m: _clean(np.asarray(x), masks, m, where) for m, x in features.items()}
    rows = len(next(iter(features.values())))
    dialogue = [_identity(value, naming.dialogue, row, where) for row, value in enumerate(plain[naming.dialogue])]
    numbers: dict[str, int] = {}
    of = np.array([numbers.setdefault(each, len(numbers)) for each in dialogue], dtype=np.int64)
    position = np.array([_number(v, naming.utterance, row, where) for row, v in enumerate(plain[naming.utterance])])
    order = np.lexsort((position, of))
    twice = (np.diff(of[order]) == 0) & (np.diff(position[order]) == 0)
    if twice.any():
        row = int(order[int(twice.argmax())])
        raise MerZooError(
            f"{where}: dialogue '{dialogue[row]}' has the utterance {position[row]:g} twice ({int(twice.sum())} such "
            "row(s)). Number the utterances of a dialogue differently, or remove the copies."
        )
    speakers = [_identity(value, naming.speaker, row, where) for row, value in enumerate(plain[naming.speaker])]
    labels, label_names = _labels(plain.get(naming.label, [None] * rows), naming.label, naming.label_names, where)
    targets, meanings = {}, {}
    for task in plain:
        if task not in naming.known:
            targets[task], names = _labels(plain[task], task, None, where)
            meanings[task] = f"labels {', '.join(f'{i} {label}' for i, label in enumerate(names))}"
    texts = ["" if value is None else str(value) for value in plain[naming.text]] if naming.text in plain else None
    dialogues = []
    splits: dict[str, list[str]] = {}
    for each, chosen in zip(numbers, np.split(order, np.flatnonzero(np.diff(of[order])) + 1), strict=True):
        given = {str(plain[naming.split][row] or "") for row in chosen} if naming.split in plain else {"all"}
        splits.setdefault(_split(given, each, where), []).append(each)
        dialogues.append(
            Conversation(
                id=each,
                speakers=tuple(speakers[row] for row in chosen),
                labels=labels[chosen],
                features={m: x[chosen] for m, x in features.items()},
                present={m: x[chosen] for m, x in masks.items() if not x[chosen].all()},
                transcript=None if texts is None else tuple(texts[row] for row in chosen),
                targets={task: x[chosen] for task, x in targets.items()},
            )
        )
    return Dataset(
        name=name,
        conversations=tuple(dialogues),
        label_names=tuple(label_names),
        splits={split: tuple(splits[split]) for split in dict.fromkeys(SPLITS.values()) if split in splits},
        provenance={m: (sources or {}).get(m, f"{where}, '{m}'") for m in features} | meanings,
    )


def _parted(
    features: Mapping[str, np.ndarray], columns: Mapping[str, Sequence[Any]], naming: Naming, where: str
) -> tuple[dict[str, np.ndarray], dict[str, Sequence[Any]]]:
    """Return masks by modality, and the other columns with None for what is empty."""
    for key in naming.required:
        if key not in columns:
            raise MerZooError(
                f"{where}: has no column '{key}'. It needs {', '.join(naming.required)} and features."
                f"{nearest(key, columns)} If it is called otherwise, say so: `{_field(naming, key)}: NAME`."
            )
    if not features:
        raise MerZooError(
            f"{where}: has no features. Give a modality's as columns such as audio_0, audio_1, ..., as lists, or in an "
            ".npz beside the table."
        )
    rows = len(columns[naming.dialogue])
    if not rows:
        raise MerZooError(f"{where}: has no rows.")
    plain: dict[str, Sequence[Any]] = {}
    masks: dict[str, np.ndarray] = {}
    for key, column in (*columns.items(), *features.items()):
        if len(column) != rows:
            raise MerZooError(f"{where}: '{key}' has {len(column)} rows, '{naming.dialogue}' has {rows}.")
    for key, column in columns.items():
        modality = key.removesuffix("_present")
        if modality != key and modality in features:
            masks[modality] = np.array([_truth(value, key, row, where) for row, value in enumerate(column)])
        elif key not in naming.ignore:
            _refuse_slip(key, {*naming.known} - columns.keys(), where)
            plain[key] = [None if _empty(value) else value for value in column]
    return masks, plain


def _refuse_slip(key: str, missing: set[str], where: str) -> None:
    """A name close to one that is not there is taken for a slip, not for a label column beside the emotion."""
    close = difflib.get_close_matches(key.lower(), missing, n=1, cutoff=0.7)
    if close and key not in missing:
        raise MerZooError(
            f"{where}: column '{key}' is not known, and there is no '{close[0]}'. If it is that, rename it, or say so: "
            f"`{close[0]}: {key}`; if not, leave it out: `ignore: [{key}]`."
        )


def _clean(values: np.ndarray, masks: dict[str, np.ndarray], modality: str, where: str) -> np.ndarray:
    """Return features as float32 with zeros where they are missing, and note where that is."""
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise MerZooError(
            f"{where}: features of '{modality}' have shape {values.shape} of {values.dtype}; want numbers [row, width]."
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is reported below
        values = values.astype(np.float32)
    absent = np.isnan(values).all(axis=1) | ~masks.get(modality, np.ones(len(values), bool))
    if absent.any():
        masks[modality] = ~absent
        values[absent] = 0
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise MerZooError(
            f"{where}, row {int(bad.argmax())}: features of '{modality}' are empty, NaN or infinite in part; "
            f"{int(bad.sum())} such row(s). Fix them, or leave the whole of them empty where they are missing."
        )
    return values


def _field(naming: Naming, column: str) -> str:
    """Which field of the naming a column's name is in."""
    return next(field for field in ("dialogue", "utterance", "speaker") if getattr(naming, field) == column)


def _empty(value: Any) -> bool:
    """Whether a value stands for none: None, NaN, a missing value of pandas, nothing but blanks."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    if isinstance(value, float):
        return math.isnan(value)
    return type(value).__name__ in ("NAType", "NaTType")


def _identity(value: Any, column: str, row: int, where: str) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # what pandas makes of whole numbers beside empty cells
    if isinstance(value, bool) or not isinstance(value, (str, int, np.integer)):
        raise MerZooError(f"{where}, column '{column}', row {row}: {_shown(value)} is not text or a whole number.")
    return str(value).strip()


def _number(value: Any, column: str, row: int, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or abs(number) > 2**53:
        raise MerZooError(
            f"{where}, column '{column}', row {row}: {_shown(value)} is not a number that could order the utterances. "
            "Number the utterances of each dialogue."
        )
    return number


def _truth(value: Any, column: str, row: int, where: str) -> bool:
    truth = TRUTHS.get(str(value).strip().lower().removesuffix(".0"))
    if truth is None:
        raise MerZooError(f"{where}, column '{column}', row {row}: {_shown(value)} is neither true nor false.")
    return truth


def _labels(
    values: Sequence[Any], column: str, given: Sequence[str] | None, where: str
) -> tuple[np.ndarray, Sequence[str]]:
    """Return class numbers, -1 where there is no label, and the names of the classes."""
    words = [None if value is None else _word(value, column, row, where) for row, value in enumerate(values)]
    found = {word for word in words if word is not None}
    if not given and len(found) > MOST_NAMES:
        raise MerZooError(
            f"{where}, column '{column}': holds {len(found):,} different values, so it is no column of labels. Leave "
            f"it out: `ignore: [{column}]`."
        )
    if all(re.fullmatch(r"-1|\d{1,5}", word) for word in found) and not (given and found & set(given)):
        labels = np.array([UNLABELLED if word is None else int(word) for word in words], dtype=np.int64)
        most = len(given) if given else CLASSES
        if (beyond := labels >= most).any():
            row = int(beyond.argmax())
            what = f"label {labels[row]}, but there are {most:,} classes"
            raise MerZooError(f"{where}, column '{column}', row {row}: {what}.")
        return labels, given or [str(number) for number in range(int(labels.max(initial=-1)) + 1)]
    names = list(given or sorted(found))
    numbers = {name: number for number, name in enumerate(names)}
    for row, word in enumerate(words):
        if word is not None and word not in numbers:
            known = nearest(word, names)
            raise MerZooError(f"{where}, column '{column}', row {row}: no class '{_cut(word)}'.{known}")
    return np.array([UNLABELLED if word is None else numbers[word] for word in words], dtype=np.int64), names


def _word(value: Any, column: str, row: int, where: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    fraction = isinstance(value, (float, np.floating)) and not float(value).is_integer()
    if fraction or (isinstance(value, str) and re.fullmatch(r"\s*-?\d*\.\d+(e[-+]?\d+)?\s*", value, re.IGNORECASE)):
        raise MerZooError(
            f"{where}, column '{column}', row {row}: {_shown(value)} is no label. Number features {column}_0, "
            f"{column}_1, ..., or leave the column out: `ignore: [{column}]`."
        )
    return _identity(value, column, row, where)


def _split(found: set[str], dialogue: str, where: str) -> str:
    names = {name: SPLITS.get(name.strip().lower()) for name in sorted(found)}
    for name, split in names.items():
        if split is None:
            raise MerZooError(f"{where}, dialogue '{dialogue}': unknown split '{_cut(name)}'.{nearest(name, SPLITS)}")
    splits = sorted({str(split) for split in names.values()})
    if len(splits) > 1:
        raise MerZooError(
            f"{where}, dialogue '{dialogue}': lies in the splits {' and '.join(splits)}. Splits are by dialogue: give "
            "all its rows the same one, or dialogues of different splits different ids."
        )
    return splits[0]


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"'{_cut(str(value))}'"


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
