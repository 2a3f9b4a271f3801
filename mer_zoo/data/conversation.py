"""A conversation and a dataset of them, as the rest of the library sees them: validated numpy, nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import numpy as np

from mer_zoo.errors import MerZooError, nearest

MODALITIES = ("text", "audio", "visual")
UNLABELLED = -1
CLASSES = 10_000  # at most; a larger label is a mistake, and would make room for as many
NAME = 1000  # characters of a dialogue's, speaker's or class's name, at most


class _Frozen:
    """Records whose arrays and mappings cannot be written: caches share them."""

    def __reduce__(self) -> tuple[Any, ...]:  # mapping proxies cannot be pickled, and arrays would come back writable
        given = {entry.name: getattr(self, entry.name) for entry in fields(self)}  # type: ignore[arg-type]
        plain = {name: dict(v) if isinstance(v, MappingProxyType) else v for name, v in given.items()}
        return partial(type(self), **plain), ()


@dataclass(frozen=True, eq=False)
class Conversation(_Frozen):
    """One dialogue: who says what, in order, with one feature vector per utterance and modality; read-only.

    Attributes:
        id: unique name of the dialogue within its dataset.
        speakers: one name per utterance, str, length `utt`.
        labels: int64 `[utt]`, class indices; -1 marks an utterance without a label (context only).
        features: modality -> float32 `[utt, width]`.
        present: modality -> bool `[utt]`, False where the modality is missing and its row is to be read as zeros.
            A modality not named here is present everywhere.
        transcript: one string per utterance, or None.
        roles: speakers that have the same number in every dialogue, such as ("M", "F") in IEMOCAP; other speakers are
            numbered behind them, by first appearance.
        targets: task -> int64 `[utt]`, labels beside the emotion's, such as of the sentiment; -1 where unlabelled.

    Raises:
        MerZooError: lengths disagree, a value is NaN or infinite, a speaker is missing, the dialogue is empty.

    Example:
        >>> dialogue = Conversation("d0", ("Ann", "Bob"), [0, -1], {"text": np.zeros((2, 3), np.float32)})
        >>> len(dialogue), dialogue.widths, dialogue.speaker_index.tolist()
        (2, {'text': 3}, [0, 1])
    """

    id: str
    speakers: tuple[str, ...]
    labels: np.ndarray
    features: Mapping[str, np.ndarray]
    present: Mapping[str, np.ndarray] = field(default_factory=dict)
    transcript: tuple[str, ...] | None = None
    roles: tuple[str, ...] = ()
    targets: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "roles", tuple(str(r) for r in self.roles))
        put(self, "speakers", tuple(str(s) for s in self.speakers))
        put(self, "labels", _read_only(np.asarray(self.labels, dtype=np.int64)))
        features = {m: _read_only(np.ascontiguousarray(x, dtype=np.float32)) for m, x in self.features.items()}
        put(self, "features", MappingProxyType(features))
        present = {m: _read_only(np.asarray(x, dtype=bool)) for m, x in self.present.items()}
        put(self, "present", MappingProxyType(present))
        targets = {task: _read_only(np.asarray(x, dtype=np.int64)) for task, x in self.targets.items()}
        put(self, "targets", MappingProxyType(targets))
        if self.transcript is not None:
            put(self, "transcript", tuple(_joined(str(t)) for t in self.transcript))
        self._check()

    def _check(self) -> None:
        here = f"dialogue '{self.id}'"
        count = len(self.speakers)
        if count == 0:
            raise MerZooError(f"{here}: has no utterances. Remove it, or give it at least one.")
        if not self.features:
            raise MerZooError(f"{here}: has no features. Give at least one modality, such as 'text'.")
        for modality in self.features:
            if not re.fullmatch(r"[^\W_]\w{0,63}", modality):
                raise MerZooError(
                    f"{here}: modality '{modality[:70]}' has a name that cannot be used. Take one word of letters, "
                    "digits and underscores, such as 'text'."
                )
        _check_names(f"dialogue '{self.id[:70]}'", (self.id, *self.speakers, *self.roles))
        for turn, speaker in enumerate(self.speakers):
            if not speaker.strip():
                raise MerZooError(f"{here}, utterance {turn}: has no speaker. Name one (any string will do).")
        for what, given in (("labels", self.labels), *((f"labels of '{t}'", x) for t, x in self.targets.items())):
            if given.ndim != 1 or (given < UNLABELLED).any():
                raise MerZooError(
                    f"{here}: {what} must be one class index per utterance, {UNLABELLED} where unlabelled."
                )
        for modality in self.present:
            if modality not in self.features:
                raise MerZooError(f"{here}: mask for unknown modality '{modality}'.{nearest(modality, self.features)}")
        lengths = {"labels": len(self.labels)}
        lengths |= {f"{m} features": len(x) for m, x in self.features.items()}
        lengths |= {f"labels of '{task}'": len(x) for task, x in self.targets.items()}
        lengths |= {f"{m} mask": len(x) for m, x in self.present.items()}
        if self.transcript is not None:
            lengths["transcript"] = len(self.transcript)
        for what, length in lengths.items():
            if length != count:
                raise MerZooError(f"{here}: {length} {what} for {count} speakers. Every utterance needs one of each.")
        for modality, values in self.features.items():
            if values.ndim != 2 or values.shape[1] == 0:
                raise MerZooError(f"{here}, {modality}: features have shape {values.shape}; want [utterances, width].")
            bad = ~np.isfinite(values).all(axis=1)
            if bad.any():
                raise MerZooError(
                    f"{here}, utterance {int(bad.argmax())}, {modality}: feature is NaN or infinite in "
                    f"{int(bad.sum())} utterance(s). Mark them absent in the modality mask with zeros, or fix them."
                )

    def __len__(self) -> int:
        return len(self.speakers)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Conversation):
            return NotImplemented
        mine, theirs = ((c.id, c.speakers, c.roles, c.transcript, c.widths) for c in (self, other))
        return (
            mine == theirs
            and np.array_equal(self.labels, other.labels)
            and all(np.array_equal(self.features[m], other.features[m]) for m in self.features)
            and all(np.array_equal(self.mask(m), other.mask(m)) for m in self.features)
            and self.targets.keys() == other.targets.keys()
            and all(np.array_equal(x, other.targets[task]) for task, x in self.targets.items())
        )

    def __hash__(self) -> int:
        return hash((self.id, self.speakers))

    def mask(self, modality: str) -> np.ndarray:
        """Return where a modality is present, bool `[utt]`."""
        return self.present[modality] if modality in self.present else np.ones(len(self), dtype=bool)

    def values(self, modality: str) -> np.ndarray:
        """Return the features of a modality with zeros where it is absent, float32 `[utt, width]`.

        Example:
            >>> dialogue = Conversation("d0", ("Ann", "Bob"), [0, 0], {"text": [[1], [2]]}, {"text": [True, False]})
            >>> dialogue.values("text").tolist()
            [[1.0], [0.0]]
        """
        if modality not in self.present:
            return self.features[modality]
        return np.where(self.present[modality][:, None], self.features[modality], np.float32(0))

    def without(self, *modalities: str) -> Conversation:
        """Return the dialogue as if modalities were absent throughout.

        Example:
            >>> dialogue = Conversation("d0", ("Ann", "Bob"), [0, 0], {"text": [[1], [2]], "audio": [[3], [4]]})
            >>> dialogue.without("audio").values("audio").tolist()
            [[0.0], [0.0]]
        """
        nowhere = np.zeros(len(self), dtype=bool)
        return replace(self, present={**self.present, **dict.fromkeys(modalities, nowhere)})

    @property
    def widths(self) -> dict[str, int]:
        """Feature width of every modality."""
        return {m: x.shape[1] for m, x in self.features.items()}

    @cached_property
    def speaker_index(self) -> np.ndarray:
        """Speakers numbered by role, then by first appearance in this dialogue, int64 `[utt]`."""
        order = {role: i for i, role in enumerate(self.roles)}
        return _read_only(np.array([order.setdefault(s, len(order)) for s in self.speakers], dtype=np.int64))


def _check_names(here: str, names: Sequence[str]) -> None:
    """Refuse names that cannot be printed, and texts in place of names."""
    try:
        "".join(names).encode()
    except UnicodeEncodeError as error:
        here = here.encode(errors="replace").decode()
        raise MerZooError(
            f"{here}: a name holds half a character ({error.object[error.start]!a}). Read its source as UTF-8."
        ) from None
    if (size := max(map(len, names))) > NAME:
        raise MerZooError(f"{here}: a name has {size:,} characters, more than {NAME:,}. Shorten it.")


def _joined(text: str) -> str:
    """Return a text in which the two halves of a character, as UTF-16 has them, are one, as in every file."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return text


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True)
class Dataset(_Frozen):
    """Conversations with the names of their classes and their splits by dialogue.

    Attributes:
        name: what reports call it.
        conversations: in file order; ids are unique, feature widths agree.
        label_names: one name per class; every label is below their number.
        splits: split name -> dialogue ids; a dialogue is in at most one split. The names are `train`, `validation`,
            `test`, or a single `all` (then results come from cross-validation by dialogue).
        provenance: modality -> where its features come from (free text).
        warnings: sentences that follow every result on this dataset.
        fingerprint: sha256 of the contents, or "" for data that was neither imported nor read from a container.
        ceiling: accuracy that no model can exceed, where it is known exactly (synthetic dialogues), else None.

    Raises:
        MerZooError: duplicate ids, a width that changes, a label without a name, a split that names no dialogue.

    Example:
        >>> dialogue = Conversation("d0", ("Ann",), [1], {"text": np.zeros((1, 3), np.float32)})
        >>> data = Dataset("tiny", (dialogue,), ("sad", "happy"), {"all": ("d0",)})
        >>> data.widths, data["d0"].id
        ({'text': 3}, 'd0')
    """

    name: str
    conversations: tuple[Conversation, ...]
    label_names: tuple[str, ...]
    splits: Mapping[str, tuple[str, ...]]
    provenance: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    fingerprint: str = ""
    ceiling: float | None = None

    @property
    def ceilings(self) -> Mapping[str, float]:
        """Accuracy of the best rule that sees all (`full`), and of those that see less, where it is known exactly."""
        return {} if self.ceiling is None else {"full": self.ceiling}

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "conversations", tuple(self.conversations))
        put(self, "label_names", tuple(str(n) for n in self.label_names))
        put(self, "splits", MappingProxyType({name: tuple(ids) for name, ids in self.splits.items()}))
        put(self, "provenance", MappingProxyType(dict(self.provenance)))
        put(self, "warnings", tuple(self.warnings))
        self._check()

    def _check(self) -> None:
        if not self.conversations:
            raise MerZooError(f"dataset '{self.name}': has no dialogues.")
        here = f"dataset '{self.name[:70]}'"
        _check_names(here, (self.name, *self.label_names))
        if len(self.label_names) > CLASSES:
            raise MerZooError(f"{here}: {len(self.label_names):,} classes, and there can be {CLASSES:,}.")
        for number, name in enumerate(self.label_names):
            if not name.strip():
                raise MerZooError(f"{here}: class {number} has no name. Name every class.")
            if self.label_names.index(name) < number:
                raise MerZooError(f"{here}: two classes are called '{name}'. Name every class differently.")
        first = self.conversations[0]
        seen: set[str] = set()
        for dialogue in self.conversations:
            here = f"dataset '{self.name}', dialogue '{dialogue.id}'"
            if dialogue.id in seen:
                raise MerZooError(f"{here}: this id is used twice. Give every dialogue its own.")
            seen.add(dialogue.id)
            if dialogue.widths != first.widths:
                raise MerZooError(
                    f"{here}: feature widths {dialogue.widths} differ from {first.widths} of dialogue '{first.id}'. "
                    "Every dialogue needs the same modalities with the same widths."
                )
            if dialogue.targets.keys() != first.targets.keys():
                raise MerZooError(
                    f"{here}: has labels of {', '.join(dialogue.targets) or 'nothing'} beside the emotion, but "
                    f"dialogue '{first.id}' of {', '.join(first.targets) or 'nothing'}. Every dialogue needs the same."
                )
            if dialogue.labels.max() >= len(self.label_names):
                raise MerZooError(
                    f"{here}: label {int(dialogue.labels.max())} has no name; the {len(self.label_names)} classes are "
                    f"{', '.join(self.label_names)}."
                )
        if self.splits.get("all") and len(self.splits) > 1:
            others = ", ".join(f"'{split}'" for split in self.splits if split != "all")
            raise MerZooError(
                f"dataset '{self.name}': has the split 'all' beside {others}. Use 'all' alone, or without it."
            )
        placed: dict[str, str] = {}
        for split, ids in self.splits.items():
            if split not in ("train", "validation", "test", "all"):
                known = nearest(split, ("train", "validation", "test", "all"))
                raise MerZooError(f"dataset '{self.name}': unknown split '{split}'.{known}")
            for name in ids:
                if name not in seen:
                    raise MerZooError(
                        f"dataset '{self.name}', split '{split}': no dialogue '{name}'.{nearest(name, seen)}"
                    )
                if name in placed:
                    where = f"'{placed[name]}' and '{split}'" if placed[name] != split else f"'{split}' twice"
                    raise MerZooError(f"dataset '{self.name}': dialogue '{name}' is in {where}. Leave it in one.")
                placed[name] = split

    def __len__(self) -> int:
        return len(self.conversations)

    def __iter__(self) -> Iterator[Conversation]:
        return iter(self.conversations)

    def __getitem__(self, dialogue_id: str) -> Conversation:
        try:
            return self._by_id[dialogue_id]
        except KeyError:
            raise MerZooError(
                f"dataset '{self.name}': no dialogue '{dialogue_id}'.{nearest(dialogue_id, self._by_id)}"
            ) from None

    @cached_property
    def _by_id(self) -> dict[str, Conversation]:
        return {dialogue.id: dialogue for dialogue in self.conversations}

    @property
    def widths(self) -> dict[str, int]:
        """Feature width of every modality."""
        return self.conversations[0].widths

    @cached_property
    def max_speakers(self) -> int:
        """Largest number of speakers in one dialogue."""
        return max(int(dialogue.speaker_index.max()) + 1 for dialogue in self.conversations)

    def select(self, ids: Sequence[str]) -> tuple[Conversation, ...]:
        """Return the dialogues with these ids, in this order."""
        return tuple(self[i] for i in ids)
