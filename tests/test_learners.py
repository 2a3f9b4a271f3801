"""Learners learn what they say: parameters come back, context and speakers are used, nothing is chosen on train."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from mer_zoo.checking import inspect_part
from mer_zoo.data.ceiling import posterior
from mer_zoo.data.conversation import Conversation
from mer_zoo.data.synthetic import synthetic
from mer_zoo.errors import MerZooError
from mer_zoo.parts.learner.base import Learner, choose_regression, fit_regression
from mer_zoo.parts.learner.generative import Generative
from mer_zoo.parts.learner.logistic_regression import LogisticRegression
from mer_zoo.parts.learner.majority import Majority
from mer_zoo.parts.learner.two_stage_regression import TwoStageRegression


@pytest.fixture(scope="module")
def data():
    return synthetic()


def splits(data):
    return tuple(data.select(ids) for ids in data.splits.values())


def accuracy(learner, dialogues):
    return np.concatenate([learner.predict_proba(d).argmax(1) == d.labels for d in dialogues]).mean()


@pytest.fixture(scope="module")
def fitted(data):
    train, validation, _ = splits(data)
    return {
        cls: cls().fit(train, validation, data.label_names)
        for cls in (Majority, LogisticRegression, TwoStageRegression, Generative)
    }


def test_each_learner_knows_more_than_the_one_before(data, fitted):
    test = splits(data)[2]
    reached = [accuracy(learner, test) for learner in fitted.values()]
    assert reached[0] < 0.2 < 0.45 < reached[1] < reached[2] - 0.1 < reached[3] - 0.2
    assert data.bayes().realised - 0.04 < reached[3]


@pytest.mark.parametrize("learner", [TwoStageRegression, Generative])
def test_who_speaks_counts(data, fitted, learner):
    test = splits(data)[2]
    mixed = [replace(d, speakers=np.random.default_rng(0).permutation(d.speakers)) for d in test]
    assert accuracy(fitted[learner], mixed) < accuracy(fitted[learner], test) - 0.1


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"inertia": 0.6, "contagion": 0.3, "distractor": 1.2, "persistence": 0.8},
        {"speakers": 2, "failure": 0.5, "fails": ["text"], "fails_in": ["train"]},
    ],
)
def test_em_finds_the_parameters_that_the_dialogues_were_drawn_with(settings):
    data = synthetic(dialogues=(400, 1, 1), **settings)
    train = splits(data)[0]
    model = Generative().fit(train, (), data.label_names).model
    for name, tolerance in {"inertia": 0.02, "contagion": 0.02, "persistence": 0.02, "distractor": 0.05}.items():
        assert getattr(model, name) == pytest.approx(getattr(data.model, name), abs=tolerance), name
    for modality, means in data.model.means.items():  # in z-scores, the means have another origin, not other gaps
        found, true = (np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (model.means[modality], means))
        np.testing.assert_allclose(found, true, atol=0.35)


def test_em_learns_from_dialogues_with_labels_missing(data):
    train, validation, test = splits(data)
    rng = np.random.default_rng(0)
    some = [replace(d, labels=np.where(rng.random(len(d)) < 0.3, -1, d.labels)) for d in train]
    learner = Generative().fit(some, validation, data.label_names)
    assert accuracy(learner, test) > data.bayes().realised - 0.08


def test_who_has_been_silent_longest_is_forgotten_and_met_anew():
    data = synthetic(dialogues=(1, 1, 1), emotions=("a", "b", "c"), widths=(5, 5, 5), utterances=(6, 6), speakers=4)
    drawn = data.conversations[0]
    returns = replace(drawn, speakers=("A", "B", "C", "A", "A", "C"))
    renamed = replace(drawn, speakers=("A", "B", "C", "D", "D", "C"))
    two, four = (replace(data.model, speakers=speakers) for speakers in (2, 4))
    found, exact = posterior(two, [returns])[0], posterior(four, [renamed])[0]
    np.testing.assert_allclose(found, exact, rtol=1e-9)
    assert not np.allclose(found, posterior(four, [returns])[0], rtol=1e-3)


def test_the_generative_learner_holds_any_number_of_speakers(data, fitted):
    longest = max(data, key=len)
    crowd = replace(longest, speakers=tuple(f"guest {turn}" for turn in range(len(longest))))
    found = fitted[Generative].predict_proba(crowd)
    np.testing.assert_allclose(found.sum(1), 1)


def test_the_order_of_the_modalities_does_not_count(data, fitted):
    dialogue = data.conversations[0]
    turned = replace(dialogue, features=dict(reversed(dialogue.features.items())))
    for learner in fitted.values():
        assert np.array_equal(learner.predict_proba(dialogue), learner.predict_proba(turned))


def test_the_penalty_is_chosen_on_validation():
    rng = np.random.default_rng(0)
    labels, other = rng.integers(2, size=(2, 200))
    rows, held_out = (y[:, None] + 0.3 * rng.standard_normal((200, 5)) for y in (labels, other))
    _, clear = choose_regression(rows, labels, held_out, other)
    _, absurd = choose_regression(
        rows, labels, held_out, 1 - other
    )  # what train says is wrong: say as little as can be
    assert (clear, absurd) == (1.0, 0.001)


def test_the_second_stage_learns_from_predictions_on_dialogues_the_first_has_not_seen():
    rng = np.random.default_rng(0)
    noise = [
        Conversation(f"d{i}", ("A", "B") * 5, rng.integers(2, size=10), {"text": rng.standard_normal((10, 60))})
        for i in range(10)
    ]
    learner = TwoStageRegression().fit(noise, (), ("sad", "happy"))
    rows, labels = (np.concatenate(x) for x in ([d.features["text"] for d in noise], [d.labels for d in noise]))
    rows = rows.astype(np.float64)
    assert fit_regression(rows, labels, 1.0).score(rows, labels) > 0.8  # on what it was fitted to
    honest = learner._out_of_fold(noise, rows, labels, 1.0, seed=0).argmax(1) == labels
    assert honest.mean() < 0.65


def test_neighbours_are_the_nearest_of_the_same_and_of_other_speakers():
    learner = TwoStageRegression(window=2)
    speakers = np.random.default_rng(1).integers(3, size=11)
    for turn, row in enumerate(learner._neighbours(speakers)):
        expected = [turn]
        for same, side in itertools.product((True, False), (-1, 1)):
            there = range(turn - 1, -1, -1) if side < 0 else range(turn + 1, len(speakers))
            near = [t for t in there if (speakers[t] == speakers[turn]) == same][:2]
            expected += near + [-1] * (2 - len(near))
        assert row.tolist() == expected


def test_without_a_label_there_is_nothing_to_learn(data):
    train = [replace(d, labels=np.full(len(d), -1)) for d in splits(data)[0][:3]]
    for learner in (Majority, LogisticRegression, TwoStageRegression, Generative):
        with pytest.raises(MerZooError, match="no train utterance has a label"):
            learner().fit(train, (), data.label_names)


class Broken(Learner):
    """Does one thing that a learner must not do."""

    def __init__(self, *, fault: str = "") -> None:
        self.fault = fault
        self.calls = 0

    def fit(self, train, validation, label_names, *, seed=0):
        self.classes = len(label_names)
        self.draw = np.random.default_rng().random()
        if self.fault == "writes":
            train[0].features["text"][:] = 0
        return self if self.fault != "itself" else Majority()

    def predict_proba(self, conversation):
        self.calls += 1
        found = np.full((len(conversation), self.classes), 0.0)
        found[:, :2] = 0.5
        moved = {"labels": 0.1 * int(conversation.labels[0]), "apart": 0.01 * self.calls, "seed": self.draw / 2}
        found[:, 0] += moved.get(self.fault, 0)
        found[:, 1] -= moved.get(self.fault, 0)
        found[:, 3] = 0.1 * (self.fault == "never")
        return found + 0.1 * (self.fault == "sum")


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("", None),
        ("itself", "fit"),
        ("sum", "probabilities"),
        ("never", "probabilities"),
        ("labels", "labels unseen"),
        ("apart", "dialogues apart"),
        ("seed", "determinism"),
        ("writes", "fit"),
    ],
)
def test_the_contract_catches_what_a_learner_must_not_do(fault, check):
    failed = [finding.check for finding in inspect_part("learner", Broken, settings={"fault": fault}) if finding.fault]
    assert failed == [] if check is None else check in failed
