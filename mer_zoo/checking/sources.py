"""The contracts of datasets, of importers and of extractors."""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from mer_zoo.checking.part import Checks, Part, Verdict, first_line, where
from mer_zoo.data.container import fingerprint_of
from mer_zoo.data.conversation import MODALITIES, Conversation, Dataset
from mer_zoo.data.importing import refuse_other
from mer_zoo.data.splits import split_dataset
from mer_zoo.errors import MerZooError

SAID = ("I got the job!", "No way.", "Why would you say that to me?", "", "Well ... fine, then.")
TELLING = 0.9
"""Share of the variance between labels that a single number of the features may explain, below this."""
MOST = 400, 4000
"""Utterances of the test and of the training split that are compared with each other."""


def datasets(part: Part) -> Checks:
    """Return the suite of datasets: a class or function without facts that gives a `Dataset`."""

    @cache
    def made() -> Dataset:
        return _dataset(part)

    return {
        "construction": lambda: _splits(made()),
        "determinism": lambda: _same(part, made()),
        "test dialogues": lambda: _copies(made()),
        "labels": lambda: _labels(made()),
        "provenance": lambda: _provenance(made()),
        **part.setting_checks(
            {}, lambda changed: fingerprint_of(_dataset(part, **changed)) != fingerprint_of(made()), 1
        ),
    }


def _dataset(part: Part, **settings: Any) -> Dataset:
    made: Any = part.build({}, **settings)
    made = made if isinstance(made, Dataset) or not callable(made) else made()
    if not isinstance(made, Dataset):
        raise MerZooError(f"a dataset must be, or give when called, a mer_zoo Dataset, not {type(made).__name__}.")
    return made


def _same(part: Part, first: Dataset) -> Verdict:
    if fingerprint_of(first) != fingerprint_of(_dataset(part)):
        return "made twice, it differs. Let a setting `seed` decide what is random."
    return None


def _splits(made: Dataset) -> Verdict:
    for name, ids in zip(("train", "validation", "test"), split_dataset(made)[:3], strict=True):
        if not ids:
            return f"the split '{name}' has no dialogues."
    return None


def _copies(made: Dataset) -> Verdict:
    """No dialogue that is trained on may be validated or tested on, whatever it is called."""
    known = {t.id: t for t in made}
    train, validation, test, *_ = ([known[i] for i in ids] for ids in split_dataset(made)[:3])
    for name, later, earlier in (("test", test, [*train, *validation]), ("validation", validation, train)):
        seen, own = _numbers(earlier)[: MOST[1]], _numbers(later)[: MOST[0]]
        scale = seen.std(0) + 1e-9
        far = np.stack([np.abs((seen - row) / scale).mean(1).min() for row in own])
        # copies, noise added or not, lie far closer than any two utterances do by chance
        copied = far < 1e-2
        if copied.sum() > max(3, 0.2 * len(own)):
            return (
                f"{int(copied.sum())} of {len(own)} utterances of the split '{name}' are also trained on. Keep each "
                "dialogue in one split."
            )
    return None


def _labels(made: Dataset) -> Verdict:
    """No number of the features, nor of their masks, may tell the label."""
    dialogues = list(made)
    labels = np.concatenate([t.labels for t in dialogues])
    known = labels >= 0
    labels = labels[known]
    if len(np.unique(labels)) < 2 or len(labels) < 20:
        return None
    members = (labels[:, None] == np.unique(labels)).astype(float)
    for modality in made.widths:
        shown = np.concatenate([_present(t, modality) for t in dialogues])[known].astype(float)
        values = np.concatenate([t.features[modality] for t in dialogues])[known].astype(float)
        for what, columns in (("feature", values), ("presence", shown[:, None])):
            centred = columns - columns.mean(0)
            total = (centred**2).sum(0)
            means = members.T @ centred / members.sum(0)[:, None]
            by_label = (means**2 * members.sum(0)[:, None]).sum(0)
            off = members - members.mean(0)
            by_class = (off.T @ centred) ** 2 / (off**2).sum(0)[:, None]
            share = np.maximum(by_label, by_class.max(0)) / np.maximum(total, 1e-12)
            if share.max() > TELLING:
                return (
                    f"{what} {int(share.argmax())} of {modality} tells the label: {share.max():.0%} of its variance is "
                    "between labels. Keep labels, and what is made of them, out of the features."
                )
    return None


def _present(dialogue: Conversation, modality: str) -> np.ndarray:
    return dialogue.present.get(modality, np.ones(len(dialogue), bool))


def _numbers(dialogues: Sequence[Conversation]) -> np.ndarray:
    """All modalities side by side, one row per utterance."""
    return np.concatenate([np.concatenate(list(t.features.values()), 1) for t in dialogues]).astype(np.float32)


def _provenance(made: Dataset) -> Verdict:
    if missing := [m for m in made.widths if not made.provenance.get(m)]:
        return f"`provenance` does not tell where the features of {', '.join(missing)} come from."
    return None


OTHER_FILES = {
    "empty": b"",
    "HTML": b"<!doctype html><html><body>Sign in</body></html>",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(64),
    "JSON": b'{"error": ["not found"]}',
    "noise": np.random.default_rng(0).bytes(4096),
}
"""What is downloaded in place of data."""


def importers(part: Part) -> Checks:
    """Return the suite of importers: the path of a file in, a dataset out; anything but such a file is refused."""
    made = cache(partial(part.build, {}))

    def read(change: Callable[[bytes], bytes] = bytes, **settings: Any) -> Dataset:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(made().example(Path(folder)))
            path.write_bytes(change(path.read_bytes()))
            refuse_other(path, part.owner, made())
            return part.build({}, **settings)(path)

    return {
        "construction": lambda: _importer(made()),
        "example": lambda: _example(read),
        "other files": lambda: _other_files(read),
        "damaged files": lambda: _damaged_files(read),
        **part.setting_checks({}, lambda changed: fingerprint_of(read(**changed)) != fingerprint_of(read())),
    }


def _importer(made: Any) -> Verdict:
    if not callable(made) or len(inspect.signature(made).parameters) != 1:
        return "an importer is called with one argument: the path of a file."
    if not callable(getattr(made, "example", None)):
        return "`example(folder)` must write a small file that can be read, and return its path."
    return None


def _example(read: Callable[..., Any]) -> Verdict:
    first, again = read(), read()
    if not isinstance(first, Dataset):
        return f"the example becomes a {type(first).__name__}, not a mer_zoo Dataset."
    if fingerprint_of(first) != fingerprint_of(again):
        return "the same file read twice gives different data."
    return _provenance(first)


def _other_files(read: Callable[..., Any]) -> Verdict:
    """What is something else is refused, by a `MerZooError` alone."""
    for what, content in OTHER_FILES.items():
        if fault := _refused(lambda content=content: read(lambda _: content)):  # type: ignore[misc]
            return f"a file of {what}: {fault}"
    return None


def _damaged_files(read: Callable[..., Any]) -> Verdict:
    """What breaks off in the middle is refused, or still is data; it never crashes."""
    for share in (0.1, 0.5, 0.9):
        fault = _refused(lambda share=share: read(lambda whole: whole[: int(share * len(whole))]))  # type: ignore[misc]
        if fault and fault != _READ:
            return f"the first {share:.0%} of its example: {fault}"
    return None


_READ = "is read as if nothing were wrong. Refuse it by a MerZooError."


def _refused(act: Callable[[], Any]) -> str:
    try:
        act()
    except MerZooError:
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {first_line(error)}{where(error)} Refuse it by a MerZooError."
    return _READ


def extractors(part: Part) -> Checks:
    """Return the suite of extractors: utterances of a dialogue in, one row of features each out."""
    made = cache(partial(part.build, {}))
    return {
        "construction": lambda: _extractor(made()),
        "features": lambda: _features(made()),
        **part.setting_checks({}, lambda changed: _extracts_else(part.build({}, **changed), made())),
    }


def _extractor(made: Any) -> Verdict:
    if getattr(made, "modality", None) not in MODALITIES:
        return f"`modality` must be one of {', '.join(MODALITIES)}; it is {getattr(made, 'modality', None)!r}."
    if not isinstance(getattr(made, "out_width", None), int):
        return "`out_width` must tell the width of the features."
    if not callable(made) or len(inspect.signature(made).parameters) != 1:
        return "an extractor is called with one argument: the utterances of a dialogue, in order."
    return None


def _features(made: Any) -> Verdict:
    """One finite float32 row per utterance, the same each time, which depends on what is said."""
    for said in (SAID, SAID[:1], SAID * 26):
        first, again = made(list(said)), made(list(said))
        if not isinstance(first, np.ndarray) or first.shape != (len(said), made.out_width):
            given = f"an array of shape {list(first.shape)}" if isinstance(first, np.ndarray) else repr(first)
            return f"{len(said)} utterances give {given}; want an array of shape [{len(said)}, {made.out_width}]."
        if first.dtype != np.float32:
            return f"features are {first.dtype}, but must be float32."
        if not np.isfinite(first).all():
            return "features are not finite."
        if not np.array_equal(first, again):
            return "the same utterances give different features."
        if said is SAID and (first == first[:1]).all():
            return "every utterance gets the same features, whatever is said."
    return None


def _extracts_else(changed: Any, default: Any) -> Verdict | bool:
    fault = _extractor(changed) or _features(changed)
    return fault or not np.array_equal(changed(list(SAID)), default(list(SAID)))
