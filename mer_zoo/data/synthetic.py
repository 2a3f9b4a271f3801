"""Synthetic dialogues whose Bayes-optimal accuracy is known exactly: the default benchmark (docs/synthetic.md)."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral, Real
from typing import Any

import numpy as np

from mer_zoo.data.ceiling import Ceiling, DialogueModel, ceiling, ceilings
from mer_zoo.data.conversation import MODALITIES, Conversation, Dataset
from mer_zoo.errors import MerZooError, nearest

VERSION = 2  # goes up whenever the same settings give other dialogues
SPLITS = ("train", "validation", "test")
MAX_STATES = 100_000  # of the exact inference: emotions ** (speakers + 1)
MAX_UTTERANCES = 2_000_000  # minutes of drawing

# The settings that are real numbers from 0 to this.
HIGHEST = {
    "hold": 1,
    "signal": 10,
    "dominance": 1,
    "complementarity": 1,
    "inertia": 1,
    "contagion": 1,
    "distractor": 3,
    "persistence": 1,
    "failure": 1,
}

# In threes: text tells the rows apart, audio hears the last column (arousal), visual sees the first (the face).
EMOTIONS = ("happy", "neutral", "excited", "sad", "frustrated", "angry")


@dataclass(frozen=True)
class SyntheticDataset(Dataset):
    """A `Dataset` that knows the distribution it was drawn from.

    Attributes:
        model: that distribution; the other fields are those of `Dataset`.

    Example:
        >>> data = synthetic(dialogues=(4, 1, 2), utterances=(2, 5))
        >>> data.bayes().expected == data.ceiling
        True
    """

    model: DialogueModel = field(kw_only=True)

    @cached_property
    def ceilings(self) -> Mapping[str, float]:
        """Accuracy of the best rule that sees all, and of those that see less, on the test split."""
        return ceilings(self)

    def bayes(self, *, modalities: Sequence[str] | None = None, view: str = "full", split: str = "test") -> Ceiling:
        """Return the ceiling for a classifier that sees only these modalities, or less than the whole dialogue.

        Args:
            modalities: what the classifier may see; None for all.
            view: what else it may see, a name of `mer_zoo.data.ceiling.VIEWS`.
            split: train, validation or test.

        Raises:
            MerZooError: an unknown modality, view or split.

        Example:
            >>> data = synthetic(dialogues=(4, 1, 2), utterances=(2, 5))
            >>> data.bayes(modalities=["text"], view="one utterance").expected < data.ceiling
            True
        """
        if split not in self.splits:
            raise MerZooError(f"dataset '{self.name}': no split '{split}'.{nearest(split, self.splits)}")
        return ceiling(self.model, self.select(self.splits[split]), modalities=modalities, view=view)


def synthetic(
    *,
    dialogues: tuple[int, int, int] = (120, 30, 100),
    utterances: tuple[int, int] = (10, 30),
    speakers: int = 3,
    hold: float = 0.1,
    emotions: tuple[str, ...] = EMOTIONS,
    widths: tuple[int, int, int] = (32, 24, 16),
    signal: float = 1.5,
    dominance: float = 0.35,
    complementarity: float = 0.5,
    inertia: float = 0.92,
    contagion: float = 0.04,
    distractor: float = 0.7,
    persistence: float = 0.95,
    failure: float = 0.0,
    fails: tuple[str, ...] = ("text",),
    fails_in: tuple[str, ...] = ("test",),
    seed: int = 0,
) -> SyntheticDataset:
    """Draw dialogues from a model of emotions in conversation that is known exactly, ceiling included.

    $x_t^m = \\mu^m_{y_t} + \\delta\\mu^m_{z_t} + \\varepsilon_t^m$: the emotion $y_t$ copies the speaker's own last one
    (inertia), that of whoever else spoke last (contagion), or neither; the distractor $z_t$ imitates an emotion in all
    modalities at once and persists through neighbouring utterances, whoever speaks. A modality may fail, and is then
    absent throughout a dialogue. Equations: docs/synthetic.md.

    Args:
        dialogues: numbers of dialogues in train, validation and test.
        utterances: fewest and most utterances of a dialogue, drawn uniformly.
        speakers: speakers who may take part in a dialogue.
        hold: probability that the speaker of an utterance also speaks the next one.
        emotions: names of the classes.
        widths: feature widths of text, audio and visual; each at least the number of emotions plus that of groups.
        signal: length of text's class means, in standard deviations of the noise.
        dominance: by how much audio's and visual's class means are shorter than text's, 0 (as long) to 1 (no signal).
        complementarity: share of a class mean that a modality spends on its own grouping of the emotions, so that it
            blurs the emotions of a group and leaves them to the other modalities; 0 (none) to 1 (all).
        inertia: probability that a speaker keeps their own last emotion.
        contagion: probability that a speaker takes over the last emotion of the other; inertia + contagion <= 1.
        distractor: length of the distractor's imitation relative to the emotion's own mean; 0 for none.
        persistence: probability that the distractor stays as it is from one utterance to the next.
        failure: probability that modalities fail in a dialogue, whatever is said there.
        fails: the modalities that then are absent, all of them, throughout the dialogue; one at least stays.
        fails_in: the splits where it happens.
        seed: of all that is drawn; dialogue number i does not depend on how many there are.

    Returns:
        `SyntheticDataset` with the splits train, validation and test; `ceiling` is the accuracy no model can exceed on
        the test split in expectation; `fingerprint` is the sha256 of the settings and of the generator's version.

    Raises:
        MerZooError: a setting of the wrong form or out of its range, too many speakers for exact inference.

    Example:
        >>> data = synthetic(dialogues=(4, 1, 2), utterances=(2, 5))
        >>> len(data), data.widths, 0 < data.ceiling < 1
        (7, {'text': 32, 'audio': 24, 'visual': 16}, True)
    """
    settings: dict[str, Any] = {
        "dialogues": dialogues,
        "utterances": utterances,
        "speakers": speakers,
        "hold": hold,
        "emotions": emotions,
        "widths": widths,
        "signal": signal,
        "dominance": dominance,
        "complementarity": complementarity,
        "inertia": inertia,
        "contagion": contagion,
        "distractor": distractor,
        "persistence": persistence,
        "failure": failure,
        "fails": fails,
        "fails_in": fails_in,
        "seed": seed,
    }
    _check(settings)
    settings |= {name: float(settings[name]) for name in HIGHEST}  # 0 and 0.0 are one setting, with one fingerprint
    model = DialogueModel(
        _means(len(emotions), widths, signal, dominance, complementarity, np.random.default_rng((seed, 0))),
        inertia=inertia,
        contagion=contagion,
        distractor=distractor,
        persistence=persistence,
        speakers=speakers,
        hold=hold,
    )
    conversations: list[Conversation] = []
    splits: dict[str, tuple[str, ...]] = {}
    for index, (split, count) in enumerate(zip(SPLITS, dialogues, strict=True)):
        drawn = [
            _draw(
                f"{split}-{number}",
                model,
                utterances,
                fails if split in fails_in else (),
                failure,
                np.random.default_rng((seed, 1 + index, number)),
            )
            for number in range(count)
        ]
        conversations += drawn
        splits[split] = tuple(dialogue.id for dialogue in drawn)
    what_is_drawn = {"generator": "synthetic", "version": VERSION, **settings}
    text = json.dumps(what_is_drawn, sort_keys=True, default=int)  # int: numpy's whole numbers
    return SyntheticDataset(
        name=_name(settings),
        conversations=tuple(conversations),
        label_names=tuple(emotions),
        splits=splits,
        provenance=dict.fromkeys(MODALITIES, f"drawn by mer_zoo.data.synthetic, version {VERSION}, seed {seed}"),
        fingerprint=hashlib.sha256(text.encode()).hexdigest(),
        ceiling=ceiling(model, drawn).expected,
        model=model,
    )


def _name(settings: Mapping[str, Any]) -> str:
    """`synthetic`, and the knobs that are not at their defaults."""
    usual = inspect.signature(synthetic).parameters
    turned = [key for key in (*HIGHEST, "speakers") if settings[key] != usual[key].default]
    return ", ".join(["synthetic", *(f"{key} {settings[key]:g}" for key in turned)])


def _groups(emotions: int) -> dict[str, np.ndarray]:
    """Each modality's grouping of the emotions: no two emotions share the groups of all three."""
    index = np.arange(emotions)
    return {"text": index // 3, "audio": (index % 3 == 2) * 1, "visual": (index % 3 == 0) * 1}


def _means(
    emotions: int,
    widths: Sequence[int],
    signal: float,
    dominance: float,
    complementarity: float,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Class means: for each modality a blend of orthonormal directions, one per emotion and one per group."""
    means = {}
    for (modality, group), width in zip(_groups(emotions).items(), widths, strict=True):
        directions = np.linalg.qr(rng.standard_normal((width, emotions + group.max() + 1)))[0].T
        directions = directions.round(6)  # the same on every machine, whatever the last bits of its LAPACK
        own, shared = directions[:emotions], directions[emotions:][group]
        length = signal if modality == "text" else signal * (1 - dominance)
        means[modality] = length * (math.sqrt(1 - complementarity) * own + math.sqrt(complementarity) * shared)
    return means


def _draw(
    name: str,
    model: DialogueModel,
    utterances: tuple[int, int],
    fails: Sequence[str],
    failure: float,
    rng: np.random.Generator,
) -> Conversation:
    """Draw one dialogue: who speaks, then emotions and distractor, then features, then whether modalities fail."""
    length = int(rng.integers(utterances[0], utterances[1] + 1))
    turns = [int(rng.integers(model.speakers))]
    while len(turns) < length:
        step = 0 if rng.random() < model.hold else int(rng.integers(1, model.speakers))
        turns.append((turns[-1] + step) % model.speakers)

    mood = rng.integers(model.emotions, size=model.speakers)  # last emotion of each; at first, the one they come with
    distractor = np.zeros(length, dtype=np.int64)
    labels = np.zeros(length, dtype=np.int64)
    other = None  # whoever spoke last before the present speaker took the floor
    for t, who in enumerate(turns):
        if t and turns[t - 1] != who:
            other = turns[t - 1]
        chances = model.opening[mood[who]] if other is None else model.answer[mood[who], mood[other]]
        labels[t] = mood[who] = rng.choice(model.emotions, p=chances)
        stay = model.drift[distractor[t - 1]] if t else None
        distractor[t] = rng.choice(model.emotions, p=stay)

    features = {
        modality: mean[labels] + model.distractor * mean[distractor] + rng.standard_normal((length, mean.shape[1]))
        for modality, mean in model.means.items()
    }
    absent = fails if rng.random() < failure else ()  # drawn last, so that all else is as it was without failures
    features |= {modality: np.zeros_like(features[modality]) for modality in absent}
    present = {modality: np.zeros(length, dtype=bool) for modality in absent}
    return Conversation(name, tuple(f"speaker {who}" for who in turns), labels, features, present)


def _check(settings: dict) -> None:
    """Refuse settings of the wrong form or out of range, by name."""
    for name, highest in HIGHEST.items():
        _within(name, settings[name], Real, 0, highest)
    _within("speakers", settings["speakers"], Integral, 2, math.inf)
    _within("seed", settings["seed"], Integral, 0, math.inf)
    for name, parts in (
        ("dialogues", SPLITS),
        ("utterances", ("fewest", "most")),
        ("widths", MODALITIES),
    ):
        values = settings[name]
        if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != len(parts):
            raise MerZooError(f"synthetic.{name}: {values!r} is not {len(parts)} numbers ({', '.join(parts)}).")
        for part, value in zip(parts, values, strict=True):
            _within(f"{name} ({part})", value, Integral, 1, math.inf)
    if settings["utterances"][0] > settings["utterances"][1]:
        raise MerZooError(f"synthetic.utterances: fewest and most are {settings['utterances']}. Swap them.")
    if (most := sum(settings["dialogues"]) * settings["utterances"][1]) > MAX_UTTERANCES:
        raise MerZooError(
            f"synthetic.dialogues: with {settings['utterances'][1]:,} utterances each they may be {most:,} together, "
            f"more than {MAX_UTTERANCES:,}. Take fewer, or shorter ones."
        )
    if settings["inertia"] + settings["contagion"] > 1 + 1e-12:
        total = settings["inertia"] + settings["contagion"]
        raise MerZooError(f"synthetic.contagion: inertia + contagion is {total:g}, more than 1. Lower one of them.")

    _names("fails", settings["fails"], MODALITIES)
    _names("fails_in", settings["fails_in"], SPLITS)
    if set(settings["fails"]) == set(MODALITIES):
        raise MerZooError("synthetic.fails: no modality would be left. Leave one out.")

    emotions = settings["emotions"]
    if not isinstance(emotions, Sequence) or isinstance(emotions, str) or not all(isinstance(e, str) for e in emotions):
        raise MerZooError(f"synthetic.emotions: {emotions!r} is not a list of names.")
    if len(emotions) < 2 or len(set(emotions)) < len(emotions):
        raise MerZooError(f"synthetic.emotions: {', '.join(emotions) or 'nothing'}. Give two or more different names.")
    for (modality, group), width in zip(_groups(len(emotions)).items(), settings["widths"], strict=True):
        least = len(emotions) + int(group.max()) + 1
        if width < least:
            raise MerZooError(
                f"synthetic.widths: {width} for {modality}, but {len(emotions)} emotions need {least} or more there."
            )
    states = len(emotions) ** (settings["speakers"] + 1)
    if states > MAX_STATES:
        raise MerZooError(
            f"synthetic.speakers: {settings['speakers']} speakers with {len(emotions)} emotions have {states:,} joint "
            f"states; the exact ceiling can be computed up to {MAX_STATES:,}. Take fewer speakers or fewer emotions."
        )


def _names(name: str, values: object, known: Sequence[str]) -> None:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise MerZooError(f"synthetic.{name}: {values!r} is not a list of names.")
    for value in values:
        if value not in known:
            raise MerZooError(f"synthetic.{name}: no '{value}'.{nearest(str(value), known)}")


def _within(name: str, value: object, kind: type, low: float, high: float) -> None:
    number = "whole number" if kind is Integral else "number"
    bound = f"from {low} to {high}" if high < math.inf else f"of {low} or more"
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:  # type: ignore[operator]
        raise MerZooError(f"synthetic.{name}: {value!r} is not a {number} {bound}.")
