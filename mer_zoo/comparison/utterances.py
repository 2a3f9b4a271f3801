"""What every model makes of every test utterance: dialogues as people read them, and where models err."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mer_zoo.comparison.statistics import Comparison, Model
from mer_zoo.data.conversation import Conversation, Dataset

MOST_DIALOGUES = 40
"""Dialogues that a report holds, those with the most errors first."""

LONG, RARE = 0.75, 0.1
"""A dialogue is long above this quantile of lengths; a class is rare below this share of the labels."""


@dataclass(frozen=True)
class Judged:
    """A test dialogue and what the models make of it.

    Attributes:
        name: id of the dialogue.
        labels: int `[utt]`, -1 where there is none.
        probability: model -> float `[utt, C]`, mean over seeds.
        said: the dialogue itself, where the data is at hand.
    """

    name: str
    labels: np.ndarray
    probability: dict[str, np.ndarray]
    said: Conversation | None

    @property
    def wrong(self) -> np.ndarray:
        """Share of models that are wrong, `[labelled utterances]`."""
        labelled = self.labels >= 0
        misses = [p.argmax(-1)[labelled] != self.labels[labelled] for p in self.probability.values()]
        return np.mean(misses, 0) if labelled.any() else np.zeros(0)


def judged(comparison: Comparison, dataset: Dataset | None = None) -> list[Judged]:
    """Return all test dialogues with what the models make of them, those with the most errors first.

    Args:
        comparison: of one dataset.
        dataset: that dataset, which knows who speaks and what is said; None: only labels are known.
    """
    said = {} if dataset is None else {one.id: one for one in dataset}
    found = []
    for name in comparison.dialogues:
        probability = {model.name: _mean(model, name) for model in comparison.models}
        labels = np.array(_predictions(comparison.models[0], name)[0].label)
        found.append(Judged(name, labels, probability, said.get(name)))
    return sorted(found, key=lambda one: (-(one.wrong.mean() if len(one.wrong) else 0.0), one.name))


def _predictions(model: Model, dialogue: str) -> list[Any]:
    return [run.predictions[dialogue] for run in model.all_runs if dialogue in run.predictions]


def _mean(model: Model, dialogue: str) -> np.ndarray:
    each = [np.array(one.probability, dtype=np.float64) for one in _predictions(model, dialogue)]
    return np.nan_to_num(np.mean(each, 0))


def slices(dialogues: list[Judged], label_names: list[str]) -> list[dict[str, Any]]:
    """Return the accuracy of each model on kinds of utterances: `name`, `utterances`, and `values`, model -> 0 to 1.

    Kinds that need the data (who speaks, what is missing) are left out where it is not at hand, and empty ones always.

    Args:
        dialogues: all of a comparison.
        label_names: of the classes.
    """
    masks: dict[str, list[np.ndarray]] = {}
    counts = np.bincount(np.concatenate([one.labels[one.labels >= 0] for one in dialogues]), minlength=len(label_names))
    rare = counts < RARE * counts.sum()
    longest = np.quantile([len(one.labels) for one in dialogues], LONG)
    for one in dialogues:
        for name, mask in _kinds(one, rare, longest).items():
            masks.setdefault(name, []).append(mask)
    found = []
    for name, parts in masks.items():
        mask = np.concatenate(parts)
        if len(parts) < len(dialogues) or not mask.any():
            continue
        values = {}
        for model in dialogues[0].probability:
            right = np.concatenate([one.probability[model].argmax(-1) == one.labels for one in dialogues])
            values[model] = float(right[mask].mean())
        found.append({"name": name, "utterances": int(mask.sum()), "values": values})
    return found


def _kinds(one: Judged, rare: np.ndarray, longest: float) -> Mapping[str, np.ndarray]:
    """Which labelled utterances of a dialogue are of which kind."""
    labels = one.labels
    known = labels >= 0
    before = np.r_[-1, labels[:-1]]
    place = np.arange(len(labels))
    kinds = {
        "all": known,
        "emotion as just before": known & (before == labels),
        "emotion other than just before": known & (before >= 0) & (before != labels),
        "first of the dialogue": known & (place == 0),
        "last third of the dialogue": known & (3 * place >= 2 * len(labels)),
        "rare class": known & rare[labels],
        "long dialogue": known & (len(labels) > longest),
    }
    if one.said is not None:
        speakers = np.array(one.said.speakers)
        same = np.r_[False, speakers[1:] == speakers[:-1]]
        kinds["same speaker goes on"] = known & same
        kinds["speaker changes"] = known & ~same & (place > 0)
        kinds |= _own(speakers, labels, known)
        for modality in one.said.features:
            kinds[f"{modality} is missing"] = known & ~one.said.mask(modality)
    return kinds


def _own(speakers: np.ndarray, labels: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
    """Whether a speaker's emotion is that of the speaker's own turn before."""
    last: dict[str, int] = {}
    before = np.full(len(labels), -1)
    for turn, (speaker, label) in enumerate(zip(speakers.tolist(), labels.tolist(), strict=True)):
        before[turn] = last.get(speaker, -1)
        last[speaker] = label
    there = known & (before >= 0)
    return {
        "speaker keeps the emotion": there & (before == labels),
        "speaker's emotion shifts": there & (before != labels),
    }


def disagreement(dialogues: list[Judged]) -> dict[tuple[str, str], float]:
    """Return the share of labelled utterances that two models judge otherwise, of every two.

    Args:
        dialogues: all of a comparison.
    """
    labelled = np.concatenate([one.labels >= 0 for one in dialogues])
    names = list(dialogues[0].probability)
    said = {n: np.concatenate([one.probability[n].argmax(-1) for one in dialogues])[labelled] for n in names}
    return {(a, b): float((said[a] != said[b]).mean()) for i, a in enumerate(names) for b in names[i + 1 :]}


def calibration(dialogues: list[Judged], model: str, bins: int = 10) -> float:
    r"""Return the expected calibration error of a model's mean probabilities (Guo et al., ICML 2017).

    $$\mathrm{ECE} = \sum_b \frac{|b|}{N}\,\bigl|\mathrm{acc}(b) - \mathrm{conf}(b)\bigr|$$

    Args:
        dialogues: all of a comparison.
        model: which.
        bins: of equal width.
    """
    confidence, accuracy, share = reliability(dialogues, model, bins)
    return float((np.abs(accuracy - confidence) * share).sum())


def reliability(dialogues: list[Judged], model: str, bins: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return mean confidence, accuracy, and share of the utterances of every bin that holds some, by confidence.

    Args:
        dialogues, model, bins: as of `calibration`.
    """
    rows = np.concatenate([one.probability[model][one.labels >= 0] for one in dialogues])
    right = rows.argmax(-1) == np.concatenate([one.labels[one.labels >= 0] for one in dialogues])
    confidence = rows.max(-1)
    bin_of = np.minimum((confidence * bins).astype(int), bins - 1)
    members = (bin_of == np.unique(bin_of)[:, None]).astype(np.float64)
    counts = members.sum(1)
    return members @ confidence / counts, members @ right / counts, counts / len(rows)


def shown(dialogues: list[Judged], label_names: list[str]) -> list[dict[str, Any]]:
    """Return the first dialogues as the report's script takes them.

    Args:
        dialogues: those with the most errors first.
        label_names: of the classes.
    """
    return [
        {
            "name": one.name,
            "wrong": round(100 * float(one.wrong.mean())) if len(one.wrong) else 0,
            "turns": [
                {
                    "speaker": "" if one.said is None else one.said.speakers[turn],
                    "text": "" if one.said is None or one.said.transcript is None else one.said.transcript[turn],
                    "truth": label_names[label] if label >= 0 else "",
                    "models": [
                        [label_names[int(p[turn].argmax())], round(100 * float(p[turn].max()))]
                        for p in one.probability.values()
                    ],
                }
                for turn, label in enumerate(one.labels.tolist())
            ],
        }
        for one in dialogues[:MOST_DIALOGUES]
    ]
