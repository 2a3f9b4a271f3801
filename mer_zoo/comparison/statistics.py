"""From result files to statements: means over seeds, paired differences, and what they cannot prove.

Two sources of chance are kept apart. Seeds: models are paired by seed, and the signs of their differences are flipped.
Dialogues: utterances of one dialogue depend on one another, so whole dialogues are drawn with replacement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from mer_zoo.errors import MerZooError
from mer_zoo.results import metrics
from mer_zoo.results.result import DatasetInfo, Result

LEVEL = 0.05
FEWEST_SEEDS = 6  # 2/2^6 = 0.031; five seeds reach only 2/2^5 = 0.0625


@dataclass(frozen=True)
class Model:
    """All runs of one model in a comparison; the folds of a seed are pooled over their predictions.

    Attributes:
        name: the recipe's name.
        seeds: in ascending order.
        confusion: int64 `[seed, dialogue, C, C]`, test dialogues in the order of the comparison.
        runs: seed → its runs, one per fold.
    """

    name: str
    seeds: tuple[int, ...]
    confusion: np.ndarray
    runs: dict[int, tuple[Result, ...]]

    def values(self, score: str) -> np.ndarray:
        """Value of a score (one of `metrics.SCORES`) for every seed, float64 `[seed]`, 0 to 1."""
        return getattr(metrics, score)(self.confusion.sum(1))

    def mean(self, score: str) -> float:
        """Mean of a score over seeds."""
        return float(self.values(score).mean())

    def sd(self, score: str) -> float | None:
        """Sample standard deviation of a score over seeds; None for a single seed."""
        return float(self.values(score).std(ddof=1)) if len(self.seeds) > 1 else None

    @property
    def all_runs(self) -> list[Result]:
        """The runs of all seeds."""
        return [run for seed in self.seeds for run in self.runs[seed]]

    @property
    def gap(self) -> float | None:
        """Weighted F1 at the best-on-test epoch minus that at the chosen one, mean over seeds.

        None where it is not known, and for runs that were selected on test in the first place.
        """
        if self.all_runs[0].protocol == "test-oracle":
            return None
        oracle = []
        for seed in self.seeds:
            found = [run.oracle_metrics.confusion for run in self.runs[seed] if run.oracle_metrics]
            if len(found) < len(self.runs[seed]):
                return None
            oracle.append(float(metrics.weighted_f1(np.sum(found, axis=0))))
        return float(np.mean(oracle)) - self.mean("weighted_f1")

    @property
    def seconds_per_epoch(self) -> float:
        """Mean over runs."""
        return float(np.mean([run.seconds.per_epoch for run in self.all_runs]))

    @property
    def seconds(self) -> float:
        """Time of one seed with all its folds, mean over seeds."""
        return sum(run.seconds.total for run in self.all_runs) / len(self.seeds)

    @property
    def peak_memory_mb(self) -> float | None:
        """Largest over runs; None if one was not measured."""
        known = [run.peak_memory_mb for run in self.all_runs if run.peak_memory_mb is not None]
        return max(known) if len(known) == len(self.all_runs) else None

    @property
    def parameters(self) -> int:
        """Trainable parameters."""
        return self.all_runs[0].parameters


@dataclass(frozen=True)
class Pair:
    """Two models compared on the seeds they share: `first` minus `second` in weighted F1.

    Attributes:
        differences: float64 `[seed]`.
        interval: 95 % bootstrap interval of the mean difference, resampled by dialogue; not corrected for the number
            of pairs.
        p: exact sign-flip test over seeds, two-sided.
        p_holm: the same with Holm's correction over all pairs of the comparison.
    """

    first: str
    second: str
    seeds: tuple[int, ...]
    differences: np.ndarray
    interval: tuple[float, float]
    p: float
    p_holm: float

    @property
    def difference(self) -> float:
        """Mean difference over seeds."""
        return float(self.differences.mean())

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        return self.p_holm < LEVEL


@dataclass(frozen=True)
class Comparison:
    """Models on the same data, test dialogues and protocol: one table.

    Attributes:
        dataset: what they were run on.
        protocol: "validation", or "test-oracle" (epochs selected on test).
        dialogues: pooled test dialogues.
        models: best mean weighted F1 first.
        notes: sentences about runs that were left out or that differ in what bears on time.
    """

    dataset: DatasetInfo
    protocol: str
    dialogues: tuple[str, ...]
    models: tuple[Model, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Every two models that share a seed, the better one first."""
        bootstrap = {
            model.name: draws for model, draws in zip(self.models, _bootstrap(self.models), strict=True)
        }  # [draw, seed]
        found: list[dict[str, Any]] = []
        for first, second in combinations(self.models, 2):
            seeds = tuple(sorted(set(first.seeds) & set(second.seeds)))
            if not seeds:
                continue
            a, b = ([model.seeds.index(seed) for seed in seeds] for model in (first, second))
            differences = first.values("weighted_f1")[a] - second.values("weighted_f1")[b]
            draws = (bootstrap[first.name][:, a] - bootstrap[second.name][:, b]).mean(1)
            low, high = np.quantile(draws, (0.025, 0.975))
            found.append(
                {
                    "first": first.name,
                    "second": second.name,
                    "seeds": seeds,
                    "differences": differences,
                    "interval": (float(low), float(high)),
                    "p": sign_flip(differences),
                }
            )
        corrected = holm([pair["p"] for pair in found])
        return tuple(Pair(**pair, p_holm=p) for pair, p in zip(found, corrected, strict=True))

    @property
    def significance(self) -> str:
        """What the seeds can and do prove, in a sentence or two; "" for a single model."""
        if len(self.models) < 2:
            return ""
        if not self.pairs:
            return "No two models share a seed, so none are compared."
        count = max(len(pair.seeds) for pair in self.pairs)
        least = 2 / 2**count
        needed = math.floor(math.log2(2 * len(self.pairs) / LEVEL)) + 1
        many = len(self.pairs) > 1
        correction = f" with Holm's correction over {len(self.pairs)} pairs" if many else ""
        if count < FEWEST_SEEDS:
            text = (
                f"With {count} shared seed{'s' if count > 1 else ''} no difference can be called significant: the "
                f"smallest two-sided p-value that the sign-flip test can give is {least:.4g}, and at least "
                f"{FEWEST_SEEDS} seeds are needed for p < {LEVEL}"
            )
            return text + (f", {needed}{correction}." if many else ".")
        if least * len(self.pairs) >= LEVEL:
            return (
                f"With {count} shared seeds no difference can be called significant{correction}: at least {needed} "
                "seeds are needed."
            )
        proved = [f"{pair.first} > {pair.second} (p = {pair.p_holm:.3g})" for pair in self.pairs if pair.significant]
        test = f"at p < {LEVEL} (sign-flip test over {count} seeds{correction})"
        return f"Significant {test}: {'; '.join(proved)}." if proved else f"No difference is significant {test}."


def sign_flip(differences: Sequence[float] | np.ndarray) -> float:
    r"""Two-sided sign-flip permutation test of paired differences against zero.

    $$p = \Big|\Big\{s \in \{-1, 1\}^n : \Big|\sum_i s_i d_i\Big| \ge \Big|\sum_i d_i\Big|\Big\}\Big| \Big/ 2^n$$

    Args:
        differences: float `[n]`, one per seed.

    Returns:
        p; never below 2/2^n. Exact up to 16 seeds, by 99,999 seeded random flips beyond.

    Example:
        >>> sign_flip([0.1, 0.2, 0.1, 0.3, 0.1]), sign_flip([0.5])
        (0.0625, 1.0)
    """
    d = np.asarray(differences, dtype=np.float64)
    if len(d) <= 16:
        signs = (np.arange(2 ** len(d))[:, None] >> np.arange(len(d)) & 1) * 2 - 1
    else:
        signs = np.random.default_rng(0).integers(0, 2, (99_999, len(d))) * 2 - 1
        signs = np.vstack([np.ones(len(d), int), signs])  # what was observed counts as one of the flips
    slack = 1e-9 * np.abs(d).sum()  # equal sums may differ by rounding
    return float((np.abs(signs @ d) >= abs(d.sum()) - slack).mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number by Holm's step-down method.

    Args:
        p_values: any number of them.

    Returns:
        the corrected ones, in the same order, at most 1.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    steps = np.minimum(np.maximum.accumulate(values[order] * factors), 1)
    corrected = np.empty(len(p_values))
    corrected[order] = steps
    return corrected.tolist()


def _bootstrap(models: Sequence[Model], draws: int = 10_000) -> list[np.ndarray]:
    """Weighted F1 of every model and seed, `[draw, seed]`, on the same random draws of dialogues for all models."""
    count = models[0].confusion.shape[1]
    random = np.random.default_rng(0)
    found: list[list[np.ndarray]] = [[] for _ in models]
    for _ in range(0, draws, 1000):  # in chunks, to bound memory
        times_drawn = random.multinomial(count, np.full(count, 1 / count), size=1000).astype(np.float32)
        for values, model in zip(found, models, strict=True):
            seeds, _, classes, _ = model.confusion.shape
            # Counts are far below 2^24, so float32 is exact.
            flat = model.confusion.swapaxes(0, 1).reshape(count, -1).astype(np.float32)
            values.append(metrics.weighted_f1((times_drawn @ flat).reshape(1000, seeds, classes, classes)))
    return [np.concatenate(values) for values in found]


def compare(results: Sequence[Result]) -> Comparison:
    """Put results on one dataset, one set of test dialogues and one protocol side by side.

    A seed that lacks a fold which other runs have is left out, with a note.

    Args:
        results: of any number of models, seeds and folds.

    Returns:
        a `Comparison`; its means, gaps, pairs and notes.

    Raises:
        MerZooError: there are none; datasets, protocols, splits or labels differ; a run occurs twice; or one model name
            stands for different recipes.
    """
    if not results:
        raise MerZooError("nothing to compare: there are no results. Run a suite first, or name another folder.")
    first = results[0]
    for other in results[1:]:
        for what, a, b in (
            ("datasets", first.dataset.name, other.dataset.name),
            ("contents of the dataset", first.dataset.fingerprint, other.dataset.fingerprint),
            ("class names", first.dataset.label_names, other.dataset.label_names),
            ("protocols", first.protocol, other.protocol),
            ("kinds of split", _kind(first), _kind(other)),
        ):
            if a != b:
                raise MerZooError(
                    f"{_where(first)} and {_where(other)}: different {what} ('{a}' and '{b}') cannot share a table. "
                    "Compare them separately."
                )
    _check_runs(results)
    folds = {result.fold for result in results}
    by_name: dict[str, dict[int, list[Result]]] = {}
    for result in sorted(results, key=lambda r: (r.seed, r.fold or 0)):
        by_name.setdefault(result.recipe_name, {}).setdefault(result.seed, []).append(result)
    notes = []
    for name, seeds in list(by_name.items()):
        for seed, runs in list(seeds.items()):
            missing = folds - {run.fold for run in runs}
            if missing:
                listed = ", ".join(str(fold) for fold in sorted(missing, key=str))
                notes.append(f"{name}, seed {seed}: left out, because fold {listed} is missing.")
                del seeds[seed]
        if not seeds:
            del by_name[name]
    if not by_name:
        raise MerZooError("nothing to compare: no seed of any model has all folds. Let the suite finish.")
    dialogues = _dialogues(by_name)
    models = [_model(name, seeds, dialogues) for name, seeds in by_name.items()]
    models.sort(key=lambda model: (-model.mean("weighted_f1"), model.name))
    if len({model.seeds for model in models}) > 1:
        notes.append("The models were not run with the same seeds; pairs use the seeds they share.")
    kept = [run for model in models for run in model.all_runs]
    machines = sorted({f"{run.environment.device} on {run.environment.platform}" for run in kept})
    if len(machines) > 1:
        notes.append(f"Times and memory are from different machines and do not compare: {'; '.join(machines)}.")
    versions = sorted({f"{run.environment.mer_zoo} ({run.environment.git_commit or 'release'})" for run in kept})
    if len(versions) > 1:
        notes.append(f"The runs were made by different versions of mer_zoo: {'; '.join(versions)}.")
    warnings = list(dict.fromkeys(warning for run in kept for warning in run.dataset.warnings))
    dataset = first.dataset.model_copy(update={"warnings": warnings})
    return Comparison(dataset, first.protocol, dialogues, tuple(models), tuple(notes))


def compare_all(results: Sequence[Result]) -> list[Comparison]:
    """Make one comparison per dataset, contents of it, and protocol; those selected on test come last.

    Raises:
        MerZooError: what `compare` raises.
    """
    groups: dict[tuple[bool, str, str], list[Result]] = {}
    for result in results:
        key = (result.protocol == "test-oracle", result.dataset.name, result.dataset.fingerprint)
        groups.setdefault(key, []).append(result)
    if not groups:
        compare([])
    return [compare(groups[key]) for key in sorted(groups)]


def _kind(result: Result) -> str:
    return "one test split" if result.fold is None else "cross-validation"


def _where(result: Result) -> str:
    fold = "" if result.fold is None else f", fold {result.fold}"
    return f"{result.recipe_name} on {result.dataset.name} (seed {result.seed}{fold}, run {result.run})"


def _check_runs(results: Sequence[Result]) -> None:
    seen: dict[tuple[str, int, int | None], Result] = {}
    recipes: dict[str, Result] = {}
    splits: dict[tuple[int, int | None], Result] = {}
    for result in results:
        known = recipes.setdefault(result.recipe_name, result)
        if known.recipe != result.recipe:
            raise MerZooError(
                f"{_where(known)} and {_where(result)}: one name for different recipes; they differ in "
                f"{', '.join(_differences(known.recipe, result.recipe))}. Give each recipe its own name, or remove the "
                "results of one."
            )
        twin = seen.setdefault((result.recipe_name, result.seed, result.fold), result)
        if twin is not result:
            raise MerZooError(f"{_where(result)}: this run is there twice. Remove one of its result files.")
        other = splits.setdefault((result.seed, result.fold), result)
        for part in ("train", "validation", "test"):
            if set(getattr(other.split, part)) != set(getattr(result.split, part)):
                raise MerZooError(
                    f"{_where(other)} and {_where(result)}: their {part} splits hold different dialogues and cannot "
                    "share a table. Repeat the runs on one split."
                )


def _differences(a: Any, b: Any, path: str = "") -> list[str]:
    """Paths at which two plain values differ, such as `train.optimizer.lr`."""
    if isinstance(a, dict) and isinstance(b, dict):
        keys = dict.fromkeys([*a, *b])
        return [place for key in keys for place in _differences(a.get(key), b.get(key), f"{path}.{key}".lstrip("."))]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [
            place for i, (x, y) in enumerate(zip(a, b, strict=True)) for place in _differences(x, y, f"{path}[{i}]")
        ]
    return [] if a == b else [path]


def _dialogues(by_name: dict[str, dict[int, list[Result]]]) -> tuple[str, ...]:
    """Test dialogues with the folds of a seed pooled; the same ones, with the same labels, in every seed."""
    labels: dict[str, list[int]] = {}
    expected: set[str] = set()
    for seeds in by_name.values():
        for runs in seeds.values():
            here = [name for run in runs for name in run.split.test]
            if len(here) != len(set(here)):
                raise MerZooError(f"{_where(runs[0])}: a dialogue is in the test split of two folds. Repeat the runs.")
            expected = expected or set(here)
            if set(here) != expected:
                raise MerZooError(
                    f"{_where(runs[0])}: tested on other dialogues than the rest of the table. "
                    "Repeat the runs on one test split."
                )
            for run in runs:
                for name, one in run.predictions.items():
                    if labels.setdefault(name, one.label) != one.label:
                        raise MerZooError(
                            f"{_where(run)}, dialogue '{name}': labels differ from those of other runs. "
                            "Repeat the runs on one version of the data."
                        )
    return tuple(sorted(expected))


def _model(name: str, seeds: dict[int, list[Result]], dialogues: Sequence[str]) -> Model:
    confusion = []
    for runs in seeds.values():
        classes = len(runs[0].dataset.label_names)
        pooled = {key: one for run in runs for key, one in run.predictions.items()}
        confusion.append(
            [metrics.confusion_matrix(pooled[key].label, pooled[key].predicted, classes) for key in dialogues]
        )
    runs_of = {seed: tuple(runs) for seed, runs in seeds.items()}
    return Model(name, tuple(seeds), np.array(confusion), runs_of)
