"""A search by Optuna (Akiba et al., KDD 2019): each trial draws changes and is judged on validation dialogues alone."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mer_zoo.comparison.workers import Lost, processors, spread
from mer_zoo.data.conversation import Dataset
from mer_zoo.errors import MerZooError
from mer_zoo.model.changes import Change
from mer_zoo.model.recipe import Given
from mer_zoo.training.experiment import Experiment, prepare
from mer_zoo.training.task import Task
from mer_zoo.tuning.space import Space, changed

if TYPE_CHECKING:
    import optuna

FILE = "search.db"
REFUSALS = 30  # draws in a row that do not fit together, before the space is to blame


@dataclass(frozen=True)
class Blind(Experiment):
    """An experiment that has no test dialogues: what it reports as test scores is of validation dialogues.

    The test dialogues are not in the dataset it trains on, so nothing can reach them.
    """

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

    def blind(self, changes: Mapping[str, Any]) -> Blind:
        """Return the experiment with changes, without its test dialogues."""
        now = self.experiment
        how: dict[str, Any] = {
            "fold": now.fold,
            "split_rule": now.split_rule,
            "device": now.device,
            "options": now.options,
        }
        made = prepare(self.recipe, now.data, name=self.name, changes=[*self.changes, *changed(changes)], **how)
        return Blind(**vars(made))

    @property
    def study_name(self) -> str:
        """The name under which the trials are kept: another recipe, space or data is another search."""
        what = [self.experiment.identity.model_dump(), self.space.plain(), list(self.seeds)]
        return f"{self.name} {hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]}"

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
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{self.storage}",
                engine_kwargs={"connect_args": {"timeout": 60}},  # another worker may be writing
            )
            study = optuna.create_study(
                storage=storage,
                study_name=self.study_name,
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=5),
            )
        except Exception as error:  # Optuna's, SQLAlchemy's and SQLite's own
            line = str(error).splitlines()[0][:200]
            raise MerZooError(f"{self.storage}: cannot be used for a search ({line}). Move it away.") from None
        return study

    def trained(self) -> list[optuna.trial.FrozenTrial]:
        """Return the trials that have trained, in their order."""
        from optuna.trial import TrialState

        ended = (TrialState.COMPLETE, TrialState.PRUNED)
        return [trial for trial in self.study().get_trials(states=ended) if "refused" not in trial.user_attrs]


def run(
    search: Search,
    *,
    workers: int | None = None,
    watch: Callable[[optuna.trial.FrozenTrial], None] = lambda trial: None,
) -> None:
    """Make the trials that are left of the budget, several at a time; a stopped search goes on where it was.

    Args:
        search: what to search.
        workers: processes; None: one per processor.
        watch: called with every trial that has ended.

    Raises:
        MerZooError: nothing that was drawn fits together, or a worker is lost again and again.

    Example:
        >>> import tempfile
        >>> from mer_zoo.tuning.space import space_of
        >>> from mer_zoo.training.experiment import prepare
        >>> data = {"name": "synthetic", "dialogues": [4, 2, 2], "utterances": [2, 5]}
        >>> first = prepare("bilstm", data, changes=["training.epochs=1"])
        >>> space = space_of(first, "bilstm", only=["training.learning_rate"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     search = Search("BiLSTM", "bilstm", first, (), space, (0,), 2, Path(folder) / FILE)
        ...     run(search, workers=1)
        ...     len(search.trained())
        2
    """
    study = search.study()
    if not study.trials:
        study.enqueue_trial({}, user_attrs={"default": True})
    have = len(search.trained())
    slots = list(range(have, search.budget))
    if not slots:
        return
    count = min(workers or processors(), len(slots))
    answers: Iterator[tuple[int, Any]] = (
        ((slot, attempt(search, slot)) for slot in slots)
        if count == 1
        else spread(partial(attempt, search), slots, count)
    )
    for _, answer in answers:
        if isinstance(answer, Lost):
            raise MerZooError(f"search '{search.name}': {answer.message}")
        if isinstance(answer, str):
            raise MerZooError(f"search '{search.name}': {answer}")
        watch(answer)


def attempt(search: Search, slot: int) -> optuna.trial.FrozenTrial | str:
    """Draw until something fits together, and make that trial; returns it, or why there is none.

    Args:
        search: what to search.
        slot: number of the trial within the budget, which seeds the sampler.
    """
    import optuna

    study = search.study()
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
            return _train(search, study, trial, blind)
    return f"{REFUSALS} draws in a row do not fit together; the last: {refused}"


def _train(search: Search, study: optuna.Study, trial: optuna.Trial, blind: Blind) -> optuna.trial.FrozenTrial:
    """Train a trial and tell the study how it went; one that is behind the others is stopped early."""
    import optuna

    select = blind.plan.training.select

    def report(record: dict[str, Any]) -> None:
        trial.report(record["validation_weighted_f1"], record["epoch"])
        if trial.should_prune():
            raise optuna.TrialPruned

    scores: list[float] = []
    began = time.perf_counter()
    try:
        for seed in search.seeds:
            outcome = replace(blind, seed=seed).run(None if scores else report)
            assert outcome.result.metrics.validation is not None
            scores.append(getattr(outcome.result.metrics.validation, select))
    except optuna.TrialPruned:
        pass
    except MerZooError as error:
        trial.set_user_attr("failed", str(error))
    trial.set_user_attr("seconds", time.perf_counter() - began)
    if len(scores) == len(search.seeds):
        return study.tell(trial, fmean(scores))
    return study.tell(trial, state=optuna.trial.TrialState.PRUNED)
