"""Train, compare and tune recipes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_zoo.api.given import Change, Data, Recipe, Track, plain_data, tracking
from mer_zoo.data.conversation import Dataset
from mer_zoo.errors import MerZooError

if TYPE_CHECKING:
    from mer_zoo.comparison.results import Results
    from mer_zoo.training.loop import Outcome, Progress
    from mer_zoo.tuning.summary import Found


def train(
    recipe: Recipe,
    data: Data = "synthetic",
    *,
    change: Change = (),
    seed: int = 0,
    fold: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    contributions: bool = False,
    track: Track = (),
    resume: str | os.PathLike[str] | None = None,
) -> Outcome:
    """Train one seed of a recipe; the result is scored on the test split, the epoch chosen on validation.

    Args:
        recipe: see `Recipe`.
        data: see `Data`.
        change: what is set anew in the recipe, see `Change`.
        seed: decides weights, order of dialogues and dropout.
        fold: which fold is the test, for data without a test split (None: the first).
        device: `cpu`, `cuda`, `cuda:1`.
        progress: called after every epoch with its record.
        contributions: also note after every epoch what each modality contributes on validation, for the report.
        track: see `Track`; what trackers write goes into `runs`. One that fails is warned of.
        resume: a folder for a checkpoint, written every few epochs and removed at the end; where one of this run is
            there, training goes on from it, to the bit. None: there is none.

    Returns:
        `Outcome`: the model and its result; print it, or let a notebook show it.

    Raises:
        MerZooError: recipe and data do not fit, the checkpoint is of another run, or no contributions can be noted.

    Example:
        >>> outcome = train("bilstm", change={"training.epochs": 1})
        >>> outcome.result.epochs_run
        1
    """
    from mer_zoo.results.writing import check_writable
    from mer_zoo.training.checkpoint import Checkpoints, remove
    from mer_zoo.training.experiment import prepare
    from mer_zoo.training.options import ComputeOptions

    options = ComputeOptions(contributions=contributions)
    experiment = prepare(recipe, plain_data(data), changes=change, seed=seed, fold=fold, device=device, options=options)
    checkpoints = None
    if resume is not None:
        check_writable(Path(resume))
        checkpoints = Checkpoints(Path(resume), strict=True)
    told = tracking(track, Path("runs"))
    with told.watching(experiment):
        outcome = experiment.run(progress, checkpoints)
    told.finish([outcome.result])
    if resume is not None:
        remove(Path(resume), outcome.result)
    return outcome


def compare(
    models: Mapping[str, Recipe] | Sequence[Recipe],
    data: Data | Sequence[Data] = "synthetic",
    *,
    seeds: int | Sequence[int] = 3,
    change: Change = (),
    output: str | Path = "runs",
    workers: int | None = None,
    device: str = "cpu",
    contributions: bool = False,
    track: Track = (),
) -> Results:
    """Train models × datasets × seeds, skipping what the folder already holds.

    Args:
        models: recipes; or name in the tables -> recipe, or `{recipe, change}`.
        data: one or several, see `Data`.
        seeds: how many, or which.
        change: what is set anew in every recipe, see `Change`.
        output: folder of the result files.
        workers: processes; None: one per processor.
        device: `cpu`, `cuda`, `cuda:1`.
        contributions: as of `train`; models of which none can be noted are warned of.
        track: see `Track`. A tracker that fails is warned of.

    Returns:
        `Results`, a list: print it, or let a notebook show it, and it is a table; `write_html` makes a report.

    Raises:
        MerZooError: a recipe and a dataset do not fit; nothing is trained then. Broken runs are reported at the end.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = compare(["bilstm"], seeds=1, change={"training.epochs": 1}, output=folder, workers=1)
        >>> [result.recipe_name for result in found]
        ['bilstm']
    """
    from mer_zoo.comparison import suite
    from mer_zoo.comparison.executing import Listener, execute
    from mer_zoo.comparison.results import Results
    from mer_zoo.model.changes import changes_from
    from mer_zoo.training.options import ComputeOptions

    kept: dict[str, Dataset] = {}
    plan = suite.checked(
        {
            "title": "comparison",
            "data": [_called(plain_data(one), kept) for one in (data if isinstance(data, list | tuple) else [data])],
            "models": {name: _path(one) for name, one in _named(models).items()},
            "seeds": seeds if isinstance(seeds, int) else list(seeds),
            "change": {change.key: change.value for change in changes_from(change)},
        }
    )
    options = ComputeOptions(contributions=contributions)
    experiments = suite.experiments(plan, device=device, options=options, datasets=kept)
    told = tracking(track, Path(output))
    results, failures = execute(experiments, Path(output), workers=workers, listener=told.listener(Listener()))
    told.finish([*results, *failures])
    if failures:
        lines = "\n".join(failure.broken.told for failure in failures)
        raise MerZooError(
            f"{len(failures)} of {len(results) + len(failures)} runs broke; the others are kept:\n{lines}"
        )
    return Results(results)


def tune(
    recipe: Recipe,
    data: Data = "synthetic",
    *,
    trials: int = 60,
    seeds: int = 1,
    keys: Sequence[str] | None = None,
    change: Change = (),
    output: str | Path = "runs",
    workers: int | None = None,
    device: str = "cpu",
    track: Track = (),
) -> Found:
    """Search settings and parts of a recipe by Optuna, on validation dialogues alone.

    Given again, it goes on from the trials that the folder holds. What the best is worth on test, `compare` says.

    Args:
        recipe: see `Recipe`; its `search` block, or the types of its settings, say what may be changed.
        data: see `Data`; of data that is cross-validated, the first fold.
        trials: that train, the recipe as it is first.
        seeds: of a trial; their mean is its score.
        keys: patterns of keys of the recipe, such as `training.*`; None: all that may be changed.
        change: what is set anew in the recipe, and not searched, see `Change`.
        output: folder of the trials.
        workers: processes; None: one per processor.
        device: `cpu`, `cuda`, `cuda:1`.
        track: see `Track`; a trial is a run. A tracker that fails is warned of.

    Returns:
        `Found`: all trials; print it. Its `change` makes the best one of the recipe.

    Raises:
        MerZooError: nothing to search, Optuna is not installed, or no trial came to its end.

    Example:
        >>> import tempfile
        >>> fast = {"training.epochs": 1}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = tune("bilstm", trials=2, keys=["training.*"], change=fast, output=folder, workers=1)
        ...     outcome = train("bilstm", change={**fast, **found.change})
        >>> len(found.trials)
        2
    """
    from mer_zoo.results.writing import check_writable
    from mer_zoo.tuning import summary
    from mer_zoo.tuning.search import Search
    from mer_zoo.tuning.trials import run

    how: dict[str, Any] = {"changes": change, "keys": keys, "seeds": seeds, "trials": trials, "device": device}
    search = Search.of(recipe, plain_data(data), folder=Path(output), **how)
    check_writable(Path(output))
    told = tracking(track, Path(output))
    run(search, workers=workers, watch=lambda trial: told(summary.tracked(search, trial)))
    told.finish([summary.tracked(search, trial) for trial in search.trained()])
    return summary.found(search)


def _called(data: Any, kept: dict[str, Dataset]) -> Any:
    """Return data as a suite names it; a dataset is kept under its name."""
    if not isinstance(data, Dataset):
        return data
    from mer_zoo.data.container import fingerprint_of

    name = f"{data.name} {(data.fingerprint or fingerprint_of(data))[:8]}"
    kept[name] = data
    return name


def _named(models: Mapping[str, Recipe] | Sequence[Recipe]) -> dict[str, Recipe]:
    """Return recipes by what tables call them."""
    if isinstance(models, Mapping):
        return dict(models)
    if isinstance(models, str | os.PathLike):
        raise MerZooError(f"models: '{os.fspath(models)}' is one. Give a list: [{os.fspath(models)!r}].")
    from mer_zoo.comparison.rows import expanded
    from mer_zoo.model.recipe import called

    models = [name for one in models for name in (expanded(one, "models") if isinstance(one, str) else [one])]
    names = [called(one) for one in models]
    if twice := [name for name in names if names.count(name) > 1]:
        raise MerZooError(f"models: two are called '{twice[0]}'. Give a mapping from names to recipes.")
    return dict(zip(names, models, strict=True))


def _path(model: Any) -> Any:
    """Return a model as a suite has it: paths are texts there."""
    return os.fspath(model) if isinstance(model, os.PathLike) else model
