"""The library in four verbs: load data, train, compare, use what was trained."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_zoo.data.conversation import Dataset

if TYPE_CHECKING:
    from mer_zoo.model.saving import Saved
    from mer_zoo.results.result import Result
    from mer_zoo.training.loop import Outcome, Progress

Data = str | Mapping[str, Any] | Dataset


def load_data(reference: str | Mapping[str, Any]) -> Dataset:
    """Return a dataset by registered name, by `{name: ..., settings}`, or by the folder that `mer-zoo import` made.

    Example:
        >>> load_data("synthetic").widths
        {'text': 32, 'audio': 24, 'visual': 16}
    """
    from mer_zoo.data.loading import load

    return load(reference)


def train(
    recipe: str,
    data: Data = "synthetic",
    *,
    changes: Iterable[str] = (),
    seed: int = 0,
    fold: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Outcome:
    """Train one seed of a recipe; the result is scored on the test split, the epoch chosen on validation.

    Args:
        recipe: a name of `mer-zoo list recipe`, or a YAML file.
        data: a dataset, or what `load_data` takes.
        changes: `key=value` changes of the recipe, such as `training.epochs=5`.
        seed: decides weights, order of dialogues and dropout.
        fold: which fold is the test, for data without a test split (None: the first).
        device: `cpu`, `cuda`, `cuda:1`.
        progress: called after every epoch with its record.

    Raises:
        MerZooError: recipe and data do not fit.

    Example:
        >>> outcome = train("bilstm", changes=["training.epochs=1"])
        >>> outcome.result.epochs_run
        1
    """
    from mer_zoo.training.experiment import prepare

    return prepare(recipe, data, changes=changes, seed=seed, fold=fold, device=device).run(progress)


def compare(
    models: Mapping[str, str | Mapping[str, Any]] | Sequence[str],
    data: str | Mapping[str, Any] | Sequence[str | Mapping[str, Any]] = "synthetic",
    *,
    seeds: int | Sequence[int] = 3,
    change: Mapping[str, Any] | None = None,
    output: str | Path = "runs",
    workers: int | None = None,
    device: str = "cpu",
) -> list[Result]:
    """Train models × datasets × seeds, skipping what the folder already holds; see `comparison_table` for the table.

    Args:
        models: recipe names; or name in the tables -> recipe, or `{recipe, change}`.
        data: one or several of what `load_data` takes.
        seeds: how many, or which.
        change: changes of every recipe, such as `{"training.epochs": 5}`.
        output: folder of the result files.
        workers: processes; None: one per processor.
        device: `cpu`, `cuda`, `cuda:1`.

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
    from mer_zoo.comparison.executing import execute
    from mer_zoo.errors import MerZooError

    named = models if isinstance(models, Mapping) else {name: name for name in models}
    plan = suite.checked(
        {
            "title": "comparison",
            "data": [data] if isinstance(data, str | Mapping) else list(data),
            "models": dict(named),
            "seeds": seeds if isinstance(seeds, int) else list(seeds),
            "change": dict(change or {}),
        }
    )
    results, failures = execute(suite.experiments(plan, device=device), Path(output), workers=workers)
    if failures:
        lines = "\n".join(f"{f.experiment.name}, seed {f.experiment.seed}: {f.message}" for f in failures)
        raise MerZooError(
            f"{len(failures)} of {len(results) + len(failures)} runs broke; the others are kept:\n{lines}"
        )
    return results


def load_model(path: str | Path, device: str = "cpu", trust: Collection[str] = ()) -> Saved:
    """Return a model that `mer-zoo train` saved; its `predict` takes conversations.

    Args:
        path: a `.safetensors` file, or the `.result.json` beside it.
        device: where to put it.
        trust: parts by file or module that may be run, such as `./mine.py:Mine`; no other code of that kind is.
    """
    from mer_zoo.model.saving import load

    return load(path, device, trust)
