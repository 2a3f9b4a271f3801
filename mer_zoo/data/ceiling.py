"""The best accuracy that any model can reach on synthetic dialogues: exact inference by forward–backward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from mer_zoo.data.conversation import Conversation
from mer_zoo.errors import MerZooError, nearest

Turn = tuple[int, np.ndarray, np.ndarray]  # recency rank of a speaker, dialogues where they speak, their transition
CELLS = 4_000_000  # numbers of one forward message kept at a time: 32 MB


@dataclass(frozen=True, eq=False)
class DialogueModel:
    """The distribution that synthetic dialogues are drawn from, known to the last parameter.

    $P(y_t=k \\mid a, b) = \\iota[k=a] + \\kappa[k=b] + (1-\\iota-\\kappa)/E$ with $a$ the speaker's own last emotion
    and $b$ that of whoever else spoke last; $x_t^m = \\mu^m_{y_t} + \\delta\\mu^m_{z_t} + \\varepsilon$.

    Attributes:
        means: modality -> float64 `[emotions, width]`, class means $\\mu^m$ in units of the noise's standard deviation.
        inertia: probability $\\iota$ that a speaker keeps their last emotion.
        contagion: probability $\\kappa$ that a speaker takes over the other's last emotion.
        distractor: strength $\\delta$ of the distractor relative to the emotion itself.
        persistence: probability $\\rho$ that the distractor $z$ stays from one utterance to the next.

    Example:
        >>> model = DialogueModel({"text": np.eye(2)}, inertia=0.5, contagion=0.25, distractor=0.0, persistence=0.9)
        >>> model.answer[0, 1].tolist(), model.opening[0].tolist()
        ([0.625, 0.375], [0.75, 0.25])
    """

    means: Mapping[str, np.ndarray]
    inertia: float
    contagion: float
    distractor: float
    persistence: float

    @property
    def emotions(self) -> int:
        """Number of emotions, which is also the number of distractor states."""
        return len(next(iter(self.means.values())))

    @cached_property
    def opening(self) -> np.ndarray:
        """$P(y_t \\mid a)$ while nobody else has spoken, float64 `[own, next]`."""
        return _stay(self.emotions, self.inertia)

    @cached_property
    def answer(self) -> np.ndarray:
        """$P(y_t \\mid a, b)$ once somebody else has spoken, float64 `[own, other, next]`."""
        copy = np.eye(self.emotions)
        prior = (1 - self.inertia - self.contagion) / self.emotions
        return self.inertia * copy[:, None] + self.contagion * copy[None] + prior

    @cached_property
    def drift(self) -> np.ndarray:
        """$P(z_t \\mid z_{t-1})$, float64 `[distractor, next]`."""
        return _stay(self.emotions, self.persistence)

    def likelihood(self, dialogue: Conversation, modalities: Sequence[str]) -> np.ndarray:
        """$p(x_t \\mid y_t, z_t)$ up to a factor per utterance, float64 `[utt, emotion, distractor]`."""
        log = np.zeros((len(dialogue), self.emotions, self.emotions))
        for modality in modalities:
            mean, values = self.means[modality], dialogue.features[modality].astype(np.float64)
            centre = mean[:, None] + self.distractor * mean[None]
            score = values @ mean.T
            log += score[:, :, None] + self.distractor * score[:, None, :] - 0.5 * (centre**2).sum(-1)
        return np.exp(log - log.max(axis=(1, 2), keepdims=True))


class Ceiling(NamedTuple):
    """Accuracy of the Bayes-optimal classifier: what it must expect, and what it got on the labels drawn."""

    expected: float
    realised: float


def ceiling(
    model: DialogueModel,
    conversations: Sequence[Conversation],
    *,
    modalities: Sequence[str] | None = None,
    context: bool = True,
) -> Ceiling:
    """Return the accuracy that no model can exceed on these dialogues.

    $\\frac{1}{N} \\sum_{d,t} \\max_k P(y_{d,t} = k \\mid x_d, s_d)$: given the inputs, no rule has a higher expected
    accuracy, and what a model scores on the labels drawn differs from its expectation by the luck of the draw alone.

    Args:
        model: the distribution that the dialogues were drawn from.
        conversations: dialogues of that model; utterances without a label count for `expected` alone.
        modalities: what the classifier may see; None for all.
        context: whether it sees the whole dialogue (True) or each utterance alone (False).

    Returns:
        `expected` is the sum above, the ceiling to quote; `realised` is the accuracy of $\\arg\\max_k P$ on the labels.

    Raises:
        MerZooError: an unknown modality, or none; no dialogue; a dialogue with other widths than the model's.

    Example:
        >>> model = DialogueModel({"text": 9 * np.eye(2)}, inertia=0.5, contagion=0.25, distractor=0.0, persistence=0.0)
        >>> ceiling(model, [Conversation("d", ("A", "B"), [0, 1], {"text": 9 * np.eye(2)})])
        Ceiling(expected=1.0, realised=1.0)
    """
    chances = np.concatenate(posterior(model, conversations, modalities=modalities, context=context))
    labels = np.concatenate([dialogue.labels for dialogue in conversations])
    hits = (chances.argmax(1) == labels)[labels >= 0]
    return Ceiling(float(chances.max(1).mean()), float(hits.mean()) if len(hits) else float("nan"))


def posterior(
    model: DialogueModel,
    conversations: Sequence[Conversation],
    *,
    modalities: Sequence[str] | None = None,
    context: bool = True,
) -> list[np.ndarray]:
    """Return $P(y_t \\mid x_{1:T}, s_{1:T})$ for every utterance of every dialogue, exactly.

    Forward–backward on the product of the speakers' last emotions and the distractor. The cost of one utterance is
    proportional to emotions ** (speakers + 2).

    Args:
        model: the distribution that the dialogues were drawn from.
        conversations: dialogues with the model's modalities and widths; their labels are not read.
        modalities: what is observed; None for all.
        context: False conditions on $x_t$ alone.

    Returns:
        one float64 `[utt, emotions]` per dialogue, rows sum to 1.

    Raises:
        MerZooError: an unknown modality, or none; no dialogue; a dialogue with other widths than the model's.

    Example:
        >>> model = DialogueModel({"text": np.eye(2)}, inertia=0.5, contagion=0.25, distractor=0.0, persistence=0.0)
        >>> dialogue = Conversation("d", ("A", "B"), [0, 0], {"text": [[9, 0], [0, 0]]})
        >>> posterior(model, [dialogue])[0].round(2).tolist()
        [[1.0, 0.0], [0.62, 0.38]]
        >>> posterior(model, [dialogue], context=False)[0].round(2).tolist()
        [[1.0, 0.0], [0.5, 0.5]]
    """
    seen = tuple(model.means if modalities is None else modalities)
    for modality in seen:
        if modality not in model.means:
            raise MerZooError(f"ceiling: no modality '{modality}'.{nearest(modality, model.means)}")
    if not seen or not conversations:
        raise MerZooError(f"ceiling: no {'dialogue' if seen else 'modality'} given. Give at least one.")
    for dialogue in conversations:
        for modality in seen:
            found, known = dialogue.widths.get(modality, 0), model.means[modality].shape[1]
            if found != known:
                raise MerZooError(
                    f"ceiling, dialogue '{dialogue.id}': {modality} has width {found}, the model's has {known}. "
                    "Take dialogues that were drawn from this model."
                )
    if not context:
        sums = [model.likelihood(dialogue, seen).sum(2) for dialogue in conversations]
        return [total / total.sum(1, keepdims=True) for total in sums]
    longest = max(len(dialogue) for dialogue in conversations)
    speakers = max(2, 1 + max(int(dialogue.speaker_index.max()) for dialogue in conversations))
    batch = max(1, CELLS // (longest * model.emotions ** (speakers + 1)))
    chances: list[np.ndarray] = []
    for start in range(0, len(conversations), batch):
        chances += _smooth(model, conversations[start : start + batch], seen, speakers)
    return chances


def _smooth(
    model: DialogueModel, dialogues: Sequence[Conversation], modalities: Sequence[str], speakers: int
) -> list[np.ndarray]:
    """Posteriors of a few dialogues at once.

    A message is `[dialogue, last emotion of the latest speaker, of the one before, ..., distractor]`: with speakers in
    order of recency, the step is the same for all of them once the speaker of the utterance is moved to the front.
    """
    count, emotions = len(dialogues), model.emotions
    lengths = np.array([len(dialogue) for dialogue in dialogues])
    seen = np.ones((count, lengths.max(), emotions, emotions))
    for row, dialogue in enumerate(dialogues):
        seen[row, : len(dialogue)] = model.likelihood(dialogue, modalities)
    turns = _turns(model, dialogues, speakers)

    state = np.full((count, *[emotions] * (speakers + 1)), 1.0 / emotions ** (speakers + 1))
    past = []
    for t, groups in enumerate(turns):
        state = state.copy()
        for rank, who, step in groups:
            own = np.moveaxis(state[who], 1 + rank, 1)
            new = np.einsum("nabr,abk->nkbr", own.reshape(len(who), emotions, emotions, -1), step, optimize=True)
            new = _evidence(new.reshape(own.shape) @ model.drift, seen[who, t])
            state[who] = new / new.sum(axis=tuple(range(1, new.ndim)), keepdims=True)
        past.append(state)

    chances = np.zeros((count, lengths.max(), emotions))
    future = np.ones_like(state)
    for t in reversed(range(len(turns))):
        chances[:, t] = (past[t] * future).sum(axis=tuple(range(2, state.ndim)))
        for rank, who, step in turns[t]:
            new = _evidence(future[who], seen[who, t]) @ model.drift.T
            old = np.einsum("nkbr,abk->nabr", new.reshape(len(who), emotions, emotions, -1), step, optimize=True)
            old = np.moveaxis(old.reshape(new.shape), 1, 1 + rank)
            future[who] = old / old.max(axis=tuple(range(1, old.ndim)), keepdims=True)
    chances /= chances.sum(2, keepdims=True)
    return [chances[row, :length] for row, length in enumerate(lengths)]


def _turns(model: DialogueModel, dialogues: Sequence[Conversation], speakers: int) -> list[list[Turn]]:
    """Per utterance: the dialogues that go on, grouped by the recency rank of who speaks and by who was heard."""
    alone = np.broadcast_to(model.opening[:, None], model.answer.shape)  # whatever the other feels
    steps: list[dict[tuple[int, bool], list[int]]] = [{} for _ in range(max(len(dialogue) for dialogue in dialogues))]
    for row, dialogue in enumerate(dialogues):
        recent = list(range(speakers))
        for t, who in enumerate(dialogue.speaker_index.tolist()):
            rank = recent.index(who)
            recent.insert(0, recent.pop(rank))
            # speakers are numbered by first appearance, so nobody else was heard while only number 0 has spoken
            heard = bool(dialogue.speaker_index[: t + 1].any())
            steps[t].setdefault((rank, heard), []).append(row)
    return [
        [(rank, np.array(rows), model.answer if heard else alone) for (rank, heard), rows in step.items()]
        for step in steps
    ]


def _evidence(message: np.ndarray, likelihood: np.ndarray) -> np.ndarray:
    """Multiply a message by `[dialogue, emotion, distractor]`, its second and its last axis."""
    count, emotions, states = likelihood.shape
    return message * likelihood.reshape(count, emotions, *[1] * (message.ndim - 3), states)


def _stay(states: int, probability: float) -> np.ndarray:
    """Stay with this probability, else draw uniformly: `[state, next]`."""
    return probability * np.eye(states) + (1 - probability) / states
