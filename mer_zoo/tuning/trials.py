"""The trials of a search by Optuna (Akiba et al., KDD 2019): each is judged on validation dialogues alone."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np

from mer_zoo.comparison.claims import claim
from mer_zoo.comparison.executing import Executor
from mer_zoo.comparison.workers import Lost, at_a_time, check_count, gpus, spread
from mer_zoo.errors import MerZooError
from mer_zoo.results.metrics import value_of
from mer_zoo.tuning.search import Blind, Search

if TYPE_CHECKING:
    import optuna

REFUSALS = 30  # draws in a row that do not fit together, before the space is to blame
ENDED_FIRST = 5  # trials before any is stopped early
EPOCHS_FIRST = 5  # of every trial


@dataclass(frozen=True)
class Ended:
    """How a trial went, as the worker says that trained it.

    Attributes:
        scores: of its seeds; fewer where it was stopped or failed.
        curve: epoch -> validation score of the first seed.
        seconds: that it took.
        failed: why, if it did.
    """

    scores: tuple[float, ...] = ()
    curve: Mapping[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    failed: str = ""


def run(
    search: Search,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    watch: Callable[[optuna.trial.FrozenTrial], None] = lambda trial: None,
) -> None:
    """Make the trials that are left of the budget, several at a time; a stopped search goes on where it was.

    This process alone draws and keeps trials; a worker trains one and answers how it went.

    Args:
        search: what to search.
        workers: processes; None: one per processor.
        executor: what trains trials elsewhere, such as `ray_cluster.RayCluster`; None: processes of this machine.
        watch: called with every trial that has ended.

    Raises:
        MerZooError: no worker, nothing to search, nothing that was drawn fits together, or no trial came to its end.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> data = {"name": "synthetic", "dialogues": [4, 2, 2], "utterances": [2, 5]}
        >>> how = {"changes": ["training.epochs=1"], "keys": ["training.learning_rate"], "trials": 2}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     search = Search.of("bilstm", data, folder=Path(folder), **how)
        ...     run(search, workers=1)
        ...     len(search.trained())
        2
    """
    check_count(workers)
    if not search.space.choices:
        raise MerZooError(f"{search.name}: nothing to search. Give the recipe a `search` block.")
    study = search.study()
    from optuna.exceptions import StorageInternalError

    try:
        _run(search, study, workers, executor, watch)
    except StorageInternalError as error:  # such as a disk that is full now
        raise search.unusable(error) from None


def _run(
    search: Search,
    study: optuna.Study,
    workers: int | None,
    executor: Executor | None,
    watch: Callable[[optuna.trial.FrozenTrial], None],
) -> None:
    with claim(search.storage.parent, search.key, wait=True):  # of two processes, the second finds what the first did
        _give_back(study)
        slots = range(len(search.trained()), search.budget)
        running: dict[int, optuna.Trial] = {}

        def stacks() -> Iterator[list[Blind]]:
            for slot in slots:
                trial, blind = _draw(search, study, slot)
                running[trial.number] = trial
                yield [replace(blind, seed=seed) for seed in search.seeds]

        for stack, answer in _spread(stacks(), len(slots), search.experiment.device, workers, executor):
            ended = Ended(failed=answer.message) if isinstance(answer, Lost) else answer
            watch(_note(search, study, running.pop(stack[0].trial), ended))
        trials = search.trained()
        if all(trial.value is None for trial in trials):
            raise MerZooError(
                f"search '{search.name}': no trial came to its end; the first: {trials[0].user_attrs.get('failed')}"
            )


def _spread(
    stacks: Iterator[list[Blind]], total: int, device: str, workers: int | None, executor: Executor | None
) -> Iterator[tuple[list[Blind], Any]]:
    if executor is not None:
        yield from executor(train, stacks)
        return
    devices = gpus({device})
    count = min(at_a_time(devices, workers), total)
    yield from spread(train, stacks, count, devices) if count > 1 else ((stack, train(stack)) for stack in stacks)


def _give_back(study: optuna.Study) -> None:
    """Enqueue what a process that was killed was at, and at the very beginning the recipe as it is."""
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        kept = {key: trial.user_attrs[key] for key in ("default",) if key in trial.user_attrs}
        study.enqueue_trial(trial.params, user_attrs=kept)
        study.tell(trial.number, state=TrialState.FAIL)
    if not study.trials:
        study.enqueue_trial({}, user_attrs={"default": True})


def _draw(search: Search, study: optuna.Study, slot: int) -> tuple[optuna.Trial, Blind]:
    """Draw until something fits together; the slot, a number within the budget, seeds the sampler."""
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = optuna.samplers.TPESampler(seed=slot, multivariate=True, group=True, constant_liar=True)
        refused = ""
        for _ in range(REFUSALS):
            trial = study.ask()
            changes = {} if trial.user_attrs.get("default") else search.space.draw(trial)
            trial.set_user_attr("changes", changes)
            try:
                blind = search.blind(changes)
                blind.rehearse()
            except MerZooError as error:
                trial.set_user_attr("refused", refused := str(error))
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                continue
            return trial, replace(blind, trial=trial.number, bar=_bar(study), metric=search.metric)
    raise MerZooError(f"search '{search.name}': {REFUSALS} draws in a row do not fit together; the last: {refused}")


def _bar(study: optuna.Study) -> dict[int, float]:
    """Return for every epoch what half of the trials that ended have reached (median stopping, Golovin, KDD 2017).

    It goes with a trial to wherever that is trained, so that stopping needs no line back.
    """
    from optuna.trial import TrialState

    curves = [trial.intermediate_values for trial in study.get_trials(states=(TrialState.COMPLETE,))]
    if len(curves) < ENDED_FIRST:
        return {}
    epochs = {epoch for curve in curves for epoch in curve if epoch >= EPOCHS_FIRST}
    return {epoch: median(curve[epoch] for curve in curves if epoch in curve) for epoch in epochs}


class _Behind(Exception):
    """A trial is behind the others."""


def train(stack: Sequence[Blind]) -> Ended:
    """Train a trial with each of its seeds, of which the first is stopped early where it is behind the others.

    Args:
        stack: the same experiment with every seed.
    """
    curve: dict[int, float] = {}

    def report(record: dict[str, Any]) -> None:
        curve[record["epoch"]] = record[f"validation_{stack[0].metric}"]
        if max(curve.values()) < stack[0].bar.get(record["epoch"], -1.0):
            raise _Behind

    scores: list[float] = []
    failed = ""
    began = time.perf_counter()
    try:
        for blind in stack:
            outcome = blind.run(None if scores else report)
            assert outcome.result.metrics.validation is not None
            scores.append(value_of(blind.metric, np.array(outcome.result.metrics.validation.confusion)))
    except _Behind:
        pass
    except (Exception, SystemExit) as error:  # a part may break in its own way, which costs this trial alone
        failed = str(error) if isinstance(error, MerZooError) else f"unexpected {type(error).__name__}: {error}"
    return Ended(tuple(scores), curve, time.perf_counter() - began, failed)


def _note(search: Search, study: optuna.Study, trial: optuna.Trial, ended: Ended) -> optuna.trial.FrozenTrial:
    """Keep how a trial went."""
    import optuna

    for epoch, score in ended.curve.items():
        trial.report(score, epoch)
    trial.set_user_attr("seconds", ended.seconds)
    if ended.failed:
        trial.set_user_attr("failed", ended.failed)
    if len(ended.scores) == len(search.seeds):
        return study.tell(trial, fmean(ended.scores))
    return study.tell(trial, state=optuna.trial.TrialState.PRUNED)
