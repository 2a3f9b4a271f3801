"""The contract of learners: models that are fitted at once, and give probabilities for any dialogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from mer_zoo.checking.part import Broken, Finding, Part, run
from mer_zoo.data.conversation import UNLABELLED, Conversation
from mer_zoo.data.synthetic import synthetic
from mer_zoo.parts.learner.base import Learner

NAMES = ("sad", "neutral", "happy", "never")
"""Classes of the examples; train has none of the last."""


def findings(part: Part) -> Iterator[Finding]:
    """Run the suite of learners."""
    made: list[Learner] = []
    first = run("construction", lambda: made.append(_made(part)))
    yield first
    if not first.fine:
        return
    train, validation, test = _examples()
    fits = run("fit", lambda: _fitted_itself(made[0], train, validation))
    yield fits
    if not fits.fine:
        return
    yield run("probabilities", lambda: _probabilities(made[0], test))
    yield run("determinism", lambda: _deterministic(part, made[0], train, validation, test))
    yield run("labels unseen", lambda: _labels_unseen(made[0], test))
    yield run("dialogues apart", lambda: _apart(made[0], test))
    yield run("little data", lambda: _little(part, train))
    for variant in part.variants():
        told = ", ".join(f"{name}={value}" for name, value in variant.items())
        yield run(told, partial(_variant, part, variant, train, validation, test))


def _made(part: Part) -> Learner:
    made = part.build({})
    if not isinstance(made, Learner):
        raise Broken(f"a learner must be a `Learner` of mer_zoo.parts.learner.base; {part.cls.__name__} is not.")
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


def _fitted_itself(made: Learner, train: Sequence[Conversation], validation: Sequence[Conversation]) -> None:
    if _fit(made, train, validation) is not made:
        raise Broken("`fit` must return the learner itself.")


def _variant(
    part: Part,
    settings: Mapping[str, Any],
    train: Sequence[Conversation],
    validation: Sequence[Conversation],
    test: Sequence[Conversation],
) -> None:
    _probabilities(_fit(part.build({}, **settings), train, validation), test)


def _probabilities(fitted: Learner, dialogues: Sequence[Conversation]) -> None:
    for dialogue in dialogues:
        found = fitted.predict_proba(dialogue)
        want = (len(dialogue), len(NAMES))
        if not isinstance(found, np.ndarray) or found.shape != want:
            raise Broken(f"dialogue '{dialogue.id}' gives {np.shape(found)}; want {list(want)}.")
        if found.dtype != np.float64 or not np.isfinite(found).all() or (found < 0).any():
            raise Broken(f"dialogue '{dialogue.id}': probabilities must be finite float64 numbers from 0.")
        if not np.allclose(found.sum(1), 1, atol=1e-6):
            raise Broken(f"dialogue '{dialogue.id}': probabilities sum to {found.sum(1)[0]:.6g}, not to 1.")
        if found[:, NAMES.index("never")].any():
            raise Broken("a class without an example in train has a probability above 0.")


def _deterministic(
    part: Part,
    fitted: Learner,
    train: Sequence[Conversation],
    validation: Sequence[Conversation],
    test: Sequence[Conversation],
) -> None:
    again = _fit(_made(part), train, validation)
    if not all(np.array_equal(fitted.predict_proba(d), again.predict_proba(d)) for d in test):
        raise Broken("fitted twice with one seed, it differs. Let `seed` decide what is random.")


def _labels_unseen(fitted: Learner, test: Sequence[Conversation]) -> None:
    for dialogue in test:
        for labels in (np.full(len(dialogue), UNLABELLED), (dialogue.labels + 1) % 3):
            other = fitted.predict_proba(replace(dialogue, labels=labels))
            if not np.array_equal(fitted.predict_proba(dialogue), other):
                raise Broken(f"dialogue '{dialogue.id}': with other labels the probabilities change.")


def _apart(fitted: Learner, test: Sequence[Conversation]) -> None:
    before = fitted.predict_proba(test[0])
    for dialogue in test:
        fitted.predict_proba(dialogue)
    if not np.array_equal(before, fitted.predict_proba(test[0])):
        raise Broken("a dialogue is judged otherwise after others were: `predict_proba` must not learn.")


def _little(part: Part, train: Sequence[Conversation]) -> None:
    """One modality, one dialogue, a single class, and nothing to validate on."""
    longest = max(train, key=len)
    alone = replace(longest, features={"text": longest.features["text"]}, present={})
    for dialogue in (alone, replace(alone, labels=np.zeros(len(alone), np.int64))):
        _probabilities(_fit(_made(part), [dialogue], ()), [dialogue])
