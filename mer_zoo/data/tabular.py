"""The general importer: an `.npz` of plain arrays, one row per utterance.

| column | dtype, shape | meaning |
|---|---|---|
| `dialogue` | text or integer `[row]` | the dialogue's id; rows of a dialogue need not be neighbours |
| `turn` | integer `[row]` | order within the dialogue, any numbers that increase |
| `split` | text `[row]` | `train`, `dev`/`val`/`validation`, `test`, or `all`; one per dialogue |
| `label` | integer `[row]` | class index, -1 where unlabelled |
| `transcript` | text `[row]` | optional |
| `speaker` | text `[row]` | optional; without it every dialogue is a monologue of a speaker named after it |
| `label_names` | text `[class]` | optional; without it the classes are named "0", "1", ... |
| any other name | float `[row, width]` | the features of the modality of that name |
| any other name | integer or text `[row]` | labels beside the emotion's, such as `sentiment`; -1 or "": none; |
| | | text is numbered in alphabetical order |
| `<modality>_present` | bool `[row]` | optional; False where that modality is missing, its row then counts as zeros |
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import numpy as np

from mer_zoo.data.archive import read_arrays
from mer_zoo.data.conversation import CLASSES, Conversation, Dataset
from mer_zoo.data.table import SPLITS
from mer_zoo.errors import MerZooError, nearest

REQUIRED = {"dialogue": "Uiu", "turn": "iu", "split": "U", "label": "iu"}
OPTIONAL = {"transcript": "U", "speaker": "U", "label_names": "U"}
LABEL_WORDS = 100  # different texts of a column of labels, at most: more are sentences or names
KINDS = {"U": "text", "i": "integers", "u": "integers", "f": "floats", "b": "true or false"}


def import_table(path: str | os.PathLike[str], name: str | None = None) -> Dataset:
    """Read an `.npz` with one row per utterance (columns: see the table above) as a dataset.

    Args:
        path: the `.npz`; arrays of Python objects are refused, for they are pickles.
        name: the dataset's name, by default the file's without its ending.

    Returns:
        The dataset: dialogues in order of first appearance, utterances by turn, features as float32.

    Raises:
        MerZooError: a column is missing, unknown, of the wrong type or length; a (dialogue, turn) occurs twice; a
            dialogue lies in two splits; a feature is NaN or infinite.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as home:
        ...     np.savez(f"{home}/dialogues.npz", dialogue=["a", "a"], turn=[1, 0], split=["all", "all"], label=[1, 0],
        ...              text=np.zeros((2, 3)))
        ...     import_table(f"{home}/dialogues.npz")["a"].labels.tolist()
        [0, 1]
    """
    file = Path(path)
    columns = read_arrays(file)
    modalities = _modalities(columns, file)
    _check_columns(columns, modalities, file)
    names = [str(value) for value in columns["dialogue"].tolist()]
    numbers: dict[str, int] = {}
    dialogue = np.array([numbers.setdefault(value, len(numbers)) for value in names], dtype=np.int64)
    turn = _whole(columns, "turn", file)
    order = np.lexsort((turn, dialogue))
    _check_turns(dialogue[order], turn[order], list(numbers), file)
    labels = _whole(columns, "label", file)
    targets, meanings = _targets(columns, modalities, file)
    rows_of = np.split(order, np.flatnonzero(np.diff(dialogue[order])) + 1)

    features: dict[str, np.ndarray] = {}
    masks: dict[str, np.ndarray] = {}
    for modality in modalities:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is reported below
            features[modality] = columns[modality].astype(np.float32)
        if f"{modality}_present" in columns:
            masks[modality] = columns[f"{modality}_present"]
            features[modality][~masks[modality]] = 0
        bad = ~np.isfinite(features[modality]).all(axis=1)
        if bad.any():
            row = int(bad.argmax())
            raise MerZooError(
                f"{file}, column '{modality}', row {row} (dialogue '{names[row]}', turn {turn[row]}): NaN or infinite "
                f"as float32; {int(bad.sum())} such row(s). Fix them, or mark them False in '{modality}_present'."
            )

    dialogues = []
    splits: dict[str, list[str]] = {}
    for dialogue_id, rows in zip(numbers, rows_of, strict=True):
        split = _split_of(columns["split"][rows], dialogue_id, file)
        splits.setdefault(split, []).append(dialogue_id)
        transcript = columns["transcript"][rows].tolist() if "transcript" in columns else None
        speakers = columns["speaker"][rows].tolist() if "speaker" in columns else [dialogue_id] * len(rows)
        dialogues.append(
            Conversation(
                id=dialogue_id,
                speakers=tuple(speakers),
                labels=labels[rows],
                features={m: x[rows] for m, x in features.items()},
                present={m: x[rows] for m, x in masks.items() if not x[rows].all()},
                transcript=None if transcript is None else tuple(transcript),
                targets={task: x[rows] for task, x in targets.items()},
            )
        )
    if "label_names" in columns:
        label_names = columns["label_names"].tolist()
    else:
        if labels.max() >= CLASSES:
            raise MerZooError(
                f"{file}, column 'label': label {labels.max()} in row {int(labels.argmax())}: there can be {CLASSES:,} "
                "classes. Number the classes from 0."
            )
        label_names = [str(number) for number in range(max(int(labels.max()), 0) + 1)]
    return Dataset(
        name=name or file.stem,
        conversations=tuple(dialogues),
        label_names=tuple(label_names),
        splits={split: tuple(splits[split]) for split in dict.fromkeys(SPLITS.values()) if split in splits},
        provenance={m: f"{file.name}, column '{m}' ({columns[m].dtype})" for m in modalities} | meanings,
    )


def _whole(columns: dict[str, np.ndarray], key: str, file: Path) -> np.ndarray:
    """Return whole numbers as int64, which holds all but the largest of unsigned ones."""
    numbers = columns[key]
    beyond = numbers > np.iinfo(np.int64).max
    if beyond.any():
        row = int(beyond.argmax())
        raise MerZooError(f"{file}, column '{key}', row {row}: {numbers[row]} is too large. Number them from 0.")
    return numbers.astype(np.int64)


def _modalities(columns: dict[str, np.ndarray], file: Path) -> list[str]:
    known = {*REQUIRED, *OPTIONAL}
    found = [key for key, array in columns.items() if key not in known and array.ndim == 2 and array.dtype.kind == "f"]
    masks = {f"{modality}_present" for modality in found}
    for key, array in columns.items():
        if key not in known | masks | set(found) and not _is_labels(key, array, known | masks):
            raise MerZooError(
                f"{file}, column '{key}' ({array.dtype}, shape {array.shape}): is unknown, and features are floats of "
                f"shape [row, width], labels integers or text.{nearest(key, known | masks)}"
            )
    if not found:
        raise MerZooError(f"{file}: has no features. Add a float array of shape [row, width], such as 'text'.")
    return found


def _is_labels(key: str, array: np.ndarray, known: set[str]) -> bool:
    """Whether a column holds labels beside the emotion's; a name close to a known one is taken for a slip."""
    slip = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    return array.ndim == 1 and array.dtype.kind in "Uiu" and not slip


def _targets(
    columns: dict[str, np.ndarray], modalities: list[str], file: Path
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return label column -> int64 `[row]`, and what its numbers mean where it is text."""
    targets, meanings = {}, {}
    others = {*REQUIRED, *OPTIONAL, *modalities, *(f"{m}_present" for m in modalities)}
    for key in (key for key in columns if key not in others):
        if columns[key].dtype.kind != "U":
            targets[key] = _whole(columns, key, file)
            continue
        words = sorted({*columns[key].tolist()} - {""})
        if len(words) > LABEL_WORDS:
            raise MerZooError(
                f"{file}, column '{key}': holds {len(words):,} different texts, so it is no column of labels. Leave it "
                "out."
            )
        numbers = {"": -1} | {word: number for number, word in enumerate(words)}
        targets[key] = np.array([numbers[word] for word in columns[key].tolist()], dtype=np.int64)
        meanings[key] = f"labels {', '.join(f'{number} {word}' for number, word in enumerate(words))}"
    return targets, meanings


def _check_columns(columns: dict[str, np.ndarray], modalities: list[str], file: Path) -> None:
    for key in REQUIRED:
        if key not in columns:
            raise MerZooError(f"{file}: has no column '{key}'. It needs {', '.join(REQUIRED)} and a modality.")
    kinds = REQUIRED | OPTIONAL | {f"{m}_present": "b" for m in modalities}
    rows = len(columns[modalities[0]])
    if rows == 0:
        raise MerZooError(f"{file}: has no utterances: column '{modalities[0]}' has no rows.")
    for key, array in columns.items():
        if key in kinds and (array.ndim != 1 or array.dtype.kind not in kinds[key]):
            want = " or ".join(dict.fromkeys(KINDS[kind] for kind in kinds[key]))
            per = "class" if key == "label_names" else "row"
            raise MerZooError(
                f"{file}, column '{key}': has dtype {array.dtype} and shape {array.shape}; want {want}, one per {per}."
            )
        if key != "label_names" and len(array) != rows:
            raise MerZooError(
                f"{file}, column '{key}': has {len(array)} rows, '{modalities[0]}' has {rows}. "
                "Every column needs one row per utterance."
            )


def _check_turns(dialogue: np.ndarray, turn: np.ndarray, names: list[str], file: Path) -> None:
    twice = (np.diff(dialogue) == 0) & (np.diff(turn) == 0)
    if twice.any():
        at = int(twice.argmax())
        raise MerZooError(
            f"{file}: dialogue '{names[dialogue[at]]}' has turn {turn[at]} twice ({int(twice.sum())} such row(s)). "
            "Number the turns of a dialogue differently, or remove the copies."
        )


def _split_of(values: np.ndarray, dialogue_id: str, file: Path) -> str:
    found = [str(value) for value in np.unique(values)]
    for value in found:
        if value not in SPLITS:
            raise MerZooError(f"{file}, dialogue '{dialogue_id}': unknown split '{value}'.{nearest(value, SPLITS)}")
    splits = {SPLITS[value] for value in found}
    if len(splits) > 1:
        raise MerZooError(
            f"{file}, dialogue '{dialogue_id}': lies in the splits {' and '.join(sorted(splits))}. "
            "Splits are by dialogue; give all its rows the same one."
        )
    return splits.pop()
