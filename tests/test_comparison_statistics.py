"""Means, pairs and tests: against scipy and by hand; mixtures are refused."""

from itertools import product

import numpy as np
import pytest
from comparison_results import NAMES, fabricate
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score

from mer_zoo.comparison.statistics import compare, compare_all, holm, sign_flip
from mer_zoo.errors import MerZooError


def suite(seeds=3, **models):
    return [fabricate(name, seed=seed, skill=skill) for name, skill in models.items() for seed in range(seeds)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=9))
def test_sign_flip_agrees_with_enumeration(values):
    sums = [
        abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in product((-1, 1), repeat=len(values))
    ]
    tolerance = 1e-9 * sum(map(abs, values))
    assert sign_flip(values) == np.mean([total >= abs(sum(values)) - tolerance for total in sums])


def test_sign_flip_agrees_with_scipy():
    values = np.random.default_rng(3).normal(0.3, 1, 10)
    theirs = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(values) == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize(("count", "floor"), [(1, 1.0), (5, 0.0625), (6, 0.03125), (10, 2 / 2**10)])
def test_few_seeds_cannot_reach_a_small_p(count, floor):
    assert sign_flip(np.full(count, 0.1)) == pytest.approx(floor)


def test_many_seeds_are_sampled_and_repeat():
    values = np.random.default_rng(0).normal(0.2, 1, 30)
    assert sign_flip(values) == sign_flip(values)
    assert 0 < sign_flip(np.full(30, 0.1)) < 1e-4


def test_holm():
    assert holm([]) == []
    assert holm([0.04]) == [0.04]
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert max(holm([0.6, 0.9])) <= 1


def test_mean_and_sd_over_seeds():
    results = suite(strong=0.7, weak=0.4)
    table = compare(results)
    assert [model.name for model in table.models] == ["strong", "weak"]
    scores = [r.metrics.test.weighted_f1 for r in results if r.recipe_name == "weak"]
    weak = table.models[1]
    assert weak.values("weighted_f1") == pytest.approx(scores)
    assert weak.mean("weighted_f1") == pytest.approx(np.mean(scores))
    assert weak.sd("weighted_f1") == pytest.approx(np.std(scores, ddof=1))
    assert weak.gap == pytest.approx(
        np.mean([r.oracle_metrics.weighted_f1 - r.metrics.test.weighted_f1 for r in results if r.recipe_name == "weak"])
    )
    assert compare(suite(seeds=1, alone=0.5)).models[0].sd("accuracy") is None


def test_folds_of_a_seed_are_pooled_over_predictions():
    results = [fabricate(seed=seed, fold=fold, folds=5) for seed in range(2) for fold in range(5)]
    table = compare(results[::-1])
    assert len(table.dialogues) == 20
    assert table.models[0].seeds == (0, 1)
    pooled = [p for r in results if r.seed == 0 for p in r.predictions.values()]
    label = np.concatenate([p.label for p in pooled])
    predicted = np.concatenate([p.predicted for p in pooled])
    expected = f1_score(label[label >= 0], predicted[label >= 0], average="weighted")
    assert table.models[0].values("weighted_f1")[0] == pytest.approx(expected)
    assert table.models[0].seconds == pytest.approx(5 * 30.0)


def test_a_seed_with_a_missing_fold_is_left_out_aloud():
    results = [fabricate(seed=seed, fold=fold, folds=3) for seed in range(2) for fold in range(3)]
    table = compare(results[:-1])
    assert table.models[0].seeds == (0,)
    assert table.notes[0] == "amb_dsgdn, seed 1: left out, because fold 2 is missing."


def test_pairs_use_shared_seeds_and_the_same_dialogues():
    results = suite(seeds=7, strong=0.75, weak=0.4)[:-1]
    table = compare(results)
    (pair,) = table.pairs
    assert (pair.first, pair.second, pair.seeds) == ("strong", "weak", tuple(range(6)))
    assert pair.p == pytest.approx(2 / 2**6) == pair.p_holm
    assert pair.significant
    assert pair.interval[0] < pair.difference < pair.interval[1]
    assert "strong > weak" in table.significance
    assert "not run with the same seeds" in " ".join(table.notes)
    assert table.pairs is table.pairs


def test_the_bootstrap_interval_agrees_with_a_plain_one():
    results = suite(seeds=2, strong=0.7, weak=0.6)
    table = compare(results)
    random = np.random.default_rng(1)
    draws = []
    for _ in range(250):
        ids = random.choice(table.dialogues, len(table.dialogues))
        value = {"strong": 0.0, "weak": 0.0}
        for r in results:
            label = np.concatenate([r.predictions[i].label for i in ids])
            predicted = np.concatenate([r.predictions[i].predicted for i in ids])
            known = label >= 0
            value[r.recipe_name] += f1_score(label[known], predicted[known], average="weighted", zero_division=0) / 2
        draws.append(value["strong"] - value["weak"])
    expected = np.quantile(draws, (0.025, 0.975)) * (1 if table.pairs[0].first == "strong" else -1)
    assert sorted(table.pairs[0].interval) == pytest.approx(sorted(expected), abs=0.015)


def test_what_few_seeds_cannot_prove_is_said():
    assert compare(suite(seeds=3, a=0.5)).significance == ""
    assert compare(suite(seeds=5, a=0.7, b=0.3)).significance == (
        "With 5 shared seeds no difference can be called significant: the smallest two-sided p-value that the "
        "sign-flip test can give is 0.0625, and at least 6 seeds are needed for p < 0.05."
    )
    assert compare(suite(seeds=6, a=0.7, b=0.5, c=0.3)).significance == (
        "With 6 shared seeds no difference can be called significant with Holm's correction over 3 pairs: at least 7 "
        "seeds are needed."
    )
    assert compare(suite(seeds=6, a=0.5, b=0.5)).significance.startswith("No difference is significant at p < 0.05")
    assert not any(pair.significant for pair in compare(suite(seeds=5, a=0.9, b=0.1)).pairs)
    apart = [fabricate("a", seed=0), fabricate("b", seed=1)]
    assert compare(apart).significance == "No two models share a seed, so none are compared."


def moved(result, **changes):
    return type(result).model_validate(result.model_dump() | changes)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (fabricate("b", dataset="meld"), "different datasets \\('iemocap' and 'meld'\\) cannot share a table"),
        (fabricate("b", protocol="test-oracle"), "different protocols"),
        (fabricate("b", fold=0, folds=2), "different kinds of split"),
        (fabricate("b", names=NAMES[:3]), "different class names"),
        (fabricate("b", dialogues=19), "test splits hold different dialogues"),
        (fabricate("b", seed=1, dialogues=19), "tested on other dialogues"),
        (moved(fabricate("b"), split=fabricate("b").split.model_dump() | {"train": ["x"]}), "train splits hold"),
        (fabricate("a"), "there twice"),
        (fabricate("a", seed=1, recipe={"title": "a", "train": {"lr": 0.1, "epochs": 30}}), "differ in train.lr"),
    ],
)
def test_mixtures_are_refused(other, message):
    with pytest.raises(MerZooError, match=message):
        compare([fabricate("a"), other])


def test_results_are_grouped_by_data_and_protocol():
    results = [fabricate(dataset="meld"), fabricate(protocol="test-oracle"), fabricate()]
    tables = compare_all(results)
    assert [(t.dataset.name, t.protocol) for t in tables] == [
        ("iemocap", "validation"),
        ("meld", "validation"),
        ("iemocap", "test-oracle"),
    ]
    assert tables[2].models[0].gap is None
    with pytest.raises(MerZooError, match="there are no results"):
        compare_all([])
