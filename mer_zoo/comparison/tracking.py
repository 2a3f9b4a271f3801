"""Trackers are told of runs and trials: of each once, by this process alone; whatever they raise, no run is lost."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from mer_zoo import registry
from mer_zoo.comparison.claims import claim
from mer_zoo.comparison.executing import Failure, Listener
from mer_zoo.errors import MerZooError
from mer_zoo.registry.faults import raised, short
from mer_zoo.results.result import SUFFIX, Result
from mer_zoo.results.run import Run
from mer_zoo.results.writing import check_writable
from mer_zoo.training.experiment import dataset_of, weights_beside

LOGGED = "tracked.jsonl"
"""What is in the folder of the results was logged before: a line for each run and tracker."""

Outcome = Result | Failure | Run
"""What became of a run; a trial of a search comes as a `Run`."""

Given = str | Mapping[str, Any]
"""A tracker by name, or `{name: ..., settings}`."""


@dataclass(frozen=True)
class Choice:
    """A tracker that is wanted, with all its settings; nothing is made or opened yet.

    Attributes:
        card: of the tracker.
        settings: by name, defaults written in.
    """

    card: registry.Card
    settings: Mapping[str, Any]

    @property
    def key(self) -> str:
        """What stands for it on disk: a hash, since an address may hold a password."""
        text = json.dumps([self.card.id, self.settings], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def choose(given: Given | Iterable[Given], place: str = "track") -> list[Choice]:
    """Return the trackers that are asked for.

    Args:
        given: one or several, see `Given`.
        place: put in front of an error.

    Raises:
        MerZooError: there is no such tracker, it has no such setting, or it is given twice.

    Example:
        >>> [one.settings["experiment"] for one in choose({"name": "mlflow", "experiment": "emotions"})]
        ['emotions']
        >>> choose("mlfow")
        Traceback (most recent call last):
        mer_zoo.errors.MerZooError: track: no tracker named 'mlfow'. Did you mean 'mlflow'? See `mer-zoo list tracker`.
    """
    found: list[Choice] = []
    for one in [given] if isinstance(given, str | Mapping) else given:
        settings = {"name": one} if isinstance(one, str) else dict(one)
        name = settings.pop("name", None)
        if not isinstance(name, str):
            raise MerZooError(f"{place}: {short(str(one))} has no name. Add one, such as `name: mlflow`.")
        card = registry.find("tracker", name, place)
        choice = Choice(card, registry.fill(card, settings, place))
        if choice in found:
            raise MerZooError(f"{place}: '{name}' is given twice. Leave one out.")
        found.append(choice)
    return found


@dataclass
class _Told:
    """A tracker at work: what it was told, by run and time, and whether it broke and is left alone."""

    choice: Choice
    tracker: Any
    logged: set[tuple[str, str]] = field(default_factory=set)
    resting: bool = False


class Tracking:
    """Tells trackers of runs.

    Args:
        choices: the trackers.
        folder: of the result files.
        say: told of what a tracker raises.

    Raises:
        MerZooError: a tracker cannot be made: a package is missing, or an address cannot be used.
    """

    def __init__(self, choices: Iterable[Choice], folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say, self._read = folder, say, 0
        self._told = [_Told(choice, self._made(choice)) for choice in choices]

    def _made(self, choice: Choice) -> Any:
        check_writable(self._folder)
        try:
            made = registry.build(choice.card, choice.settings, {"results": str(self._folder)})
        except MerZooError as error:
            raise MerZooError(_without_passwords(str(error))) from None
        if not callable(getattr(made, "log", None)):
            raise MerZooError(f"{choice.card.id} has no method `log(run)`. See `mer-zoo new tracker NAME`.")
        return made

    def listener(self, listener: Listener) -> Listener:
        """Return a listener that also tells the trackers of every run."""

        def run(outcome: Result | Failure) -> None:
            listener.run(outcome)
            self(outcome)

        return replace(listener, run=run)

    def __call__(self, outcome: Outcome) -> None:
        """Tell the trackers of a run, unless they know it; one that raises is left alone until the end."""
        for told in self._told:
            if not told.resting:
                told.resting = not self._tell(told, outcome)

    def finish(self, outcomes: Iterable[Outcome]) -> bool:
        """Tell the trackers of all runs that they do not know yet, those of earlier times too.

        Args:
            outcomes: of all runs.

        Returns:
            whether they know them all.
        """
        every = list(outcomes)
        for told in self._told:
            told.resting = False
            for number, outcome in enumerate(every):
                if not self._tell(told, outcome):
                    told.resting = True
                    missed = sum(_mark(one) not in told.logged for one in every[number:])
                    if len(every) > 1:
                        self._say(f"{told.choice.card.id}: {missed} of {len(every)} runs are not logged. Run it again.")
                    break
        return not any(told.resting for told in self._told)

    @contextmanager
    def watching(self, experiment: Any) -> Iterator[None]:
        """Log an experiment as broken if the block breaks."""
        try:
            yield
        except (Exception, SystemExit) as error:
            self(Failure(experiment, _why(error)))
            raise

    def _tell(self, told: _Told, outcome: Outcome) -> bool:
        """Tell a tracker of a run; returns whether it knows it now."""
        mark = _mark(outcome)
        name = f"{told.choice.card.id}: {_called(outcome)}"
        try:
            with claim(self._folder, told.choice.key, wait=True):
                self._read_logged()
                if mark not in told.logged:
                    told.tracker.log(run := self._run(outcome))
                    told.logged.add(mark)
                    if run.files or run is outcome:  # only what is in the folder is met again
                        self._note(told.choice.key, mark)
            return True
        except (Exception, SystemExit) as error:
            self._say(
                _without_passwords(f"{name} is not logged: {_why(error).rstrip('.')}. The run itself is unharmed.")
            )
            return False

    def _run(self, outcome: Outcome) -> Run:
        if isinstance(outcome, Run):
            return outcome
        if isinstance(outcome, Failure):
            one = outcome.experiment
            return Run.broken(one.identity, one.name, dataset_of(one.data).name, outcome.message)
        pattern = f"*-{outcome.run}{SUFFIX}"
        path = next(chain(self._folder.glob(pattern), self._folder.rglob(pattern)), None)
        files = {} if path is None else {"result.json": path, "model.safetensors": weights_beside(path)}
        return Run.done(outcome, {name: file for name, file in files.items() if file.is_file()})

    def _read_logged(self) -> None:
        """Read what was noted since the last time, by other processes too."""
        path = self._folder / LOGGED
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(self._read)
            lines = file.read().splitlines()
            self._read = file.tell()
        for line in lines:
            try:
                key, *mark = json.loads(line)
                for told in self._told:
                    if told.choice.key == key:
                        told.logged.add(tuple(mark))
            except (ValueError, TypeError, RecursionError):  # a process was killed while it wrote: logged again
                continue

    def _note(self, key: str, mark: tuple[str, str]) -> None:
        with (self._folder / LOGGED).open("a", encoding="utf-8") as file:
            file.write(json.dumps([key, *mark]) + "\n")


def _mark(outcome: Outcome) -> tuple[str, str]:
    """What tells a run from the same run made again."""
    if isinstance(outcome, Run):
        return outcome.id, outcome.finished.isoformat() if outcome.finished else outcome.failure
    if isinstance(outcome, Failure):
        return outcome.experiment.identity.run, outcome.message
    return outcome.run, outcome.finished.isoformat()


def _why(error: BaseException) -> str:
    return str(error) if isinstance(error, MerZooError) else raised(error)


def _called(outcome: Outcome) -> str:
    if isinstance(outcome, Run):
        return f"{outcome.name},"
    if isinstance(outcome, Failure):
        return f"{outcome.experiment.name}, seed {outcome.experiment.seed},"
    return f"{outcome.recipe_name}, seed {outcome.seed},"


def _without_passwords(text: str) -> str:
    """Return a text without what stands before the `@` of its addresses.

    Example:
        >>> _without_passwords("no answer from http://me:secret@host:5000")
        'no answer from http://host:5000'
    """
    return re.sub(r"(?<=://)[^/\s]*@", "", text)
