"""Is a difference between two models more than chance? Seeds and test dialogues are both samples, and both are counted.

Resampling one of them alone overclaims: with the dialogues fixed, every further seed makes the luck of this test split
look more certain. `python -m mer_zoo.comparison.calibration` measures how often each way is wrong, and the power left.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from mer_zoo.results.metrics import SCORES, weighted_f1

LEVEL = 0.05
FEWEST_SEEDS = 6  # from fewer nobody can see whether a model fails now and then, and a t interval assumes it does not


class Difference(NamedTuple):
    """Weighted F1 of one model minus that of another, with its chance.

    Each is float64 of the leading shape of the matrices; NaN where a single seed or dialogue shows no spread.

    Attributes:
        value: mean over seeds.
        low, high: 95 % interval for new seeds and new dialogues; excludes 0 exactly where `p` < 0.05.
        p: two-sided, for new seeds and new dialogues.
        p_dialogues: for new dialogues alone, these trained models kept; never above `p`.
        p_seeds: for new seeds alone, on these dialogues.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p: np.ndarray
    p_dialogues: np.ndarray
    p_seeds: np.ndarray


def difference(first: np.ndarray, second: np.ndarray) -> Difference:
    r"""Compare two models over their seeds, unpaired, and over the test dialogues, paired.

    $$t = \frac{\Delta}{\sqrt V},\qquad V = \frac{s_1^2}{n_1} + \frac{s_2^2}{n_2} + \frac{s_d^2}{D}$$
    where $s_m^2$ is the variance of the score over the $n_m$ seeds of model m, and $s_d^2$ that of the D jackknife
    pseudo-values of the difference, averaged over seeds: $d_j = (D - 1)(\Delta - \Delta_{-j})$, with $\Delta_{-j}$ the
    difference without dialogue j. t has the degrees of freedom of Welch and Satterthwaite, at most
    $(\sum u)^2 / \sum u^2 - 1$, where $u_j$ counts the utterances of dialogue j: a few long dialogues are a small
    sample, however many short ones there are. Noise of single runs on single dialogues counts twice, so V errs upwards.

    Args:
        first: int `[..., seed, dialogue, C, C]`, rows are true classes. What was tested by one trained model of a
            cross-validation is one "dialogue": its fold.
        second: the same, with as many dialogues and any number of seeds.

    Returns:
        a `Difference`.

    Example:
        >>> random = np.random.default_rng(0)
        >>> def model(skill):
        ...     hits = random.binomial(10, skill, (6, 40))
        ...     return np.stack([np.stack([hits, 10 - hits], -1), np.stack([10 - hits, hits], -1)], -2)
        >>> found = difference(model(0.8), model(0.6))
        >>> bool(found.low > 0), bool(found.p < 0.05), bool(difference(model(0.7), model(0.7)).p < 0.05)
        (True, True, False)
    """
    utterances = first.sum((-1, -2)).mean(-2)
    most = utterances.sum(-1) ** 2 / (utterances**2).sum(-1) - 1
    mean_1, seeds_1, pseudo_1 = _model(first)
    mean_2, seeds_2, pseudo_2 = _model(second)
    value = mean_1 - mean_2
    over_seeds = seeds_1 + seeds_2
    with np.errstate(divide="ignore", invalid="ignore"):
        over_dialogues = _variance_of_mean(pseudo_1 - pseudo_2)
        freedom_1, freedom_2 = first.shape[-4] - 1, second.shape[-4] - 1
        freedom_seeds = _satterthwaite((seeds_1, freedom_1), (seeds_2, freedom_2))
        freedom = _satterthwaite((seeds_1, freedom_1), (seeds_2, freedom_2), (over_dialogues, most))
        freedom = np.minimum(freedom, most)
        deviation = np.sqrt(over_seeds + over_dialogues)
        reach = stats.t.ppf(1 - LEVEL / 2, freedom) * deviation
        return Difference(
            value,
            value - reach,
            value + reach,
            _p(value, deviation, freedom),
            _p(value, np.sqrt(over_dialogues), most),
            _p(value, np.sqrt(over_seeds), freedom_seeds),
        )


class Interval(NamedTuple):
    """A score with its 95 % interval for new seeds and new dialogues; NaN where a single one shows no spread."""

    value: float
    low: float
    high: float


def interval(confusion: np.ndarray, score: str | Callable[[np.ndarray], np.ndarray] = "weighted_f1") -> Interval:
    r"""Estimate a score of a model, seeds and test dialogues being samples.

    $$\bar f \pm t\sqrt{\frac{s^2}{n} + \frac{s_d^2}{D}}$$
    with the terms and degrees of freedom of `difference`.

    Args:
        confusion: int `[seed, dialogue, C, C]`, rows are true classes.
        score: one of `metrics.SCORES`, or what makes `[...]` of `[..., C, C]`.

    Example:
        >>> eye = np.broadcast_to(np.eye(2, dtype=int), (3, 5, 2, 2))
        >>> interval(eye)
        Interval(value=1.0, low=1.0, high=1.0)
    """
    value, over_seeds, pseudo = _model(confusion, SCORES[score] if isinstance(score, str) else score)
    utterances = confusion.sum((-1, -2)).mean(-2)
    most = utterances.sum(-1) ** 2 / (utterances**2).sum(-1) - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        over_dialogues = _variance_of_mean(pseudo)
        freedom = np.minimum(_satterthwaite((over_seeds, confusion.shape[0] - 1), (over_dialogues, most)), most)
        deviation = np.sqrt(over_seeds + over_dialogues)
        reach = np.where(deviation == 0, 0.0, stats.t.ppf(1 - LEVEL / 2, freedom) * deviation)
    return Interval(float(value), float(value - reach), float(value + reach))


def _model(
    confusion: np.ndarray, scored: Callable[[np.ndarray], np.ndarray] = weighted_f1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over seeds `[...]`, its variance over seeds `[...]`, and pseudo-values `[..., dialogue]`."""
    total = confusion.sum(-3)
    score = scored(total)
    without = scored(total[..., None, :, :] - confusion)
    pseudo = (confusion.shape[-3] - 1) * (score[..., None] - without).mean(-2)
    return score.mean(-1), _variance_of_mean(score), pseudo


def _variance_of_mean(values: np.ndarray) -> np.ndarray:
    count = values.shape[-1]
    return values.var(-1, ddof=1) / count if count > 1 else np.full(values.shape[:-1], np.nan)


def _satterthwaite(*parts: tuple[Any, Any]) -> np.ndarray:
    """Degrees of freedom of a sum of variances; 1 where all are 0."""
    total = sum(variance for variance, _ in parts)
    found = total**2 / sum(variance**2 / freedom for variance, freedom in parts)
    return np.where(total == 0, 1.0, found)


def _p(value: np.ndarray, deviation: np.ndarray, freedom: Any) -> np.ndarray:
    # 0 / 0: two models that never differ
    return np.where((value == 0) & (deviation == 0), 1.0, 2 * stats.t.sf(np.abs(value) / deviation, freedom))


def holm(p_values: npt.ArrayLike) -> np.ndarray:
    """Correct p-values for their number by Holm's step-down method.

    Args:
        p_values: `[..., n]`; those along the last axis are corrected together. NaN counts as one that is never clear.

    Returns:
        the corrected ones, in the same order, at most 1.

    Example:
        >>> holm([0.01, 0.04, 0.03]).tolist()
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, axis=-1, kind="stable")  # NaN last
    factors = values.shape[-1] - np.arange(values.shape[-1])
    steps = np.minimum(np.maximum.accumulate(np.take_along_axis(values, order, -1) * factors, axis=-1), 1)
    corrected = np.empty_like(values)
    np.put_along_axis(corrected, order, steps, -1)
    return corrected


@dataclass(frozen=True)
class Pair:
    """Two models compared: `first` minus `second` in weighted F1.

    Attributes:
        first: name of the one.
        second: name of the other; the baseline, unless all pairs are compared.
        seeds: how many the model with fewer has.
        samples: what the test split is a sample of: "dialogues", or the "folds" of a cross-validation.
        comparisons: how many were made together.
        found: the `Difference`, in plain numbers.
        p_holm: `found.p` after Holm's correction over all comparisons.
        p_dialogues_holm: `found.p_dialogues` after it.
    """

    first: str
    second: str
    seeds: int
    samples: str
    comparisons: int
    found: Difference
    p_holm: float
    p_dialogues_holm: float

    @property
    def difference(self) -> float:
        """Mean difference over seeds."""
        return float(self.found.value)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % interval over seeds and dialogues, for this pair alone; None where one of them is a single one."""
        low, high = float(self.found.low), float(self.found.high)
        return None if math.isnan(low) else (low, high)

    @property
    def significant(self) -> bool:
        """Whether a difference is claimed: `p_holm` below 0.05, and at least six seeds of each model."""
        return self.seeds >= FEWEST_SEEDS and self.p_holm < LEVEL

    @property
    def verdict(self) -> str:
        """What is shown, in words that never deny the interval beside them."""
        among = f", not among {self.comparisons} comparisons"
        if self.seeds < FEWEST_SEEDS:
            clear = "clear" if self.found.p_dialogues < LEVEL else "not clear"
            alone = among if self.found.p_dialogues < LEVEL <= self.p_dialogues_holm else ""
            return f"{clear} over {self.samples}{alone}; too few seeds: {self.seeds} of {FEWEST_SEEDS}"
        if self.found.p < LEVEL:
            return "clear" if self.significant else f"clear alone{among}"
        if self.found.p_dialogues < LEVEL:
            return "not clear; these trained models differ, other seeds may not"
        if self.found.p_seeds < LEVEL:
            return "not clear; on this test split they differ, on others they may not"
        return "not clear"


def pairs(models: Mapping[str, np.ndarray], names: Sequence[tuple[str, str]], samples: str = "dialogues") -> list[Pair]:
    """Compare models two by two and correct for the number of comparisons.

    Args:
        models: name → int `[seed, dialogue, C, C]`.
        names: which to compare, each as first and second.
        samples: what the second axis holds: "dialogues" or "folds".

    Returns:
        one `Pair` for each of `names`.
    """
    found = [difference(models[first], models[second]) for first, second in names]
    corrected = holm([one.p for one in found]), holm([one.p_dialogues for one in found])
    return [
        Pair(first, second, min(len(models[first]), len(models[second])), samples, len(names), one, float(p), float(q))
        for (first, second), one, p, q in zip(names, found, *corrected, strict=True)
    ]
