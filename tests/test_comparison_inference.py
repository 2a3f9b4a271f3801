"""Differences: against SciPy and a plain bootstrap, and calibrated on worlds without any."""

import numpy as np
import pytest
from scipy import stats

from mer_zoo.comparison.calibration import World, bootstrap_claims, claims, main, simulate
from mer_zoo.comparison.inference import difference, holm
from mer_zoo.results.metrics import weighted_f1


@pytest.fixture(scope="module")
def pair():
    first, second = simulate(World(), 2, 8, 1, np.random.default_rng(5), better=0.3)[:, 0]
    return first, second[:6]


def test_over_seeds_it_is_the_test_of_welch(pair):
    scores = [weighted_f1(model.sum(1)) for model in pair]
    assert difference(*pair).p_seeds == pytest.approx(stats.ttest_ind(*scores, equal_var=False).pvalue)


def test_over_dialogues_it_agrees_with_a_permutation_test():
    """Which of the two models said what is exchanged, dialogue by dialogue."""
    for better in (0, 0.1, 0.2):
        first, second = simulate(World(), 2, 6, 1, np.random.default_rng(11), better)[:, 0]

        def swapped(signs, axis, first=first, second=second):
            signs = np.moveaxis(np.asarray(signs), axis, -1)[..., None, :, None, None] > 0
            one, other = np.where(signs, first, second).sum(-3), np.where(signs, second, first).sum(-3)
            return (weighted_f1(one) - weighted_f1(other)).mean(-1)

        theirs = stats.permutation_test(
            (np.ones(100),), swapped, permutation_type="samples", n_resamples=1999, batch=200, random_state=0
        )
        assert difference(first, second).p_dialogues == pytest.approx(theirs.pvalue, abs=0.03)


def test_the_interval_is_that_of_a_bootstrap_over_seeds_and_dialogues(pair):
    random, draws = np.random.default_rng(1), []
    for _ in range(1000):
        dialogues = random.integers(0, 100, 100)
        one, other = (m[random.integers(0, len(m), len(m))][:, dialogues].sum(1) for m in pair)
        draws.append(weighted_f1(one).mean() - weighted_f1(other).mean())
    low, high = np.quantile(draws, (0.025, 0.975))
    found = difference(*pair)
    assert found.low < found.value < found.high
    assert found.high - found.low == pytest.approx(high - low, rel=0.25)


def test_the_interval_and_p_say_the_same():
    found = difference(*simulate(World(dialogues=20), 2, 6, 300, np.random.default_rng(2), better=0.3))
    excludes = (found.low > 0) | (found.high < 0)
    assert 0 < excludes.sum() < 300
    assert (excludes == (found.p < 0.05)).all()
    assert (found.p >= found.p_dialogues).all()


def test_a_single_seed_or_dialogue_has_no_spread(pair):
    alone = difference(pair[0][:1], pair[1])
    assert np.isnan([alone.low, alone.p, alone.p_seeds]).all()
    assert 0 <= alone.p_dialogues <= 1
    assert np.isnan(difference(pair[0][:, :1], pair[1][:, :1]).p)


def test_models_that_never_differ(pair):
    one = np.repeat(pair[0][:1], 6, 0)
    assert difference(one, one) == (0, 0, 0, 1, 1, 1)


def test_holm():
    assert holm([]).tolist() == []
    assert holm([0.04]).tolist() == [0.04]
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert max(holm([0.6, 0.9])) <= 1
    assert holm([np.nan, 0.02])[1] == 0.04
    assert holm([[0.01, 0.04], [0.04, 0.01]]).tolist() == [[0.02, 0.04], [0.04, 0.02]]


@pytest.mark.parametrize(
    ("world", "worlds"),
    [
        (World(), 400),
        (World(dialogues=20, utterances=12, classes=4, model_dialogue=0.8), 800),
        (World(dialogues=60, utterances=3, classes=2, seed=0.15), 800),
        (World(dialogues=31, utterances=40, model_class=0.5), 300),
    ],
    ids=["usual", "few dialogues", "short dialogues", "long dialogues"],
)
def test_without_a_difference_at_most_six_percent_are_claimed(world, worlds):
    random, found = np.random.default_rng(0), {}
    for _ in range(worlds // 100):
        confusion = simulate(world, 4, 16, 100, random)
        for seeds in (6, 10, 16):
            for models in (2, 4):
                way = claims(confusion[:models, :, :seeds])["both (what is claimed)"]
                found.setdefault((models, seeds), []).append(way)
    shares = {key: float(np.concatenate(values).mean()) for key, values in found.items()}
    assert max(shares.values()) <= 0.06, shares


def test_seeds_alone_claim_the_more_the_more_there_are():
    """What this replaced: the test would not notice a procedure that forgets the dialogues otherwise."""
    confusion = simulate(World(), 2, 16, 200, np.random.default_rng(0))
    share = [claims(confusion[:, :, :seeds])["seeds alone"].mean() for seeds in (6, 16)]
    assert 0.08 < share[0] < share[1]


def test_true_differences_are_seen():
    confusion = simulate(World(), 2, 6, 100, np.random.default_rng(0), better=0.5)
    assert claims(confusion)["both (what is claimed)"].mean() > 0.9
    assert bootstrap_claims(confusion[:, :20], np.random.default_rng(0), draws=200).mean() > 0.9


def test_the_command_prints_both(capsys):
    main(4)
    text = capsys.readouterr().out
    assert "False claims" in text
    assert text.count(" points ") == 4
