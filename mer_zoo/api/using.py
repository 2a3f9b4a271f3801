"""Use what was trained: load it, hand it on, look into it."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from mer_zoo.data.conversation import Conversation

if TYPE_CHECKING:
    import numpy as np

    from mer_zoo.inside.attention import Attention
    from mer_zoo.inside.contributions import Contributions
    from mer_zoo.model.saving import Saved
    from mer_zoo.training.loop import Outcome

    Model = Outcome | Saved | str | os.PathLike[str]


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
        >>> import mer_zoo
        >>> outcome = mer_zoo.train("mlp", change={"training.epochs": 1})
        >>> sorted(onnx_inputs(outcome, mer_zoo.load_data("synthetic")["test-0"]))
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
        >>> import mer_zoo
        >>> outcome = mer_zoo.train("amb_dsgdn", change={"training.epochs": 1})
        >>> found = attention(outcome, mer_zoo.load_data("synthetic")["test-0"])
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
        >>> import mer_zoo
        >>> outcome = mer_zoo.train("bilstm", change={"training.epochs": 1})
        >>> found = contributions(outcome, mer_zoo.load_data("synthetic")["test-0"])
        >>> list(found.contributions), found.own_heads
        (['text', 'audio', 'visual'], False)
    """
    from mer_zoo.inside.contributions import contributions

    return contributions(_saved(model), conversation, device)


def _saved(model: Model) -> Saved:
    """Return a trained model with all it takes to use it."""
    from mer_zoo.model.saving import Saved
    from mer_zoo.training.loop import Outcome

    if isinstance(model, Outcome):
        return model.saved
    return model if isinstance(model, Saved) else load_model(os.fspath(model))
