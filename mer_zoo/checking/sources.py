"""The contracts of datasets and of extractors."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from mer_zoo.checking.part import Checks, Part, Verdict
from mer_zoo.data.container import fingerprint_of
from mer_zoo.data.conversation import MODALITIES, Conversation, Dataset
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
