"""The dataset on disk: a folder with `manifest.json` and `features.safetensors`, and no pickle anywhere.

`manifest.json` (version 1) is one JSON object; every key is required and no other is allowed:

| key | value |
|---|---|
| `format`, `version` | `"mer_zoo dataset"`, 1 |
| `name`, `label_names`, `splits`, `provenance`, `warnings`, `ceiling` | as in `Dataset`; `ceiling` may be null |
| `widths` | modality -> feature width |
| `dialogues` | in order: `id`, `utterances` (a count), `speakers`, `roles`, `labels` (-1: none), `transcript` or null |
| | and, where there are any, `targets`: labels beside the emotion, name -> a number per utterance (-1: none) |
| `features_sha256` | sha256 of the file `features.safetensors` |
| `fingerprint` | sha256 of the contents, independent of the file format (see `fingerprint_of`) |

`features.safetensors` holds, for every modality `m`, `features/m` (float32 `[all utterances, width]`, dialogues one
after the other in the manifest's order) and, where it is missing somewhere, `present/m` (bool `[all utterances]`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import safetensors
import safetensors.numpy
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mer_zoo.data.conversation import CLASSES, UNLABELLED, Conversation, Dataset
from mer_zoo.errors import MerZooError

FORMAT = "mer_zoo dataset"
VERSION = 1
MANIFEST = "manifest.json"
FEATURES = "features.safetensors"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Dialogue(_Strict):
    id: str
    utterances: Annotated[int, Field(ge=1)]
    speakers: list[str]
    roles: list[str]
    labels: list[Annotated[int, Field(ge=UNLABELLED, lt=CLASSES)]]
    transcript: list[str] | None
    targets: dict[str, list[Annotated[int, Field(ge=UNLABELLED)]]] = {}


class _Manifest(_Strict):
    format: Literal["mer_zoo dataset"]
    version: Literal[1]
    name: str
    label_names: list[str]
    widths: dict[str, Annotated[int, Field(ge=1)]]
    splits: dict[str, list[str]]
    provenance: dict[str, str]
    warnings: list[str]
    ceiling: float | None
    features_sha256: str
    fingerprint: str
    dialogues: list[_Dialogue]


def fingerprint_of(dataset: Dataset) -> str:
    """Return the sha256 of what a model can learn from: equal for equal contents, however they were stored.

    Name, provenance and warnings do not enter: rewording them does not make old results those of other data.

    Example:
        >>> dialogue = Conversation("d0", ("Ann",), [0], {"text": np.zeros((1, 3), np.float32)})
        >>> one, other = (Dataset(name, (dialogue,), ("sad",), {}) for name in "ab")
        >>> fingerprint_of(one) == fingerprint_of(other)
        True
    """
    splits = {name: list(dataset.splits[name]) for name in sorted(dataset.splits)}
    dialogues = [[t.id, t.speakers, t.roles, t.labels.tolist(), t.transcript] for t in dataset]
    facts = [list(dataset.label_names), list(dataset.widths.items()), splits, dataset.ceiling, dialogues]
    if dataset.conversations[0].targets:
        facts.append([{task: x.tolist() for task, x in sorted(t.targets.items())} for t in dataset])
    digest = hashlib.sha256(json.dumps(facts).encode())
    for modality in dataset.widths:
        for dialogue in dataset:
            digest.update(dialogue.features[modality].astype("<f4", copy=False).tobytes())
            everywhere = modality not in dialogue.present
            digest.update(b"\1" * len(dialogue) if everywhere else dialogue.present[modality].tobytes())
    return digest.hexdigest()


def write_dataset(dataset: Dataset, folder: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Write a dataset as a container; the folder appears whole or not at all.

    Args:
        dataset: what to write; features come back bit for bit.
        folder: where to; parents are made.
        overwrite: replace an existing container. Anything else that exists is never replaced.

    Returns:
        The folder's path.

    Raises:
        MerZooError: the target exists and may not be replaced, or cannot be written.

    Example:
        >>> import tempfile
        >>> dialogue = Conversation("d0", ("Ann",), [0], {"text": np.zeros((1, 3), np.float32)})
        >>> with tempfile.TemporaryDirectory() as home:
        ...     folder = write_dataset(Dataset("tiny", (dialogue,), ("sad",), {"all": ("d0",)}), f"{home}/tiny")
        ...     read_dataset(folder).label_names
        ('sad',)
    """
    target = Path(folder)
    if os.path.lexists(target):
        if not _is_container(target):
            raise MerZooError(f"{target}: exists and is not a mer_zoo dataset, so it is left alone. Name a new folder.")
        if not overwrite:
            raise MerZooError(f"{target}: holds a dataset already. Name a new folder, or remove the old one.")
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        draft.mkdir(parents=True)
        _fill(dataset, draft)
        _put_in_place(draft, target)
    except OSError as error:
        raise MerZooError(f"{target}: cannot be written: {error.strerror or error}.") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return target


def read_dataset(folder: str | os.PathLike[str]) -> Dataset:
    """Read a container that `write_dataset` wrote, checking all of it.

    Args:
        folder: the container.

    Returns:
        The dataset, its `fingerprint` filled in.

    Raises:
        MerZooError: it is missing, not a container, of another version, truncated, changed or inconsistent.
    """
    home = Path(folder)
    manifest = _read_manifest(home)
    widths = manifest.widths
    counts = [dialogue.utterances for dialogue in manifest.dialogues]
    features, masks = _read_features(home, manifest, sum(counts))
    dialogues = []
    for entry, stop in zip(manifest.dialogues, accumulate(counts), strict=True):
        rows = slice(stop - entry.utterances, stop)
        absent = [m for m in masks if not masks[m][rows].all()]
        dialogues.append(
            Conversation(
                id=entry.id,
                speakers=tuple(entry.speakers),
                roles=tuple(entry.roles),
                labels=np.array(entry.labels, dtype=np.int64),
                features={m: features[m][rows] for m in widths},
                present={m: masks[m][rows] for m in absent},
                transcript=None if entry.transcript is None else tuple(entry.transcript),
                targets={task: np.array(labels, dtype=np.int64) for task, labels in entry.targets.items()},
            )
        )
    dataset = Dataset(
        name=manifest.name,
        conversations=tuple(dialogues),
        label_names=tuple(manifest.label_names),
        splits={name: tuple(ids) for name, ids in manifest.splits.items()},
        provenance=manifest.provenance,
        warnings=tuple(manifest.warnings),
        ceiling=manifest.ceiling,
    )
    found = fingerprint_of(dataset)
    if found != manifest.fingerprint:
        raise MerZooError(
            f"{home / MANIFEST}: contents do not have the fingerprint written with them (found {found[:12]}..., want "
            f"{manifest.fingerprint[:12]}...). It was changed by hand; import the data again instead."
        )
    return replace(dataset, fingerprint=found)


def _fill(dataset: Dataset, folder: Path) -> None:
    tensors: dict[str, np.ndarray] = {}
    for modality in dataset.widths:
        tensors[f"features/{modality}"] = np.concatenate([dialogue.features[modality] for dialogue in dataset])
        if any(modality in dialogue.present for dialogue in dataset):
            mask = np.concatenate([dialogue.mask(modality) for dialogue in dataset])
            if not mask.all():
                tensors[f"present/{modality}"] = mask
    safetensors.numpy.save_file(tensors, folder / FEATURES)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "name": dataset.name,
        "label_names": dataset.label_names,
        "widths": dataset.widths,
        "splits": dict(dataset.splits),
        "provenance": dict(dataset.provenance),
        "warnings": dataset.warnings,
        "ceiling": dataset.ceiling,
        "features_sha256": _sha256(folder / FEATURES),
        "fingerprint": fingerprint_of(dataset),
        "dialogues": [
            {
                "id": dialogue.id,
                "utterances": len(dialogue),
                "speakers": dialogue.speakers,
                "roles": dialogue.roles,
                "labels": dialogue.labels.tolist(),
                "transcript": dialogue.transcript,
                **({"targets": {t: x.tolist() for t, x in dialogue.targets.items()}} if dialogue.targets else {}),
            }
            for dialogue in dataset
        ],
    }
    (folder / MANIFEST).write_text(_lines(manifest), encoding="ascii")


def _lines(manifest: dict[str, Any]) -> str:
    """Render the manifest as JSON with one line per key and one per dialogue, so that people can read and diff it."""
    dialogues = ",\n".join(f"  {json.dumps(dialogue)}" for dialogue in manifest.pop("dialogues"))
    rest = "".join(f'"{key}": {json.dumps(value)},\n' for key, value in manifest.items())
    return f'{{\n{rest}"dialogues": [\n{dialogues}\n]\n}}\n'


def _put_in_place(draft: Path, target: Path) -> None:
    if not os.path.lexists(target):
        draft.rename(target)
        return
    old = draft.with_name(f"{draft.name}.old")
    target.rename(old)
    try:
        draft.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)


def _is_container(folder: Path) -> bool:
    """Say whether the folder is one of ours and holds nothing of anybody else's."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    if {entry.name for entry in folder.iterdir()} - {MANIFEST, FEATURES}:
        return False
    try:
        return json.loads((folder / MANIFEST).read_bytes())["format"] == FORMAT
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return False


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _read_manifest(home: Path) -> _Manifest:
    path = home / MANIFEST
    if not os.path.exists(home):
        raise MerZooError(f"{home}: no such dataset folder. Check the path.")
    if not home.is_dir():
        raise MerZooError(f"{home}: is a file, not a dataset folder. Import it first: mer-zoo import LAYOUT {home}")
    if not path.is_file():
        raise MerZooError(f"{home}: is not a mer_zoo dataset (it has no {MANIFEST}). Name the folder an import wrote.")
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise MerZooError(f"{path}: cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise MerZooError(f"{path}: is not valid JSON ({error}). It is truncated or damaged; write it again.") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise MerZooError(f'{path}: is not the manifest of a mer_zoo dataset (want "format": "{FORMAT}").')
    if content.get("version") != VERSION:
        raise MerZooError(
            f"{path}: is of version {content.get('version')!r}; this mer_zoo reads version {VERSION}. "
            "Update mer_zoo, or import the data again."
        )
    try:
        return _Manifest.model_validate(content)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors()]
        shown = "; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if len(faults) > 3 else "")
        raise MerZooError(f"{path}: {shown}. It was changed by hand; import the data again instead.") from None


def _read_features(home: Path, manifest: _Manifest, rows: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    path = home / FEATURES
    try:
        found = _sha256(path)
        if found != manifest.features_sha256:
            raise MerZooError(
                f"{path}: sha256 is {found[:12]}..., the manifest says {manifest.features_sha256[:12]}... "
                "The file is truncated or changed; write it again."
            )
        tensors = safetensors.numpy.load_file(path)
    except FileNotFoundError:
        raise MerZooError(f"{home}: the feature file {FEATURES} is missing. Write the dataset again.") from None
    except OSError as error:
        raise MerZooError(f"{path}: cannot be read: {error.strerror or error}.") from None
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise MerZooError(f"{path}: is not a safetensors file of numpy arrays ({error}). Write it again.") from None
    want: dict[str, tuple[str, tuple[int, ...]]] = {
        f"features/{m}": ("float32", (rows, width)) for m, width in manifest.widths.items()
    }
    want |= {f"present/{m}": ("bool", (rows,)) for m in manifest.widths if f"present/{m}" in tensors}
    have = {key: (str(array.dtype), array.shape) for key, array in tensors.items()}
    for key in sorted(want.keys() | have.keys()):
        if want.get(key) != have.get(key):
            raise MerZooError(f"{path}, '{key}': found {have.get(key)}, the manifest wants {want.get(key)}.")
    features = {m: tensors[f"features/{m}"] for m in manifest.widths}
    masks = {m: tensors[f"present/{m}"] for m in manifest.widths if f"present/{m}" in tensors}
    return features, masks
