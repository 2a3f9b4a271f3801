"""Our scores are scikit-learn's, on the host and on the device."""

import warnings
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mer_zoo.errors import MerZooError
from mer_zoo.results import device_metrics, metrics
from mer_zoo.results.result import Metrics


@st.composite
def utterances(draw):
    classes = draw(st.integers(1, 7))
    count = draw(st.integers(1, 40))
    one = st.integers(0, classes - 1)
    labels = draw(st.lists(st.one_of(one, st.just(-1)), min_size=count, max_size=count).filter(lambda x: max(x) >= 0))
    return classes, np.array(labels), np.array(draw(st.lists(one, min_size=count, max_size=count)))


@settings(max_examples=150, deadline=None)
@given(utterances())
def test_scores_are_those_of_scikit_learn(drawn):
    classes, labels, predicted = drawn
    names = [f"class {i}" for i in range(classes)]
    ours = metrics.score(labels, predicted, names)
    known = labels >= 0
    label, found = labels[known], predicted[known]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert ours["weighted_f1"] == pytest.approx(sk.f1_score(label, found, average="weighted", zero_division=0))
        assert ours["macro_f1"] == pytest.approx(sk.f1_score(label, found, average="macro", zero_division=0))
        assert ours["accuracy"] == pytest.approx(sk.accuracy_score(label, found))
        assert ours["unweighted_recall"] == pytest.approx(sk.balanced_accuracy_score(label, found))
        assert ours["confusion"] == sk.confusion_matrix(label, found, labels=range(classes)).tolist()
        theirs = sk.precision_recall_fscore_support(label, found, labels=range(classes), zero_division=0)
    for what, values in zip(("precision", "recall", "f1", "support"), theirs, strict=True):
        assert [ours["per_class"][name][what] for name in names] == pytest.approx(values.tolist())

    logits = torch.nn.functional.one_hot(torch.from_numpy(predicted), classes).float()
    counts = device_metrics.confusion(logits, torch.from_numpy(labels), classes)
    assert counts.tolist() == ours["confusion"]
    assert float(device_metrics.weighted_f1(counts)) == pytest.approx(ours["weighted_f1"], abs=1e-6)


def test_device_metrics_run_under_vmap_and_autocast():
    logits, labels = torch.randn(5, 601, 7), torch.randint(-1, 7, (601,))

    def one(logits):
        return device_metrics.weighted_f1(device_metrics.confusion(logits, labels, 7))

    with torch.autocast("cpu", dtype=torch.bfloat16):
        stacked = torch.func.vmap(one)(logits)
    names = [str(i) for i in range(7)]
    expected = [metrics.score(labels, x.argmax(-1), names)["weighted_f1"] for x in logits]
    assert stacked.tolist() == pytest.approx(expected, abs=1e-6)
    assert device_metrics.confusion(logits, labels.expand(5, -1), 7).shape == (5, 7, 7)


def test_device_weighted_f1_of_nothing_is_zero():
    counts = device_metrics.confusion(torch.zeros(3, 2), torch.full((3,), -1), 2)
    assert counts.sum() == 0
    assert float(device_metrics.weighted_f1(counts)) == 0.0


def test_stacked_matrices_score_like_single_ones():
    stack = np.random.default_rng(0).integers(0, 9, (4, 3, 5, 5))
    for score in metrics.SCORES:
        function = metrics.SCORES[score]
        assert function(stack).shape == (4, 3)
        assert function(stack)[2, 1] == pytest.approx(float(function(stack[2, 1])))


@pytest.mark.parametrize(
    ("labels", "predicted", "names", "message"),
    [
        ([-1, -1], [0, 1], ("a", "b"), "no utterance has a label"),
        ([], [], ("a", "b"), "no utterance has a label"),
        ([0, 1], [0], ("a", "b"), "one of each per utterance"),
        ([0, 2], [0, 1], ("a", "b"), "do not fit 2 classes"),
        ([0, 1], [0, -1], ("a", "b"), "do not fit 2 classes"),
        ([0, 1], [0, 1], ("a", "a"), "one distinct name"),
    ],
)
def test_unusable_input_is_named(labels, predicted, names, message):
    with pytest.raises(MerZooError, match=message):
        metrics.score(labels, predicted, names)


def test_what_names_the_scores_names_all_of_them():
    """One list; the records and reports that spell fields out for type checkers must not fall behind."""
    assert list(metrics.SCORES) == list(get_args(metrics.Score))
    assert set(metrics.SCORES) == set(Metrics.model_fields) - {"per_class", "confusion", "others"}
    assert set(metrics.SCORES) == set(metrics.score([0], [0], ["a"])) - {"per_class", "confusion"}
