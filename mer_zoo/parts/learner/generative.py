"""The model family of the synthetic dialogues, its parameters learned by expectation–maximisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mer_zoo.data.ceiling import DialogueModel, posterior
from mer_zoo.data.conversation import UNLABELLED, Conversation
from mer_zoo.data.normalising import Normaliser
from mer_zoo.parts.learner.base import Learner, seen_classes, spread

STATES = 10_000  # of the inference: classes ** (speakers + 1)
ROUNDS = 200
ENOUGH = 1e-5  # change of a probability, or of the distractor's strength, that ends the fit


class Generative(Learner):
    r"""Learn how emotions move between speakers and what imitates them, then infer: the most that 120 dialogues teach.

    $$x_t^m = \mu^m_{y_t} + \delta\mu^m_{z_t} + \operatorname{diag}(\tau^m)\,\varepsilon_t^m,\qquad
    P(y_t = k \mid a, b) = \iota[k=a] + \kappa[k=b] + \tfrac{1-\iota-\kappa}{E}$$

    with $z$ a hidden distractor that stays with probability $\rho$ (docs/synthetic.md). The family is given, all of
    $\mu, \tau, \delta, \rho, \iota, \kappa$ are estimated from the train dialogues: by EM over $z$ and over which of
    the three terms an emotion came from. Utterances without a label count as not observed. Predictions are the exact
    posterior given the whole dialogue; with more speakers than can be held, those silent longest are forgotten.

    On data of another family it still runs, and says how far this family goes there.

    Inputs:
        conversation: with the modalities of the train dialogues; absent ones tell nothing.
    Outputs:
        float64 `[utt, classes]`.

    Attributes:
        model: the fitted distribution, of features in deviations of their noise.

    Example:
        >>> from mer_zoo.data.synthetic import synthetic
        >>> data = synthetic(dialogues=(60, 1, 2))
        >>> train, validation, test = (data.select(ids) for ids in data.splits.values())
        >>> learner = Generative().fit(train, validation, data.label_names)
        >>> abs(learner.model.inertia - 0.92) < 0.03, abs(learner.model.persistence - 0.95) < 0.03
        (True, True)
    """

    model: DialogueModel

    def fit(
        self,
        train: Sequence[Conversation],
        validation: Sequence[Conversation],
        label_names: Sequence[str],
        *,
        seed: int = 0,
    ) -> Generative:
        """Estimate all parameters."""
        self._classes, self._count = seen_classes(train), len(label_names)
        self._normaliser = Normaliser.fit(train, dict.fromkeys(train[0].widths, "train"))
        emotions = len(self._classes)
        labels = [np.where(d.labels == UNLABELLED, -1, np.searchsorted(self._classes, d.labels)) for d in train]
        inertia, contagion = _transitions(train, labels, emotions)
        means, self._noise, distractor, persistence = _Emissions(
            [self._normaliser.apply(dialogue) for dialogue in train], labels, emotions
        ).fit()
        held = max(2, int(np.log(STATES) / np.log(max(emotions, 2)) + 1e-9) - 1)
        self.model = DialogueModel(means, inertia, contagion, distractor, persistence, speakers=held)
        return self

    def predict_proba(self, conversation: Conversation) -> np.ndarray:
        """Infer the emotions."""
        applied = self._normaliser.apply(conversation)
        scaled = {m: x / self._noise[m] for m, x in applied.features.items()}
        return spread(posterior(self.model, [replace(applied, features=scaled)])[0], self._classes, self._count)


def _transitions(dialogues: Sequence[Conversation], labels: Sequence[np.ndarray], emotions: int) -> tuple[float, float]:
    """Estimate inertia and contagion by EM over whether an emotion was kept, taken over, or drawn anew."""
    copies: list[tuple[float, float]] = []  # P(y | kept), P(y | taken over): 0 or 1, uniform where not known
    for dialogue, emotion in zip(dialogues, labels, strict=True):
        last: dict[int, int] = {}  # the latest speaker is the last entry
        for who, y in zip(dialogue.speaker_index.tolist(), emotion.tolist(), strict=True):
            own = last.pop(who, -1)
            other = last[next(reversed(last))] if last else -1
            if y >= 0:
                copies.append((_match(y, own, emotions), _match(y, other, emotions)))
            last[who] = y
    terms = np.concatenate([np.array(copies), np.full((len(copies), 1), 1 / emotions)], axis=1)
    shares = np.array([0.5, 0.25, 0.25])
    for _ in range(ROUNDS):
        joint = terms * shares
        before, shares = shares, (joint / joint.sum(1, keepdims=True)).mean(0)
        if np.abs(shares - before).max() < ENOUGH:
            break
    return float(shares[0]), float(shares[1])


def _match(y: int, copied: int, emotions: int) -> float:
    return 1 / emotions if copied < 0 else float(y == copied)


class _Emissions:
    """Features given emotion and distractor, and how long the distractor lasts: EM over the distractor's course."""

    def __init__(self, dialogues: Sequence[Conversation], labels: Sequence[np.ndarray], emotions: int) -> None:
        longest = max(map(len, dialogues))
        self.inside = np.arange(longest) < np.array([[len(dialogue)] for dialogue in dialogues])
        y = np.full(self.inside.shape, -1)
        y[self.inside] = np.concatenate(labels)
        self.emotions = emotions
        self.known = {}  # modality -> bool [dialogue, utt], where emotion and features are both observed
        self.x, self.y = {}, {}  # modality -> rows of these, and their emotions one-hot
        for modality, width in dialogues[0].widths.items():
            here, x = np.zeros(y.shape, dtype=bool), np.zeros((*y.shape, width))
            here[self.inside] = np.concatenate([dialogue.mask(modality) for dialogue in dialogues])
            x[self.inside] = np.concatenate([d.features[modality] for d in dialogues])
            self.known[modality] = here & (y >= 0)
            self.x[modality] = x[self.known[modality]]
            self.y[modality] = np.eye(emotions)[y[self.known[modality]]]

    def fit(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], float, float]:
        """Return class means in deviations of the noise, these deviations, distractor and persistence."""
        distractor, persistence = 0.5, 0.5
        course = np.full((*self.inside.shape, self.emotions), 1 / self.emotions)
        means, noise = self._means(course, distractor)
        for _ in range(ROUNDS):
            before = (distractor, persistence)
            course, persistence = self._course(means, noise, distractor, persistence)
            means, noise = self._means(course, distractor)
            distractor = self._distractor(course, means, noise)
            if max(abs(distractor - before[0]), abs(persistence - before[1])) < ENOUGH:
                break
        return {m: mean / noise[m] for m, mean in means.items()}, noise, distractor, persistence

    def _means(self, course: np.ndarray, distractor: float) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Least squares for the class means given the distractor's course, and the deviation of what is left."""
        means, noise = {}, {}
        for modality, x in self.x.items():
            y, z = self.y[modality], course[self.known[modality]]
            both = y + distractor * z
            # E[(y + dz)(y + dz)'], z being one-hot; a little ridge, for classes that were never drawn apart
            moments = both.T @ both + distractor**2 * (np.diag(z.sum(0)) - z.T @ z) + 1e-6 * np.eye(self.emotions)
            mean = np.linalg.solve(moments, both.T @ x)
            spread_of_z = distractor**2 * (z @ mean**2 - (z @ mean) ** 2)
            left = ((x - both @ mean) ** 2 + spread_of_z).sum(0) / max(len(x), 1)
            means[modality], noise[modality] = mean, np.sqrt(np.maximum(left, 1e-6))
        return means, noise

    def _distractor(self, course: np.ndarray, means: dict[str, np.ndarray], noise: dict[str, np.ndarray]) -> float:
        """Least squares for the distractor's strength."""
        product, square = 0.0, 1e-9
        for modality, x in self.x.items():
            mean, z = means[modality] / noise[modality], course[self.known[modality]]
            product += float((((x / noise[modality]) - self.y[modality] @ mean) * (z @ mean)).sum())
            square += float((z @ mean**2).sum())
        return float(np.clip(product / square, 0, 3))

    def _course(
        self, means: dict[str, np.ndarray], noise: dict[str, np.ndarray], distractor: float, persistence: float
    ) -> tuple[np.ndarray, float]:
        """Forward–backward: P(z | x, y) `[dialogue, utt, state]`, and the share of steps where $z$ stayed."""
        log = np.zeros((*self.inside.shape, self.emotions))
        for modality, x in self.x.items():
            mean = means[modality] / noise[modality]
            left = x / noise[modality] - self.y[modality] @ mean
            log[self.known[modality]] += distractor * left @ mean.T - 0.5 * distractor**2 * (mean**2).sum(1)
        seen = np.exp(log - log.max(axis=2, keepdims=True))
        anew = (1 - persistence) / self.emotions
        forward, backward = np.ones_like(seen), np.ones_like(seen)
        forward[:, 0] = seen[:, 0] / seen[:, 0].sum(1, keepdims=True)
        for t in range(1, seen.shape[1]):
            step = (persistence * forward[:, t - 1] + anew) * seen[:, t]
            forward[:, t] = step / step.sum(1, keepdims=True)
        for t in range(seen.shape[1] - 1, 0, -1):
            evidence = seen[:, t] * backward[:, t]
            step = persistence * evidence + anew * evidence.sum(1, keepdims=True)
            backward[:, t - 1] = step / step.sum(1, keepdims=True)
        course = forward * backward
        evidence = seen[:, 1:] * backward[:, 1:]
        stayed = (persistence * forward[:, :-1] * evidence).sum(2)
        either = stayed + anew * evidence.sum(2)
        steps = self.inside[:, 1:]
        rate = float((stayed / either)[steps].mean()) if steps.any() else persistence
        return course / course.sum(2, keepdims=True), rate
