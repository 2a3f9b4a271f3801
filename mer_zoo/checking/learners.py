"""The contract of learners: models that are fitted at once, and give probabilities for any dialogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from mer_zoo.checking.part import Checks, Part, Verdict
from mer_zoo.data.conversation import UNLABELLED, Conversation
from mer_zoo.data.synthetic import synthetic
from mer_zoo.errors import MerZooError
from mer_zoo.parts.learner.base import Learner

NAMES = ("sad", "neutral", "happy", "never")
"""Classes of the examples; train has none of the last."""


def checks(part: Part) -> Checks:
    """Return the suite of learners."""
    fitted = cache(lambda: _fit(_made(part), *_examples()[:2]))
    test = cache(lambda: _examples()[2])
    return {
        "construction": lambda: _construction(part),
        "fit": lambda: _fitted_itself(part),
        "probabilities": lambda: _probabilities(fitted(), test()),
        "determinism": lambda: _deterministic(part, fitted(), test()),
        "labels unseen": lambda: _labels_unseen(fitted(), test()),
        "dialogues apart": lambda: _apart(fitted(), test()),
        "little data": lambda: _little(part),
        **part.setting_checks({}, lambda changed: _effect(part, changed, fitted())),
    }


def _construction(part: Part) -> Verdict:
    _made(part)
    return None


def _made(part: Part) -> Learner:
    made = part.build({})
    if not isinstance(made, Learner):
        raise MerZooError(f"a learner must be a `Learner` of mer_zoo.parts.learner.base; {part.cls.__name__} is not.")
    return made


def _examples() -> tuple[tuple[Conversation, ...], ...]:
    """Dialogues to train, validate and test on: modalities fail, labels are missing, one speaker talks alone."""
    data = synthetic(
        dialogues=(24, 6, 6), utterances=(1, 9), emotions=NAMES[:3], failure=0.3, fails_in=("train", "test"), seed=1
    )
    train, validation, test = (data.select(ids) for ids in data.splits.values())
    train = tuple(replace(d, labels=np.where(np.arange(len(d)) % 4 == 3, UNLABELLED, d.labels)) for d in train)
    longest = max(test, key=len)
    strangers = replace(longest, id="strangers", speakers=tuple(f"guest {i}" for i in range(len(longest))))
    nothing = replace(longest, id="nothing", present={m: np.zeros(len(longest), bool) for m in data.widths})
    return train, validation, (*test, strangers, nothing)


def _fit(made: Learner, train: Sequence[Conversation], validation: Sequence[Conversation]) -> Learner:
    return made.fit(train, validation, NAMES, seed=0)


def _fitted_itself(part: Part) -> Verdict:
    made = _made(part)
    return None if _fit(made, *_examples()[:2]) is made else "`fit` must return the learner itself."


def _effect(part: Part, changed: Mapping[str, Any], default: Learner) -> Verdict | bool:
    """Fit with another setting; return its fault, or whether any probability is another than by default."""
    train, validation, test = _examples()
    fitted = _fit(part.build({}, **changed), train, validation)
    if fault := _probabilities(fitted, test):
        return fault
    return not all(np.array_equal(fitted.predict_proba(d), default.predict_proba(d)) for d in test)


def _probabilities(fitted: Learner, dialogues: Sequence[Conversation]) -> Verdict:
    for dialogue in dialogues:
        found = fitted.predict_proba(dialogue)
        want = (len(dialogue), len(NAMES))
        if not isinstance(found, np.ndarray) or found.shape != want:
            return f"dialogue '{dialogue.id}' gives {np.shape(found)}; want {list(want)}."
        if found.dtype != np.float64 or not np.isfinite(found).all() or (found < 0).any():
            return f"dialogue '{dialogue.id}': probabilities must be finite float64 numbers from 0."
        if not np.allclose(found.sum(1), 1, atol=1e-6):
            return f"dialogue '{dialogue.id}': probabilities sum to {found.sum(1)[0]:.6g}, not to 1."
        if found[:, NAMES.index("never")].any():
            return "a class without an example in train has a probability above 0."
    return None


def _deterministic(part: Part, fitted: Learner, test: Sequence[Conversation]) -> Verdict:
    again = _fit(_made(part), *_examples()[:2])
    if not all(np.array_equal(fitted.predict_proba(d), again.predict_proba(d)) for d in test):
        return "fitted twice with one seed, it differs. Let `seed` decide what is random."
    return None


def _labels_unseen(fitted: Learner, test: Sequence[Conversation]) -> Verdict:
    for dialogue in test:
        for labels in (np.full(len(dialogue), UNLABELLED), (dialogue.labels + 1) % 3):
            other = fitted.predict_proba(replace(dialogue, labels=labels))
            if not np.array_equal(fitted.predict_proba(dialogue), other):
                return f"dialogue '{dialogue.id}': with other labels the probabilities change."
    return None


def _apart(fitted: Learner, test: Sequence[Conversation]) -> Verdict:
    before = fitted.predict_proba(test[0])
    for dialogue in test:
        fitted.predict_proba(dialogue)
    if not np.array_equal(before, fitted.predict_proba(test[0])):
        return "a dialogue is judged otherwise after others were: `predict_proba` must not learn."
    return None


def _little(part: Part) -> Verdict:
    """One modality, one dialogue, a single class, and nothing to validate on."""
    longest = max(_examples()[0], key=len)
    alone = replace(longest, features={"text": longest.features["text"]}, present={})
    for dialogue in (alone, replace(alone, labels=np.zeros(len(alone), np.int64))):
        if fault := _probabilities(_fit(_made(part), [dialogue], ()), [dialogue]):
            return fault
    return None
