"""The best accuracy that any model can reach on synthetic dialogues, and what each structure adds to it, exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from mer_zoo.data.conversation import Conversation, Dataset
from mer_zoo.errors import MerZooError, nearest

Turn = tuple[int, np.ndarray, np.ndarray]  # recency rank of a speaker, dialogues where they speak, their transition
CELLS = 4_000_000  # numbers of the forward messages kept at a time: 32 MB

VIEWS: dict[str, str] = {
    "full": "sees who speaks, and every utterance of the dialogue",
    "blind to speakers": "sees every utterance of the dialogue, but not who speaks",
    "own speaker only": "sees who speaks, but only the utterances of the speaker it judges",
    "one utterance": "sees the utterance alone",
    "distractor independent": "sees all, but takes the distractor to be drawn anew for every utterance",
}
"""What an optimal rule may see, or wrongly believes; it knows every parameter of the model besides."""


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
        speakers: how many may take part in a dialogue. Where more do, inference forgets those who have been silent
            longest, and meets them anew if they speak again.
        hold: probability that the speaker of an utterance also speaks the next one; the others share the rest.

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
    speakers: int = 2
    hold: float = 0.5

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
        """$p(x_t \\mid y_t, z_t)$ of what is present, up to a factor per utterance: `[utt, emotion, distractor]`."""
        log = np.zeros((len(dialogue), self.emotions, self.emotions))
        for modality in modalities:
            mean, values = self.means[modality], dialogue.features[modality].astype(np.float64)
            centre = mean[:, None] + self.distractor * mean[None]
            score = values @ mean.T
            term = score[:, :, None] + self.distractor * score[:, None, :] - 0.5 * (centre**2).sum(-1)
            log += term * dialogue.mask(modality)[:, None, None]
        return np.exp(log - log.max(axis=(1, 2), keepdims=True))


class Ceiling(NamedTuple):
    """Accuracy of a Bayes-optimal classifier: what it must expect, and what it got on the labels drawn."""

    expected: float
    realised: float


def ceilings(dataset: Dataset, split: str = "test") -> dict[str, float]:
    """Return the expected accuracy of every rule of `VIEWS` on a split, by name; empty where no distribution is known.

    The first is the ceiling of all models; the gap to another is what the structure that it does without is worth.

    Args:
        dataset: synthetic dialogues, which know their distribution, or any other data.
        split: train, validation or test.

    Example:
        >>> from mer_zoo.data.synthetic import synthetic
        >>> found = ceilings(synthetic(dialogues=(1, 1, 4), utterances=(2, 5)))
        >>> list(found) == list(VIEWS), max(found, key=found.get)
        (True, 'full')
    """
    model = getattr(dataset, "model", None)
    if not isinstance(model, DialogueModel):
        return {}
    dialogues = dataset.select(dataset.splits[split])
    truth = np.concatenate(posterior(model, dialogues))
    return {
        view: _right(truth, truth if view == "full" else np.concatenate(posterior(model, dialogues, view=view)))
        for view in VIEWS
    }


def ceiling(
    model: DialogueModel,
    conversations: Sequence[Conversation],
    *,
    modalities: Sequence[str] | None = None,
    view: str = "full",
) -> Ceiling:
    """Return the accuracy that no model can exceed on these dialogues, or that of an optimal rule that sees less.

    $\\frac{1}{N} \\sum_{d,t} P(y_{d,t} = k_{d,t} \\mid x_d, s_d)$ with $k_{d,t}$ what the rule chooses. The rule that
    sees all chooses the most probable: given the inputs, none has a higher expected accuracy, and what a model scores
    on the labels drawn differs from its expectation by the luck of the draw alone.

    Args:
        model: the distribution that the dialogues were drawn from.
        conversations: dialogues of that model; utterances without a label count for `expected` alone.
        modalities: what the classifier may see; None for all.
        view: what else it may see, a name of `VIEWS`.

    Returns:
        `expected` is the sum above, the one to quote; `realised` is the accuracy of the rule on the labels.

    Raises:
        MerZooError: an unknown modality or view, or no modality; no dialogue; other widths than the model's.

    Example:
        >>> model = DialogueModel({"text": 9 * np.eye(2)}, inertia=0.5, contagion=0.25, distractor=0.0, persistence=0.0)
        >>> ceiling(model, [Conversation("d", ("A", "B"), [0, 1], {"text": 9 * np.eye(2)})])
        Ceiling(expected=1.0, realised=1.0)
    """
    belief = np.concatenate(posterior(model, conversations, modalities=modalities, view=view))
    everything = view == "full" and modalities is None
    truth = belief if everything else np.concatenate(posterior(model, conversations))
    labels = np.concatenate([dialogue.labels for dialogue in conversations])
    hits = (belief.argmax(1) == labels)[labels >= 0]
    return Ceiling(_right(truth, belief), float(hits.mean()) if len(hits) else float("nan"))


def _right(truth: np.ndarray, belief: np.ndarray) -> float:
    """Probability that the class of the highest belief is the right one, over all utterances."""
    return float(np.take_along_axis(truth, belief.argmax(1)[:, None], axis=1).mean())


def posterior(
    model: DialogueModel,
    conversations: Sequence[Conversation],
    *,
    modalities: Sequence[str] | None = None,
    view: str = "full",
) -> list[np.ndarray]:
    """Return $P(y_t \\mid x_{1:T}, s_{1:T})$ for every utterance of every dialogue, exactly, or given less than that.

    Forward–backward on the product of the speakers' last emotions and the distractor. The cost of one utterance is
    proportional to emotions ** (speakers + 2). Modalities that are absent tell nothing.

    Args:
        model: the distribution that the dialogues were drawn from.
        conversations: dialogues with the model's modalities and widths; their labels are not read.
        modalities: what is observed; None for all.
        view: what else is observed, a name of `VIEWS`.

    Returns:
        one float64 `[utt, emotions]` per dialogue, rows sum to 1.

    Raises:
        MerZooError: an unknown modality or view, or no modality; no dialogue; other widths than the model's.

    Example:
        >>> model = DialogueModel({"text": np.eye(2)}, inertia=0.5, contagion=0.25, distractor=0.0, persistence=0.0)
        >>> dialogue = Conversation("d", ("A", "B"), [0, 0], {"text": [[9, 0], [0, 0]]})
        >>> posterior(model, [dialogue])[0].round(2).tolist()
        [[1.0, 0.0], [0.62, 0.38]]
        >>> posterior(model, [dialogue], view="one utterance")[0].round(2).tolist()
        [[1.0, 0.0], [0.5, 0.5]]
    """
    seen = tuple(model.means if modalities is None else modalities)
    _check(model, conversations, seen, view)
    if view == "one utterance":
        sums = [model.likelihood(dialogue, seen).sum(2) for dialogue in conversations]
        return [total / total.sum(1, keepdims=True) for total in sums]
    if view == "own speaker only":
        return _own(model, conversations, seen)
    if view == "distractor independent":
        model = replace(model, persistence=0.0)
    longest = max(len(dialogue) for dialogue in conversations)
    appear = 1 + max(int(dialogue.speaker_index.max()) for dialogue in conversations)
    speakers = model.speakers if view == "blind to speakers" else max(2, min(appear, model.speakers))
    batch = max(1, CELLS // (longest * model.emotions ** (speakers + 1)))
    chances: list[np.ndarray] = []
    for start in range(0, len(conversations), batch):
        dialogues = conversations[start : start + batch]
        known = _smooth_blind if view == "blind to speakers" else _smooth
        chances += known(model, dialogues, _evidence_of(model, dialogues, seen), speakers)
    return chances


def _check(model: DialogueModel, conversations: Sequence[Conversation], seen: Sequence[str], view: str) -> None:
    if view not in VIEWS:
        raise MerZooError(f"ceiling: no view '{view}'.{nearest(view, VIEWS)}")
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


def _own(model: DialogueModel, conversations: Sequence[Conversation], seen: Sequence[str]) -> list[np.ndarray]:
    """Posteriors given who speaks and what the speaker in question says: the utterances of all others are absent."""
    chances = [np.zeros((len(dialogue), model.emotions)) for dialogue in conversations]
    for who in range(1 + max(int(dialogue.speaker_index.max()) for dialogue in conversations)):
        spoken = [dialogue.speaker_index == who for dialogue in conversations]
        alone = [
            replace(dialogue, present={m: dialogue.mask(m) & mine for m in seen})
            for dialogue, mine in zip(conversations, spoken, strict=True)
        ]
        for row, found in enumerate(posterior(model, alone, modalities=seen)):
            chances[row][spoken[row]] = found[spoken[row]]
    return chances


def _evidence_of(model: DialogueModel, dialogues: Sequence[Conversation], seen: Sequence[str]) -> np.ndarray:
    """Likelihoods `[dialogue, utt, emotion, distractor]`; behind the end of a dialogue nothing is observed."""
    shape = (len(dialogues), max(len(dialogue) for dialogue in dialogues), model.emotions, model.emotions)
    evidence = np.ones(shape)
    for row, dialogue in enumerate(dialogues):
        evidence[row, : len(dialogue)] = model.likelihood(dialogue, seen)
    return evidence


def _smooth(
    model: DialogueModel, dialogues: Sequence[Conversation], evidence: np.ndarray, speakers: int
) -> list[np.ndarray]:
    """Posteriors of a few dialogues at once.

    A message is `[dialogue, last emotion of the latest speaker, of the one before, ..., distractor]`: with speakers in
    order of recency, the step is the same for all of them once the speaker of the utterance is moved to the front.
    """
    turns = _turns(model, dialogues, speakers)
    state = np.full((len(dialogues), *[model.emotions] * (speakers + 1)), 1.0)
    past = []
    for t, groups in enumerate(turns):
        state = state.copy()
        for rank, who, step in groups:
            new = _observe(_speak(state[who], rank, step) @ model.drift, evidence[who, t])
            state[who] = new / new.sum(axis=tuple(range(1, new.ndim)), keepdims=True)
        past.append(state)

    chances = np.zeros(evidence.shape[:3])
    future = np.ones_like(state)
    for t in reversed(range(len(turns))):
        chances[:, t] = (past[t] * future).sum(axis=tuple(range(2, state.ndim)))
        for rank, who, step in turns[t]:
            old = _unspeak(_observe(future[who], evidence[who, t]) @ model.drift.T, rank, step)
            future[who] = old / old.max(axis=tuple(range(1, old.ndim)), keepdims=True)
    chances /= chances.sum(2, keepdims=True)
    return [chances[row, : len(dialogue)] for row, dialogue in enumerate(dialogues)]


def _smooth_blind(
    model: DialogueModel, dialogues: Sequence[Conversation], evidence: np.ndarray, speakers: int
) -> list[np.ndarray]:
    """Posteriors where who speaks is hidden too: every step sums over the recency rank of the speaker.

    A message has one axis more, in front: whether anybody but the first speaker has spoken. Behind the end of a
    dialogue nothing is observed, which leaves every backward message as it is.
    """
    stay, go = model.hold, (1 - model.hold) / (speakers - 1)
    alone = np.broadcast_to(model.opening[:, None], model.answer.shape)
    ranks = range(1, speakers)
    state = np.zeros((2, len(dialogues), *[model.emotions] * (speakers + 1)))
    state[0] = 1.0
    past = []
    for t in range(evidence.shape[1]):
        if t == 0:
            new = np.stack([_speak(state[0], 0, alone), state[1]])
        else:
            anyone = sum(go * _speak(state[0] + state[1], rank, model.answer) for rank in ranks)
            new = np.stack([stay * _speak(state[0], 0, alone), stay * _speak(state[1], 0, model.answer) + anyone])
        new = np.stack([_observe(part @ model.drift, evidence[:, t]) for part in new])
        state = new / new.sum(axis=(0, *range(2, new.ndim)), keepdims=True)
        past.append(state)

    chances = np.zeros(evidence.shape[:3])
    future = np.ones_like(state)
    for t in reversed(range(evidence.shape[1])):
        chances[:, t] = (past[t] * future).sum(axis=(0, *range(3, state.ndim)))
        first, later = (_observe(part, evidence[:, t]) @ model.drift.T for part in future)
        anyone = sum(go * _unspeak(later, rank, model.answer) for rank in ranks)
        old = np.stack([stay * _unspeak(first, 0, alone) + anyone, stay * _unspeak(later, 0, model.answer) + anyone])
        future = old / old.max(axis=(0, *range(2, old.ndim)), keepdims=True)
    chances /= chances.sum(2, keepdims=True)
    return [chances[row, : len(dialogue)] for row, dialogue in enumerate(dialogues)]


def _turns(model: DialogueModel, dialogues: Sequence[Conversation], speakers: int) -> list[list[Turn]]:
    """Per utterance: the dialogues that go on, grouped by the recency rank of who speaks and by who was heard."""
    alone = np.broadcast_to(model.opening[:, None], model.answer.shape)  # whatever the other feels
    steps: list[dict[tuple[int, bool, bool], list[int]]]
    steps = [{} for _ in range(max(len(dialogue) for dialogue in dialogues))]
    for row, dialogue in enumerate(dialogues):
        recent = [-1] * speakers  # nobody yet
        heard = False  # whether two have spoken
        for t, who in enumerate(dialogue.speaker_index.tolist()):
            new = who not in recent
            rank = speakers - 1 if new else recent.index(who)
            del recent[rank]
            recent.insert(0, who)
            heard = heard or (new and t > 0)
            steps[t].setdefault((rank, heard, new), []).append(row)
    return [
        [
            (rank, np.array(rows), _unknown(model.answer if heard else alone, new))
            for (rank, heard, new), rows in step.items()
        ]
        for step in steps
    ]


def _unknown(step: np.ndarray, new: bool) -> np.ndarray:
    """Average over the own emotion of who is new: it is uniform, whoever had the place in the message before."""
    return np.broadcast_to(step.mean(0), step.shape) if new else step


def _speak(state: np.ndarray, rank: int, step: np.ndarray) -> np.ndarray:
    """Let the speaker of this recency rank speak: their emotion moves to the front, and on by `[own, other, next]`."""
    own = np.moveaxis(state, 1 + rank, 1)
    flat = own.reshape(len(own), *step.shape[:2], -1)
    return np.einsum("nabr,abk->nkbr", flat, step, optimize=True).reshape(own.shape)


def _unspeak(future: np.ndarray, rank: int, step: np.ndarray) -> np.ndarray:
    """Carry a backward message over the same step: the transpose of `_speak`."""
    flat = future.reshape(len(future), *step.shape[1:][::-1], -1)
    old = np.einsum("nkbr,abk->nabr", flat, step, optimize=True).reshape(future.shape)
    return np.moveaxis(old, 1, 1 + rank)


def _observe(message: np.ndarray, likelihood: np.ndarray) -> np.ndarray:
    """Multiply a message by `[dialogue, emotion, distractor]`, its second and its last axis."""
    count, emotions, states = likelihood.shape
    return message * likelihood.reshape(count, emotions, *[1] * (message.ndim - 3), states)


def _stay(states: int, probability: float) -> np.ndarray:
    """Stay with this probability, else draw uniformly: `[state, next]`."""
    return probability * np.eye(states) + (1 - probability) / states
