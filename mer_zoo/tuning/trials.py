"""A search by Optuna (Akiba et al., KDD 2019): each trial draws changes and is judged on validation dialogues alone."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np

from mer_zoo.comparison.claims import claim
from mer_zoo.comparison.executing import Executor
from mer_zoo.comparison.workers import Lost, at_a_time, gpus, spread
from mer_zoo.data.conversation import Dataset
from mer_zoo.data.splits import SplitRule
from mer_zoo.errors import MerZooError
from mer_zoo.model.changes import Change, changes_from
from mer_zoo.model.optimising import LOSS
from mer_zoo.model.recipe import Given
from mer_zoo.results.metrics import value_of
from mer_zoo.training.experiment import Data, Experiment, dataset_of, folds_of, prepare
from mer_zoo.training.task import Task
from mer_zoo.tuning.space import Space, changed, refuse_unfitting, space_of

if TYPE_CHECKING:
    import optuna

FILE = "search.db"
REFUSALS = 30  # draws in a row that do not fit together, before the space is to blame
ENDED_FIRST = 5  # trials before any is stopped early
EPOCHS_FIRST = 5  # of every trial


@dataclass(frozen=True)
class Blind(Experiment):
    """An experiment that has no test dialogues: what it reports as test scores is of validation dialogues.

    The test dialogues are not in the dataset it trains on, so nothing can reach them.

    Attributes:
        trial: its number in the search.
        bar: epoch -> the score that the best so far must reach, or the trial is stopped.
        metric: the validation score that is searched for.
    """

    trial: int = 0
    bar: Mapping[int, float] = field(default_factory=dict)
    metric: str = "weighted_f1"

    def task(self) -> Task:
        """Load the dialogues, split them, and leave those of the test split out."""
        task = super().task()
        seen = (*task.split.train, *task.split.validation)
        kept = task.dataset
        apart = Dataset(
            kept.name,
            kept.select(seen),
            kept.label_names,
            {"train": task.split.train, "validation": task.split.validation},
        )
        return replace(task, dataset=apart, split=task.split._replace(test=task.split.validation))


@dataclass(frozen=True)
class Search:
    """A search, as plain data that a worker can be sent.

    Attributes:
        name: what tables call the model.
        recipe: name, file, or itself.
        experiment: of the recipe as it is.
        changes: of the recipe that hold for every trial, and for `experiment`.
        space: what may be changed.
        seeds: the score of a trial is the mean over them.
        budget: trials that train; draws that do not fit together cost none.
        storage: SQLite file that keeps the trials.
    """

    name: str
    recipe: Given
    experiment: Experiment
    changes: tuple[Change, ...]
    space: Space
    seeds: tuple[int, ...]
    budget: int
    storage: Path

    @classmethod
    def of(
        cls,
        recipe: Given,
        data: Data,
        *,
        folder: Path,
        name: str = "",
        changes: Iterable[str | Change] | Mapping[str, Any] = (),
        keys: Sequence[str] | None = None,
        seeds: int = 1,
        trials: int = 60,
        split_rule: SplitRule | None = None,
        **how: Any,
    ) -> Search:
        """Prepare a search, and make the model of the recipe as it is, so that a mistake costs no trial.

        Args:
            recipe, data, name, changes, split_rule: as of `prepare`; what is changed is not searched.
            folder: of the storage.
            keys: patterns of keys; what fits none stays as it is.
            seeds: how many.
            trials: the budget.
            how: further fields of the experiment.

        Raises:
            MerZooError: recipe and data do not fit, a pattern that fits nothing, or a number below 1.
        """
        for what, value in (("trials", trials), ("seeds", seeds)):
            if value < 1:
                raise MerZooError(f"{value} {what}: want at least 1.")
        fixed = changes_from(changes)
        fold = folds_of(data, split_rule)[0]  # the other folds test on dialogues that choose here
        first = prepare(recipe, data, name=name, changes=fixed, fold=fold, split_rule=split_rule, **how)
        first.rehearse()
        space = space_of(first, recipe, fixed={change.key for change in fixed})
        if keys is not None:
            refuse_unfitting(keys, [choice.key for choice in space.choices])
            space = space.fitting(keys)
        return cls(first.name, recipe, first, fixed, space, tuple(range(seeds)), trials, folder / FILE)

    def blind(self, changes: Mapping[str, Any]) -> Blind:
        """Return the experiment with changes, without its test dialogues."""
        now = self.experiment
        how: dict[str, Any] = {"fold": now.fold, "split_rule": now.split_rule, "options": now.options}
        made = prepare(self.recipe, now.data, name=self.name, changes=[*self.changes, *changed(changes)], **how)
        return Blind(**{**vars(made), "device": now.device})  # which a worker has, and this machine perhaps not

    @property
    def data(self) -> str:
        """The name of the dataset."""
        return dataset_of(self.experiment.data).name

    @property
    def metric(self) -> str:
        """The validation score that is searched for: the one that chooses the epoch.

        Losses of different parts cannot be compared, so weighted F1 takes the place of the loss.
        """
        select = self.experiment.plan.training.select
        return "weighted_f1" if select == LOSS else select

    @property
    def key(self) -> str:
        """Hash of what makes it this search: another recipe, space or data is another."""
        what = [self.experiment.identity.model_dump(), self.space.plain(), list(self.seeds)]
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def study_name(self) -> str:
        """The name under which the trials are kept."""
        return f"{self.name} {self.key}"

    def study(self) -> optuna.Study:
        """Open the trials, which are made if there are none.

        Raises:
            MerZooError: Optuna is not installed, or the file cannot be used.
        """
        try:
            import optuna
        except ImportError:
            raise MerZooError("`mer-zoo tune` needs Optuna. Install it: pip install 'mer-zoo[tune]'.") from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.ERROR)
        try:
            with claim(self.storage.parent, FILE, wait=True):  # two searches would make the same tables
                opened = {"creator": self._connected}  # in an address, `?` and `%` mean something
                storage = optuna.storages.RDBStorage("sqlite:///search.db", engine_kwargs=opened)
                study = optuna.create_study(
                    storage=storage, study_name=self.study_name, direction="maximize", load_if_exists=True
                )
        except Exception as error:  # Optuna's, SQLAlchemy's and SQLite's own
            raise self.unusable(error) from None
        return study

    def unusable(self, error: BaseException) -> MerZooError:
        """Return what is said of a storage that breaks."""
        line = str(error.__cause__ or error).splitlines()[0][:200]
        return MerZooError(
            f"{self.storage}: cannot be used for a search ({line}). If the disk is full, make room and run it "
            "again; if the file is damaged, move it away."
        )

    def _connected(self) -> sqlite3.Connection:
        return sqlite3.connect(self.storage, timeout=60, check_same_thread=False)  # another search may be writing

    def trained(self) -> list[optuna.trial.FrozenTrial]:
        """Return the trials that have trained, in their order."""
        from optuna.trial import TrialState

        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        return [trial for trial in self.study().get_trials(states=ended) if "refused" not in trial.user_attrs]


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
        MerZooError: nothing to search, nothing that was drawn fits together, or no trial came to its end.

    Example:
        >>> import tempfile
        >>> data = {"name": "synthetic", "dialogues": [4, 2, 2], "utterances": [2, 5]}
        >>> how = {"changes": ["training.epochs=1"], "keys": ["training.learning_rate"], "trials": 2}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     search = Search.of("bilstm", data, folder=Path(folder), **how)
        ...     run(search, workers=1)
        ...     len(search.trained())
        2
    """
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
    count = min(at_a_time({device}, workers), total)
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
