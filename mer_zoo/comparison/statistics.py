"""From result files to statements: which runs share a table, their means over seeds, and what they prove."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from mer_zoo.comparison.broken import Broken
from mer_zoo.comparison.inference import FEWEST_SEEDS, LEVEL, Interval, Pair, interval, pairs
from mer_zoo.errors import MerZooError, nearest
from mer_zoo.results import metrics
from mer_zoo.results.result import DatasetInfo, Result


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
        return metrics.SCORES[score](self.confusion.sum(1))

    def oracle_values(self, score: str) -> np.ndarray:
        """The same at the epochs that are best on test, `[seed]`; of no seed where a run did not look for it."""
        found = [[run.oracle_metrics for run in self.runs[seed]] for seed in self.seeds]
        if not all(one for runs in found for one in runs):
            return np.empty(0)
        return metrics.SCORES[score](np.array([np.sum([one.confusion for one in runs if one], 0) for runs in found]))

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
        """Weighted F1 at the best-on-test epoch minus that at the chosen one, mean over seeds; None if not known."""
        oracle = self.oracle_values("weighted_f1")
        return float(oracle.mean()) - self.mean("weighted_f1") if len(oracle) else None

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
class Comparison:
    """Models on the same data, test dialogues and protocol: one table.

    Attributes:
        dataset: what they were run on.
        protocol: "validation", or "test-oracle" (the best epochs on test are there too).
        dialogues: pooled test dialogues.
        folds: of each dialogue the fold that tested it; empty where there is one test split.
        models: best mean weighted F1 first.
        baseline: the model that the others are compared with; None: every two are compared.
        notes: sentences about runs that were left out or that differ in what bears on time.
        broken: runs that left no result.
    """

    dataset: DatasetInfo
    protocol: str
    dialogues: tuple[str, ...]
    folds: tuple[int, ...]
    models: tuple[Model, ...]
    baseline: str | None
    notes: tuple[str, ...] = ()
    broken: tuple[Broken, ...] = ()

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Every other model minus the baseline, or every two models, the better one first."""
        names = [model.name for model in self.models]
        chosen = list(combinations(names, 2))
        if self.baseline is not None:
            chosen = [(name, self.baseline) for name in names if name != self.baseline]
        counts = {model.name: self._samples(model) for model in self.models}
        return tuple(pairs(counts, chosen, "folds" if self.folds else "dialogues"))

    def _samples(self, model: Model) -> np.ndarray:
        """Confusion of a model by what the test split is a sample of, `[seed, sample, C, C]`."""
        if not self.folds:
            return model.confusion
        # dialogues that one trained model tested share its luck: the fold is the sample
        member = np.array(self.folds) == np.unique(self.folds)[:, None]
        return np.einsum("fd,sdij->sfij", member.astype(np.int64), model.confusion)

    def class_f1(self, model: Model) -> list[Interval]:
        """Return F1 of every class with its interval over seeds and dialogues, which is NaN for a single one."""
        counts = self._samples(model)

        def f1(number: int) -> Callable[[np.ndarray], np.ndarray]:
            return lambda confusion: metrics.per_class(confusion)["f1"][..., number]

        return [interval(counts, f1(number)) for number in range(counts.shape[-1])]

    @property
    def significance(self) -> str:
        """What is claimed, and what it holds for, in a few sentences; "" for a single model."""
        if not self.pairs:
            return ""
        count, samples = len(self.pairs), self.pairs[0].samples
        against = "Every two models are compared" if self.baseline is None else f"Each is compared with {self.baseline}"
        scope = f"{against}, for new seeds and new {samples}; the training data stay" + (
            f"; Holm's correction for {count} comparisons." if count > 1 else "."
        )
        few = [pair for pair in self.pairs if pair.seeds < FEWEST_SEEDS]
        if len(few) == count:
            most = max(pair.seeds for pair in few)
            return f"{scope} With {most} seed{'s' * (most > 1)} no difference is claimed: that takes {FEWEST_SEEDS}."
        claimed = [
            f"{pair.first} {'>' if pair.difference > 0 else '<'} {pair.second} (p = {pair.p_holm:.2g})"
            for pair in self.pairs
            if pair.significant
        ]
        return scope + (f" Clear: {'; '.join(claimed)}." if claimed else f" No difference is clear at p < {LEVEL}.")


def compare(results: Sequence[Result], *, baseline: str | None = None, all_pairs: bool = False) -> Comparison:
    """Put results on one dataset, one set of test dialogues and one protocol side by side.

    A seed that lacks a fold which other runs have is left out, with a note.

    Args:
        results: of any number of models, seeds and folds.
        baseline: the model that each other one is compared with; None: that of the first result, which is the first of
            the suite. So it is named before a score is seen.
        all_pairs: compare every two models instead, at the price of a stronger correction.

    Returns:
        a `Comparison`; its means, gaps, pairs and notes.

    Raises:
        MerZooError: there are none; datasets, protocols, splits or labels differ; a run occurs twice; one model name
            stands for different recipes; or there is no such baseline.
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
            ("split rules", first.split_rule, other.split_rule),
            ("precisions", first.precision, other.precision),
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
    if baseline is not None and baseline not in by_name:
        raise MerZooError(f"baseline: no results of '{baseline}' on {first.dataset.name}.{nearest(baseline, by_name)}")
    if not all_pairs and baseline is None:
        baseline = first.recipe_name if first.recipe_name in by_name else next(iter(by_name))
    dialogues, fold_of = _dialogues(by_name)
    models = [_model(name, seeds, dialogues) for name, seeds in by_name.items()]
    models.sort(key=lambda model: (-model.mean("weighted_f1"), model.name))
    if len({model.seeds for model in models}) > 1:
        notes.append("The models were not run with the same seeds.")
    kept = [run for model in models for run in model.all_runs]
    machines = sorted({f"{run.environment.device} on {run.environment.platform}" for run in kept})
    if len(machines) > 1:
        notes.append(f"Times and memory are from different machines and do not compare: {'; '.join(machines)}.")
    versions = sorted({f"{run.environment.mer_zoo} ({run.environment.git_commit or 'release'})" for run in kept})
    if len(versions) > 1:
        notes.append(f"The runs were made by different versions of mer_zoo: {'; '.join(versions)}.")
    warnings = list(dict.fromkeys(warning for run in kept for warning in run.dataset.warnings))
    dataset = first.dataset.model_copy(update={"warnings": warnings})
    return Comparison(
        dataset, first.protocol, dialogues, fold_of, tuple(models), None if all_pairs else baseline, tuple(notes)
    )


def compare_all(
    results: Sequence[Result],
    *,
    baseline: str | None = None,
    all_pairs: bool = False,
    broken: Sequence[Broken] = (),
) -> list[Comparison]:
    """Make one comparison per dataset, its contents, protocol, split rule and precision; test-oracle comes last.

    Args:
        results: of any number of datasets.
        baseline: as in `compare`; where its runs on a dataset are missing, the first model there stands in, with a
            note.
        all_pairs: as in `compare`.
        broken: runs that left no result; they are told of.

    Raises:
        MerZooError: what `compare` raises.
    """
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        data, rule = result.dataset, json.dumps(result.split_rule, sort_keys=True)
        key = (result.protocol == "test-oracle", data.name, data.fingerprint, rule, result.precision)
        groups.setdefault(key, []).append(result)
    if not groups:
        compare([])
    names = {result.recipe_name for result in results} | {one.model for one in broken}
    if baseline is not None and baseline not in names:
        raise MerZooError(f"baseline: there are no results of '{baseline}'.{nearest(baseline, names)}")
    found = []
    for key in sorted(groups):
        there = baseline in {result.recipe_name for result in groups[key]}
        one = compare(groups[key], baseline=baseline if there else None, all_pairs=all_pairs)
        if baseline is not None and not there and one.baseline is not None:
            note = f"The baseline {baseline} has no results here; {one.baseline} stands in for it."
            one = replace(one, notes=(note, *one.notes))
        here = tuple(run for run in broken if run.data == one.dataset.fingerprint)
        told = dict.fromkeys(f"Failed: {run.told}" for run in here)
        found.append(replace(one, notes=(*told, *one.notes), broken=here))
    return found


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


def _dialogues(by_name: dict[str, dict[int, list[Result]]]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Test dialogues with the folds of a seed pooled, and the fold of each; the same, with the same labels, in all."""
    labels: dict[str, list[int]] = {}
    folds: dict[str, int | None] = {}
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
                    if folds.setdefault(name, run.fold) != run.fold:
                        raise MerZooError(
                            f"{_where(run)}, dialogue '{name}': fold {folds[name]} of other runs tests it. "
                            "Repeat the runs on one set of folds."
                        )
                    if labels.setdefault(name, one.label) != one.label:
                        raise MerZooError(
                            f"{_where(run)}, dialogue '{name}': labels differ from those of other runs. "
                            "Repeat the runs on one version of the data."
                        )
    dialogues = tuple(sorted(expected))
    return dialogues, tuple(fold for name in dialogues if (fold := folds[name]) is not None)


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
