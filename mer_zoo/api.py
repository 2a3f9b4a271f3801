"""The library in four verbs: load data, train, compare, use what was trained."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mer_zoo.data.conversation import Conversation, Dataset
from mer_zoo.errors import MerZooError

if TYPE_CHECKING:
    import numpy as np

    from mer_zoo.comparison.results import Results
    from mer_zoo.comparison.tracking import Tracking
    from mer_zoo.inside.attention import Attention
    from mer_zoo.inside.contributions import Contributions
    from mer_zoo.model.saving import Saved
    from mer_zoo.training.loop import Outcome, Progress

    Model = Outcome | Saved | str | os.PathLike[str]

Recipe = str | os.PathLike[str] | Mapping[str, Any]
"""A name of `mer-zoo list recipe`, a YAML file, or what stands in one as a mapping."""

Data = str | os.PathLike[str] | Mapping[str, Any] | Dataset | Any
"""A registered name, the folder that `mer-zoo import` made, `{name: ..., settings}`, a dataset, or a data frame of
pandas or polars with a row per utterance, see `from_dataframe`."""

Change = Mapping[str, Any] | Iterable[str]
"""What is set anew in a recipe: `{"training.epochs": 5}`, or `["training.epochs=5"]`."""


Track = str | Mapping[str, Any] | Iterable[str | Mapping[str, Any]]
"""Where runs are logged: a name of `mer-zoo list tracker`, `{name: ..., settings}`, or several of these."""


def load_data(reference: str | Mapping[str, Any]) -> Dataset:
    """Return a dataset by registered name, by `{name: ..., settings}`, or by the folder that `mer-zoo import` made.

    Example:
        >>> load_data("synthetic").widths
        {'text': 32, 'audio': 24, 'visual': 16}
    """
    from mer_zoo.data.loading import load

    return load(reference)


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
    experiment = prepare(recipe, _data(data), changes=change, seed=seed, fold=fold, device=device, options=options)
    checkpoints = None
    if resume is not None:
        check_writable(Path(resume))
        checkpoints = Checkpoints(Path(resume), strict=True)
    tracking = _tracking(track, Path("runs"))
    with tracking.watching(experiment):
        outcome = experiment.run(progress, checkpoints)
    tracking.finish([outcome.result])
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
            "data": [_called(_data(one), kept) for one in (data if isinstance(data, list | tuple) else [data])],
            "models": {name: _path(one) for name, one in _named(models).items()},
            "seeds": seeds if isinstance(seeds, int) else list(seeds),
            "change": {change.key: change.value for change in changes_from(change)},
        }
    )
    options = ComputeOptions(contributions=contributions)
    experiments = suite.experiments(plan, device=device, options=options, datasets=kept)
    tracking = _tracking(track, Path(output))
    results, failures = execute(experiments, Path(output), workers=workers, listener=tracking.listener(Listener()))
    tracking.finish([*results, *failures])
    if failures:
        lines = "\n".join(f"{f.experiment.name}, seed {f.experiment.seed}: {f.message}" for f in failures)
        raise MerZooError(
            f"{len(failures)} of {len(results) + len(failures)} runs broke; the others are kept:\n{lines}"
        )
    return Results(results)


def load_model(path: str | Path, device: str = "cpu", trust: Collection[str] = ()) -> Saved:
    """Return a model that `mer-zoo train` saved; its `predict` takes conversations.

    Args:
        path: a `.safetensors` file, the `.result.json` beside it, or a folder that `export` wrote.
        device: where to put it.
        trust: parts by file or module that may be run, such as `./mine.py:Mine`; no other code of that kind is.
    """
    from mer_zoo.model.saving import load

    return load(path, device, trust)


def export(
    run: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    onnx: bool = False,
    trust: Collection[str] = (),
) -> Path:
    """Write a trained model into a folder that others can use: weights, recipe, and a model card for the model hub.

    Args:
        run: a `.result.json` whose weights lie beside it, or those weights.
        to: the folder, which must not exist yet. `load_model` reads it.
        onnx: write `model.onnx` too, checked against the model; `onnx_inputs` makes its inputs.
        trust: parts by file or module that may be run for it, as of `load_model`.

    Returns:
        the folder.

    Raises:
        MerZooError: no weights, weights of another run, a folder that is there already, or a model that ONNX cannot
            hold.

    Example:
        >>> import tempfile
        >>> from mer_zoo.training.experiment import keep, prepare
        >>> one = prepare("bilstm", "synthetic", changes=["training.epochs=1"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = keep(one, one.run(), Path(folder), weights=True)
        ...     sorted(file.name for file in export(path, Path(folder) / "model").iterdir())
        ['README.md', 'model.safetensors', 'recipe.yaml']
    """
    from mer_zoo.comparison.exporting import export

    return export(Path(run), Path(to), onnx=onnx, trust=trust)


def onnx_inputs(model: Model, conversation: Conversation) -> dict[str, np.ndarray]:
    """Return one dialogue as the `model.onnx` of an exported model takes it.

    Args:
        model: what `train` or `load_model` returned, or a model's file or folder.
        conversation: the dialogue, with the features that the model was trained on.

    Returns:
        `features.MODALITY`: float32 `[utterances, width]`, NaN where absent; `speaker`: int64 `[utterances]`, numbered
        by first appearance; for models with a graph `edges`: int64 `[3, edges]`, source, target and relation, a node
        being `utterance * node types + node type`.

    Raises:
        MerZooError: a modality is missing, or has another width.

    Example:
        >>> outcome = train("mlp", change={"training.epochs": 1})
        >>> sorted(onnx_inputs(outcome, load_data("synthetic")["test-0"]))
        ['features.audio', 'features.text', 'features.visual', 'speaker']
    """
    from mer_zoo.model.onnx import inputs

    return inputs(_saved(model), conversation)


def attention(model: Model, conversation: Conversation, device: str = "cpu") -> Attention:
    """Return what every attention of a model looked at in one dialogue, as arrays that print, tabulate and plot.

    Args:
        model: what `train` or `load_model` returned, or a model's file.
        conversation: the dialogue, with the features that the model was trained on.
        device: `cpu`, `cuda`, `cuda:1`.

    Returns:
        `Attention`: a map per attention, with both maps and their difference of differential ones.

    Raises:
        MerZooError: the model has no attention between utterances, or cannot be used on this dialogue.

    Example:
        >>> outcome = train("amb_dsgdn", change={"training.epochs": 1})
        >>> found = attention(outcome, load_data("synthetic")["test-0"])
        >>> [one.name for one in found.at("same_speaker", "text")][:3]
        ['map 1', 'map 2', 'difference']
    """
    from mer_zoo.inside.attention import attention

    return attention(_saved(model), conversation, device)


def contributions(model: Model, conversation: Conversation, device: str = "cpu") -> Contributions:
    """Return what each modality says of every utterance of a dialogue, alone and to the model's decision.

    Args:
        model, conversation, device: as of `attention`.

    Returns:
        `Contributions`, which says how they are defined.

    Raises:
        MerZooError: the model cannot be used on this dialogue.

    Example:
        >>> outcome = train("bilstm", change={"training.epochs": 1})
        >>> found = contributions(outcome, load_data("synthetic")["test-0"])
        >>> list(found.contributions), found.own_heads
        (['text', 'audio', 'visual'], False)
    """
    from mer_zoo.inside.contributions import contributions

    return contributions(_saved(model), conversation, device)


def _tracking(track: Track, folder: Path) -> Tracking:
    """Return what tells trackers of runs, and warns of those that fail."""
    from mer_zoo.comparison.tracking import Tracking, choose

    return Tracking(choose(track), folder, lambda message: warnings.warn(message, stacklevel=2))


def _data(data: Data) -> Any:
    """Return data as `prepare` takes it."""
    if isinstance(data, Dataset | Mapping | str):
        return data
    if isinstance(data, os.PathLike):
        return os.fspath(data)
    from mer_zoo.data.frames import from_dataframe

    return from_dataframe(data)


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


def _saved(model: Model) -> Saved:
    """Return a trained model with all it takes to use it."""
    from mer_zoo.model.saving import Saved
    from mer_zoo.training.loop import Outcome

    if isinstance(model, Outcome):
        return model.saved
    return model if isinstance(model, Saved) else load_model(os.fspath(model))
