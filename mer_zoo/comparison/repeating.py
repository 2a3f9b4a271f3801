"""Is it still so? A published score beside ours, chosen by both rules; and a run made again, beside its result file."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydantic

from mer_zoo.comparison.inference import Interval, interval
from mer_zoo.comparison.statistics import compare
from mer_zoo.data.splits import SplitRule
from mer_zoo.errors import MerZooError
from mer_zoo.model.plan import Plan
from mer_zoo.model.recipe import Published
from mer_zoo.model.saving import refuse_strangers
from mer_zoo.results.metrics import SCORES
from mer_zoo.results.result import Result
from mer_zoo.training.experiment import Data, Experiment, dataset_of
from mer_zoo.training.options import ComputeOptions


@dataclass(frozen=True)
class Claim:
    """A published score beside ours.

    Attributes:
        published: the claim.
        honest: our score, its epoch chosen on validation.
        oracle: our score, its epoch chosen on the test split itself.
        seeds: how many ours is the mean of.
    """

    published: Published
    honest: Interval
    oracle: Interval
    seeds: int

    @property
    def verdict(self) -> str:
        """Whether the claim lies in our interval by the rule it was made by, in words."""
        rule, ours = (
            self.published.selected_on,
            self.honest if self.published.selected_on == "validation" else self.oracle,
        )
        if math.isnan(ours.low):
            return "one seed or one dialogue shows no spread: no verdict"
        claim = self.published.value / 100
        by = "its own rule" if rule != "unknown" else "the test split, the likeliest rule"
        if ours.low <= claim <= ours.high:
            return f"reproduced: by {by} it lies within our interval"
        return f"not reproduced: by {by} it lies {'above' if claim > ours.high else 'below'} our interval"


def claims(published: Sequence[Published], results: Sequence[Result]) -> list[Claim]:
    """Return every claim about the score of the results' dataset beside what they show.

    Args:
        published: of the recipe.
        results: of the protocol `test-oracle`, which holds the scores by both rules; several seeds.

    Raises:
        MerZooError: the recipe claims nothing that can be set beside these results.
    """
    table = compare(results)
    (model,) = table.models
    known = [claim for claim in published if claim.metric in SCORES]
    if not known:
        other = ", ".join(sorted({claim.metric for claim in published})) or "none"
        raise MerZooError(f"{model.name}: no published score that is measured here (published: {other}).")
    at_oracle = np.array([np.sum([_oracle(run) for run in model.runs[seed]], 0) for seed in model.seeds])
    found = []
    for claim in known:
        honest = interval(model.confusion, claim.metric)
        value = float(SCORES[claim.metric](at_oracle).mean())
        # a result keeps one matrix of the oracle's epoch, so its interval has the width of the honest one
        reach = honest.high - honest.value
        found.append(Claim(claim, honest, Interval(value, value - reach, value + reach), len(model.seeds)))
    return found


def _oracle(run: Result) -> list[list[int]]:
    if run.oracle_metrics is None:
        raise MerZooError(f"{run.recipe_name}, seed {run.seed}: no scores chosen on test. Use --protocol test-oracle.")
    return run.oracle_metrics.confusion


def again(result: Result, data: Data, path: Path, *, device: str = "cpu", trust: Collection[str] = ()) -> Experiment:
    """Return the experiment that a result file describes.

    Args:
        result: as read.
        data: the dataset it was made on.
        path: of the result file, for errors.
        device: where to compute.
        trust: parts by file or module that may be run.

    Raises:
        MerZooError: other data, a recipe that is no longer one, or parts that are not trusted or have
            changed.
    """
    dataset = dataset_of(data)
    fingerprint = dataset.fingerprint
    if fingerprint != result.dataset.fingerprint:
        raise MerZooError(
            f"{path}: made on '{result.dataset.name}' with fingerprint {result.dataset.fingerprint[:12]}, but the data "
            f"given have {fingerprint[:12]}. Give the same data with --data; with settings of a "
            "suite, as --data '{name: ..., setting: value}'."
        )
    try:
        plan = Plan.model_validate(result.recipe)
        rule = SplitRule.model_validate(result.split_rule)
    except pydantic.ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise MerZooError(f"{path}: recipe.{where}: {fault['msg']}. This version cannot run it.") from None
    refuse_strangers(plan, trust, path)
    made = Experiment(
        result.recipe_name,
        plan,
        dataset,
        fingerprint,
        seed=result.seed,
        fold=result.fold,
        protocol=result.protocol,
        split_rule=rule,
        device=device,
        options=ComputeOptions(precision=result.precision),
    )
    versions = made.identity.versions
    if versions != result.versions:
        changed = {name for name, _ in versions.items() ^ result.versions.items()}
        raise MerZooError(
            f"{path}: {', '.join(sorted(changed))} computes otherwise than when it was made. Use mer_zoo "
            f"{result.environment.mer_zoo}."
        )
    return made


@dataclass(frozen=True)
class Agreement:
    """A run and the same run made again.

    Attributes:
        rows: score -> value then, value now, from 0 to 1.
        differing: test utterances that are judged otherwise.
        utterances: test utterances.
        probability: largest difference of a probability.
    """

    rows: dict[str, tuple[float, float]]
    differing: int
    utterances: int
    probability: float

    @property
    def sentence(self) -> str:
        """What came out, in words."""
        if self.differing == 0:
            close = f"probabilities within {self.probability:.1g}"
            return f"Repeated: all {self.utterances} predictions are the same ({close})."
        return (
            f"Not repeated: {self.differing} of {self.utterances} predictions differ (probabilities by up to "
            f"{self.probability:.1g}). Another machine or another version of torch rounds otherwise."
        )


def agreement(then: Result, now: Result) -> Agreement:
    """Set a run beside the same run made again."""
    pairs = [(then.predictions[name], now.predictions[name]) for name in then.predictions]
    differing = sum(a != b for one, other in pairs for a, b in zip(one.predicted, other.predicted, strict=True))
    apart = [
        np.abs(np.array(one.probability, float) - np.array(other.probability, float)).max(initial=0.0)
        for one, other in pairs
    ]
    rows = {name: (getattr(then.metrics.test, name), getattr(now.metrics.test, name)) for name in SCORES}
    return Agreement(rows, differing, sum(len(one.label) for one, _ in pairs), float(max(apart, default=0.0)))
