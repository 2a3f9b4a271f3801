"""Features on one scale: what is fitted on train dialogues alone, and applied to all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from mer_zoo.data.conversation import Conversation
from mer_zoo.errors import MerZooError, nearest

Way = Literal["none", "train", "speaker_causal", "speaker"]
"""How a modality is normalised."""

CLIP = 10.0  # deviations; what is further out is a fault of a recording, and would rule every sum


@dataclass(frozen=True)
class Normaliser:
    r"""Bring the columns of a modality to mean 0 and deviation 1, by statistics of the train dialogues or of a speaker.

    $$z = \operatorname{clip}\!\left(\frac{x-\mu}{\sigma}\right),\qquad
    z' = \operatorname{clip}\!\left(\frac{z-m}{\sqrt v}\right),\quad
    m = \frac{\sum_u z_u}{1+n},\quad v = \frac{1 + \sum_u z_u^2}{1+n} - m^2$$

    with $\mu, \sigma$ over the rows of the train dialogues where the modality is present, and clip at ±10. `none`
    leaves $x$; `train` gives $z$; `speaker` and `speaker_causal` give $z'$, $u$ running over the $n$ turns of the same
    speaker in the dialogue where the modality is present: all of them (the future too), or those before the turn
    itself. Train counts as one turn more, of mean 0 and deviation 1, so that a speaker's first turn gets $z' = z$ from
    `speaker_causal`, and a few turns say little. A column that is constant in train is 0, an absent row stays 0, and
    a modality that is never present in train is 0 throughout. Sums are float64.

    Attributes:
        ways: modality -> `none`, `train`, `speaker_causal` or `speaker`; a modality not named is left as it is.
        mean: modality -> float64 `[width]`, $\mu$.
        scale: modality -> float64 `[width]`, $1/\sigma$; 0 for constant columns.

    Example:
        >>> dialogue = Conversation("d", ("Ann", "Bob"), [0, 1], {"text": [[1, 5], [3, 5]]})
        >>> Normaliser.fit([dialogue], {"text": "train"}).apply(dialogue).features["text"].tolist()
        [[-1.0, 0.0], [1.0, 0.0]]
    """

    ways: Mapping[str, Way]
    mean: Mapping[str, np.ndarray]
    scale: Mapping[str, np.ndarray]

    @classmethod
    def fit(cls, train: Sequence[Conversation], ways: Mapping[str, Way]) -> Normaliser:
        """Measure the train dialogues.

        Args:
            train: the dialogues to measure; no others may have a say.
            ways: modality -> how to normalise it.

        Raises:
            MerZooError: no dialogue, an unknown way, or a modality that the dialogues do not have.
        """
        if not train:
            raise MerZooError("normalise: no train dialogue to measure. Give at least one.")
        mean, scale = {}, {}
        for modality, way in ways.items():
            if way not in get_args(Way):
                raise MerZooError(f"normalise.{modality}: no way '{way}'.{nearest(str(way), get_args(Way))}")
            if modality not in train[0].features:
                raise MerZooError(f"normalise: no modality '{modality}'.{nearest(modality, train[0].features)}")
            if way != "none":
                rows = np.concatenate([dialogue.features[modality][dialogue.mask(modality)] for dialogue in train])
                mean[modality], scale[modality] = _measure(rows.astype(np.float64))
        return cls(dict(ways), mean, scale)

    def state(self) -> dict[str, np.ndarray]:
        """Return what was measured, as arrays by name; with `ways` it makes the normaliser again."""
        return {f"{m}.mean": x for m, x in self.mean.items()} | {f"{m}.scale": x for m, x in self.scale.items()}

    @classmethod
    def from_state(
        cls, ways: Mapping[str, Way], state: Mapping[str, np.ndarray], widths: Mapping[str, int]
    ) -> Normaliser:
        """Make a normaliser of what `state` returned.

        Args:
            ways: modality -> how it is normalised.
            state: what was measured.
            widths: modality -> width of its features.

        Raises:
            MerZooError: the arrays in the state are not those that the ways ask for.
        """
        used = [modality for modality, way in ways.items() if way != "none"]
        wanted = {f"{modality}.{what}" for modality in used for what in ("mean", "scale")}
        if faults := sorted(wanted ^ set(state)):
            raise MerZooError(f"normaliser: {', '.join(faults)} {'missing' if wanted - set(state) else 'not used'}.")
        for name, array in state.items():
            if array.shape != (widths.get(name.rpartition(".")[0]),) or array.dtype != np.float64:
                raise MerZooError(f"normaliser: {name} has shape {array.shape} and type {array.dtype}.")
        mean, scale = ({m: state[f"{m}.{what}"] for m in used} for what in ("mean", "scale"))
        return cls(dict(ways), mean, scale)

    def apply(self, conversation: Conversation) -> Conversation:
        """Return the dialogue with its features normalised; all else is the same.

        Raises:
            MerZooError: a modality is missing, or has another width than in train.
        """
        features = dict(conversation.features)
        for modality, mean in self.mean.items():
            width = conversation.widths.get(modality, 0)
            if width != len(mean):
                raise MerZooError(
                    f"dialogue '{conversation.id}': {modality} has width {width}, but {len(mean)} in the train "
                    "dialogues that the normaliser was fitted on. Take dialogues of the same features."
                )
            here = conversation.mask(modality)
            z = _clip((features[modality].astype(np.float64) - mean) * self.scale[modality]) * here[:, None]
            if self.ways[modality] != "train":
                z = _by_speaker(z, here, conversation.speaker_index, causal=self.ways[modality] == "speaker_causal")
            features[modality] = z.astype(np.float32)
        return replace(conversation, features=features)


def _clip(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -CLIP, CLIP)


def _measure(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and 1 / deviation of every column, the latter 0 where the column is constant."""
    if len(rows) == 0:
        return np.zeros(rows.shape[1]), np.zeros(rows.shape[1])
    varies = rows.min(axis=0) < rows.max(axis=0)  # a deviation of equal numbers may come out above 0
    return rows.mean(axis=0), np.divide(1.0, rows.std(axis=0), out=np.zeros(rows.shape[1]), where=varies)


def _by_speaker(z: np.ndarray, here: np.ndarray, speakers: np.ndarray, *, causal: bool) -> np.ndarray:
    """Normalise by the speaker's own turns, train counting as one more of mean 0 and deviation 1."""
    found = np.zeros_like(z)
    for who in range(speakers.max() + 1):
        turns = np.flatnonzero((speakers == who) & here)
        own = z[turns]
        if causal:
            count = np.arange(len(turns), dtype=np.float64)[:, None]
            total, squares = (np.cumsum(x, axis=0) - x for x in (own, own**2))
        else:
            count = np.float64(len(turns))
            total, squares = own.sum(axis=0), (own**2).sum(axis=0)
        mean = total / (1 + count)
        found[turns] = _clip((own - mean) / np.sqrt((1 + squares) / (1 + count) - mean**2))
    return found


SMALL, LARGE = 1e-3, 1e2  # beyond these deviations, weights drawn for inputs of about 1 take too long to adapt


def deviations(rows: np.ndarray) -> np.ndarray:
    """Return the standard deviations of the columns that vary, float64.

    Example:
        >>> deviations(np.array([[0.0, 0.1, 0.0], [1.0, 0.1, 9e9]])).tolist()
        [0.5, 4500000000.0]
    """
    _, scale = _measure(rows.astype(np.float64))
    return 1 / scale[scale > 0]
