"""The contracts of datasets and of extractors."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np

from mer_zoo.checking.part import Broken, Finding, NotHere, Part, run
from mer_zoo.data.container import fingerprint_of
from mer_zoo.data.conversation import MODALITIES, Dataset
from mer_zoo.data.splits import split_dataset

SAID = ("I got the job!", "No way.", "Why would you say that to me?", "", "Well ... fine, then.")


def datasets(part: Part) -> Iterator[Finding]:
    """Run the suite of datasets: a class or function without facts that gives a `Dataset`."""
    made: list[Dataset] = []
    first = run("construction", lambda: made.append(_dataset(part)))
    yield first
    if not first.fine:
        return
    yield run("determinism", lambda: _same(part, made[0]))
    yield run("splits", lambda: _splits(made[0]))
    yield run("provenance", lambda: _provenance(made[0]))


def _dataset(part: Part) -> Dataset:
    made: Any = part.build({})
    made = made if isinstance(made, Dataset) or not callable(made) else made()
    if not isinstance(made, Dataset):
        raise Broken(f"a dataset must be, or give when called, a mer_zoo Dataset, not {type(made).__name__}.")
    return made


def _same(part: Part, first: Dataset) -> None:
    if fingerprint_of(first) != fingerprint_of(_dataset(part)):
        raise Broken("made twice, it differs. Let a setting `seed` decide what is random.")


def _splits(made: Dataset) -> None:
    split = split_dataset(made)
    for name, ids in zip(("train", "validation", "test"), split[:3], strict=True):
        if not ids:
            raise Broken(f"the split '{name}' has no dialogues.")


def _provenance(made: Dataset) -> None:
    if missing := [m for m in made.widths if not made.provenance.get(m)]:
        raise Broken(f"`provenance` does not tell where the features of {', '.join(missing)} come from.")


def extractors(part: Part) -> Iterator[Finding]:
    """Run the suite of extractors: raw utterances of one modality in, one row of features each out."""
    made: list[Any] = []
    first = run("construction", lambda: made.append(_extractor(part)))
    yield first
    if first.fine:
        yield run("features", lambda: _features(made[0]))


def _extractor(part: Part) -> Any:
    made = part.build({})
    if getattr(made, "modality", None) not in MODALITIES:
        raise Broken(f"`modality` must be one of {', '.join(MODALITIES)}; it is {getattr(made, 'modality', None)!r}.")
    if not isinstance(getattr(made, "out_width", None), int):
        raise Broken("`out_width` must tell the width of the features.")
    if not callable(made) or len(inspect.signature(made).parameters) != 1:
        raise Broken("an extractor is called with one argument: the utterances of a dialogue, in order.")
    return made


def _features(made: Any) -> None:
    if made.modality != "text":
        raise NotHere(f"no {made.modality} recordings here; the shape is checked when it is used")
    for said in (SAID, SAID[:1]):
        first, again = made(list(said)), made(list(said))
        if not isinstance(first, np.ndarray) or first.shape != (len(said), made.out_width):
            raise Broken(f"{len(said)} utterances give {np.shape(first)}; want [{len(said)}, {made.out_width}].")
        if first.dtype != np.float32:
            raise Broken(f"features are {first.dtype}, but must be float32.")
        if not np.isfinite(first).all():
            raise Broken("features are not finite.")
        if not np.array_equal(first, again):
            raise Broken("the same utterances give different features.")
