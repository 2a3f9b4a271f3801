"""Event files for TensorBoard."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from mer_zoo.parts.tracker.base import imported
from mer_zoo.results.run import Run


class Tensorboard:
    """Event files in a folder per run: curves over epochs, a row of the table of settings (HParams), names of files.

    Look at them by `tensorboard --logdir FOLDER`. Nothing but files is touched.

    Args:
        results: folder of the result files (a fact).
        folder: where the event files go; by default `tensorboard` beside the result files.

    Raises:
        MerZooError: TensorBoard is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as home:
        ...     Tensorboard(home).log(Run("f00d", "mine", {}, epochs={0: {"train_loss": 0.5}}))
        ...     [path.name for path in Path(home).glob("tensorboard/*")]
        ['mine-f00d']
    """

    def __init__(self, results: str, *, folder: str | None = None) -> None:
        self._writer = imported("torch.utils.tensorboard").SummaryWriter
        self._hparams = imported("torch.utils.tensorboard.summary").hparams
        self.folder = Path(results, "tensorboard") if folder is None else Path(folder)

    def log(self, run: Run) -> None:
        """Write the files of a run, instead of earlier ones of the same id."""
        for path in self.folder.glob(f"*-{run.id}/events.out.tfevents.*"):
            path.unlink()
            with suppress(OSError):  # another file is in it
                path.parent.rmdir()
        when = run.finished.timestamp() if run.finished else None
        with self._writer(str(self.folder / run.file_name)) as writer:
            for step, numbers in run.epochs.items():
                for name, value in numbers.items():
                    writer.add_scalar(name, value, step, walltime=when)
            for name, value in run.measures.items():
                writer.add_scalar(name, value, run.chosen_epoch, walltime=when)
            settings = {name: str(value) if value is None else value for name, value in run.settings.items()}
            for summary in self._hparams(settings | {"failed": bool(run.failure)}, dict(run.measures)):
                writer.file_writer.add_summary(summary)
            lines = [f"failed: {run.failure}"] if run.failure else [str(path) for path in run.files.values()]
            writer.add_text("failure" if run.failure else "files", "  \n".join(lines), run.chosen_epoch, walltime=when)
