"""A search, its space and its storage; and what it trains, without the test dialogues."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_zoo.comparison.claims import claim
from mer_zoo.data.conversation import Dataset
from mer_zoo.data.splits import SplitRule
from mer_zoo.errors import MerZooError
from mer_zoo.model.changes import Change, changes_from
from mer_zoo.model.optimising import LOSS
from mer_zoo.model.recipe import Given
from mer_zoo.training.experiment import Data, Experiment, dataset_of, folds_of, prepare
from mer_zoo.training.task import Task
from mer_zoo.tuning.space import Space, changed, narrowed, space_of

if TYPE_CHECKING:
    import optuna

FILE = "search.db"


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
            keys: patterns of keys, see `narrowed`.
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
        (space,) = narrowed([space_of(first, recipe, fixed={change.key for change in fixed})], keys)
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
                storage = optuna.storages.RDBStorage(
                    f"sqlite:///{FILE}",
                    engine_kwargs={"creator": self._connected},  # in an address, `?` and `%` mean something
                )
                study = optuna.create_study(
                    storage=storage,
                    study_name=self.study_name,
                    direction="maximize",
                    load_if_exists=True,
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
