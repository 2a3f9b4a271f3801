"""The progress bar of `train` and `compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mer_zoo.commands import terminal

if TYPE_CHECKING:
    from mer_zoo.comparison.executing import Failure
    from mer_zoo.results.result import Result
    from mer_zoo.training.experiment import Experiment


class Bar:
    """A progress bar over epochs or runs, on standard error.

    Args:
        total: steps.
        what: is counted.
    """

    def __init__(self, total: int, what: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.table import Column

        self._console = terminal.console(stderr=True)
        room = {"fields[note]": max(16, self._console.width - 56)}  # a long name must not push the rate aside
        name, rate, note = (
            TextColumn(f"{{task.{text}}}", markup=False, table_column=Column(no_wrap=True, max_width=room.get(text)))
            for text in ("description", "fields[rate]", "fields[note]")
        )
        columns = (name, BarColumn(bar_width=8), MofNCompleteColumn(), TimeElapsedColumn(), rate, note)
        self._before = self._failed = 0
        self._total, self._first = total, True
        self._progress = Progress(*columns, console=self._console)
        self._task = self._progress.add_task(what, total=total, rate="", note="")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def epoch(self, record: dict[str, Any]) -> None:
        """Count an epoch; a resumed run begins behind those that it has already."""
        if self._first and record["epoch"]:
            self.start(self._total, record["epoch"])
            self.say(f"Goes on behind epoch {record['epoch'] - 1}.")
        self._first = False
        self._advance(_noted(record))

    def count(self, note: str) -> None:
        """Count a step, and say what it brought."""
        self._advance(note)

    def start(self, total: int, done: int) -> None:
        """Set how many runs there are, and how many are there already."""
        self._before = done
        self._progress.update(self._task, total=total, completed=done, note=f"{done} already there" if done else "")

    def epoch_of_run(self, experiment: Experiment, record: dict[str, Any]) -> None:
        """Show how a run goes on; several seeds may train at once."""
        self._progress.update(self._task, note=f"{experiment.name}, epoch {record['epoch'] + 1}, {_noted(record)}")

    def run(self, outcome: Result | Failure) -> None:
        """Count a run; why it failed is said at once, whatever happens to the others."""
        experiment = getattr(outcome, "experiment", None)
        if experiment is None:
            note = f"{outcome.recipe_name}, seed {outcome.seed}: weighted F1 {outcome.metrics.test.weighted_f1:.3f}"  # type: ignore[union-attr]
        else:
            self._failed += 1
            note = f"{experiment.name}, seed {experiment.seed}: failed"
            self.say(outcome.broken.told)  # type: ignore[union-attr]
        self._advance(f"{self._failed} failed so far; {note}" if self._failed else note)

    def _advance(self, note: str) -> None:
        """Count a step, and say what a step takes and when all are done."""
        from mer_zoo.comparison.forecast import clock

        self._progress.update(self._task, advance=1, note=note)
        task = next(one for one in self._progress.tasks if one.id == self._task)
        each = (task.elapsed or 0.0) / max(1, task.completed - self._before)
        left = "" if task.finished else f", {clock(each * (task.remaining or 0))} left"
        self._progress.update(self._task, rate=f"{clock(each)} each{left}")

    def say(self, message: str) -> None:
        """Print a message above the bar."""
        self._console.print(message, soft_wrap=True)


def _noted(record: dict[str, Any]) -> str:
    loss, score = record["train_loss"], record["validation_weighted_f1"]
    return f"seed {record['seed']}: loss {loss:.3f}, validation weighted F1 {score:.3f}"
