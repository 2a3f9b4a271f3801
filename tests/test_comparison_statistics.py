"""Means, pairs and what is said of them; mixtures are refused."""

import numpy as np
import pytest
from comparison_results import NAMES, fabricate
from sklearn.metrics import f1_score

from mer_zoo.comparison.inference import difference
from mer_zoo.comparison.statistics import compare, compare_all
from mer_zoo.comparison.table import title
from mer_zoo.errors import MerZooError


def suite(seeds=3, **models):
    return [fabricate(name, seed=seed, skill=skill) for name, skill in models.items() for seed in range(seeds)]


def test_mean_and_sd_over_seeds():
    results = [
        fabricate(name, seed=seed, skill=skill, protocol="test-oracle")
        for name, skill in {"strong": 0.7, "weak": 0.4}.items()
        for seed in range(3)
    ]
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


def test_the_others_are_compared_with_the_first_model_or_the_named_one():
    results = suite(seeds=6, middle=0.6, strong=0.8, weak=0.4)
    assert [(pair.first, pair.second) for pair in compare(results).pairs] == [("strong", "middle"), ("weak", "middle")]
    named = compare(results, baseline="weak")
    assert [(pair.first, pair.second) for pair in named.pairs] == [("strong", "weak"), ("middle", "weak")]
    assert len(compare(results, all_pairs=True).pairs) == 3
    assert named.significance.startswith("Each is compared with weak, for new seeds and new dialogues")
    assert "strong > weak" in named.significance
    with pytest.raises(MerZooError, match=r"no results of 'weka' on iemocap\. Did you mean 'weak'"):
        compare(results, baseline="weka")


def test_a_baseline_that_a_dataset_lacks_is_replaced_aloud():
    results = [*suite(seeds=2, a=0.6, b=0.5), *(fabricate(name, dataset="meld") for name in ("b", "c"))]
    first, second = compare_all(results, baseline="a")
    assert (first.baseline, second.baseline) == ("a", "b")
    assert first.notes == ()
    assert second.notes[0] == "The baseline a has no results here; b stands in for it."
    with pytest.raises(MerZooError, match="no results of 'bb'"):
        compare_all(results, baseline="bb")


def test_a_pair_is_what_the_formula_says_of_its_predictions():
    results = [r for r in suite(seeds=7, strong=0.75, weak=0.6) if (r.recipe_name, r.seed) != ("weak", 6)]
    table = compare(results, baseline="weak")
    (pair,) = table.pairs
    a, b = (next(m for m in table.models if m.name == name).confusion for name in ("strong", "weak"))
    assert len(a) == 7
    assert len(b) == 6
    assert pair.seeds == 6
    assert np.allclose(pair.found, difference(a, b))
    assert pair.p_holm == pytest.approx(float(pair.found.p))
    assert "not run with the same seeds" in " ".join(table.notes)
    assert table.pairs is table.pairs


def test_a_fold_counts_as_one_dialogue():
    results = [
        fabricate(name, seed=seed, fold=fold, folds=5, skill=skill)
        for name, skill in {"a": 0.65, "b": 0.6}.items()
        for seed in range(6)
        for fold in range(5)
    ]
    table = compare(results)
    (pair,) = table.pairs
    folds = [sorted(r.split.test) for r in results[:5]]
    index = [[table.dialogues.index(name) for name in fold] for fold in folds]
    by_fold = {m.name: np.stack([m.confusion[:, i].sum(1) for i in index], 1) for m in table.models}
    assert pair.samples == "folds"
    assert np.allclose(pair.found, difference(by_fold["b"], by_fold["a"]))


def test_folds_must_be_the_same_for_all_seeds():
    results = [fabricate(seed=seed, fold=fold, folds=2) for seed in range(2) for fold in range(2)]
    other = [renamed(r, fold=1 - r.fold) for r in results[2:]]
    with pytest.raises(MerZooError, match="of other runs tests it"):
        compare(results[:2] + other)


def test_verdicts_do_not_deny_their_intervals():
    sizes = ((1, 0.9, 0.3), (3, 0.9, 0.3), (3, 0.6, 0.58), (6, 0.61, 0.6), (6, 0.9, 0.3), (10, 0.66, 0.6))
    for seeds, first, second in sizes:
        for names in (("a", "b"), ("a", "b", "c", "d")):
            skills = dict(zip(names, (first, second, 0.6, 0.59), strict=False))
            for pair in compare(suite(seeds=seeds, **skills), all_pairs=True).pairs:
                excludes = pair.interval is not None and (pair.interval[0] > 0 or pair.interval[1] < 0)
                assert excludes == (pair.found.p < 0.05)
                assert not (excludes and "not clear" in pair.verdict)
                assert excludes or pair.verdict != "clear"
                assert pair.significant == (pair.verdict == "clear")
                assert ("too few seeds" in pair.verdict) == (seeds < 6)


def test_what_few_seeds_cannot_prove_is_said():
    assert compare(suite(seeds=3, a=0.5)).significance == ""
    table = compare(suite(seeds=3, a=0.9, b=0.3))
    assert table.significance.endswith("With 3 seeds no difference is claimed: that takes 6.")
    assert table.pairs[0].verdict == "clear over dialogues; too few seeds: 3 of 6"
    alone = compare(suite(seeds=1, a=0.9, b=0.3)).pairs[0]
    assert alone.interval is None
    assert alone.verdict == "clear over dialogues; too few seeds: 1 of 6"
    same = compare(suite(seeds=6, a=0.5) + [moved(r, recipe_name="b") for r in suite(seeds=6, a=0.5)])
    assert same.significance.endswith("No difference is clear at p < 0.05.")
    low, high = same.pairs[0].interval
    assert low == -high < 0
    assert same.pairs[0].verdict == "not clear"


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


def renamed(result, **changes):
    changed = result.model_copy(update=changes)
    return moved(changed, run=changed.identity.run)


def test_other_precisions_and_split_rules_have_tables_of_their_own():
    plain = fabricate()
    others = [renamed(plain, precision="bf16"), renamed(plain, split_rule={"validation": "last"})]
    tables = compare_all([plain, *others])
    titles = [title(table, tables) for table in tables]
    assert [len(table.models) for table in tables] == [1, 1, 1]
    assert sum("bf16" in text for text in titles) == 1
    assert sum("validation last" in text for text in titles) == 1
    for other, what in zip(others, ("precisions", "split rules"), strict=True):
        with pytest.raises(MerZooError, match=f"different {what}"):
            compare([plain, other])


def test_results_are_grouped_by_data_and_protocol():
    results = [fabricate(dataset="meld"), fabricate(protocol="test-oracle"), fabricate()]
    tables = compare_all(results)
    assert [(t.dataset.name, t.protocol) for t in tables] == [
        ("iemocap", "validation"),
        ("meld", "validation"),
        ("iemocap", "test-oracle"),
    ]
    assert [table.models[0].gap is None for table in tables] == [True, True, False]
    with pytest.raises(MerZooError, match="there are no results"):
        compare_all([])
