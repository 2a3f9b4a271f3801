"""A trained model as a folder to hand on: its model file, its recipe as YAML, and a model card."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from pathlib import Path

import yaml

from mer_zoo.comparison.model_card import card
from mer_zoo.errors import MerZooError
from mer_zoo.model import onnx as carried
from mer_zoo.model.saving import IN_FOLDER, load, refuse_another
from mer_zoo.results.result import SUFFIX, Result, read_result
from mer_zoo.results.writing import beside, check_writable
from mer_zoo.training.experiment import weights_beside


def export(run: Path, to: Path, *, onnx: bool = False, trust: Collection[str] = ()) -> Path:
    """Write the folder of a run, whole or not at all, and return it; without `onnx`, no part of the model is run.

    Args:
        run: a result file whose weights lie beside it, or those weights.
        to: the folder, which must not exist yet.
        onnx: write `model.onnx` too.
        trust: parts by file or module that may be run for it.

    Raises:
        MerZooError: no weights, weights of another run, a learner, a folder that is there already, or a model that
            ONNX cannot hold.
    """
    if trust and not onnx:
        raise MerZooError("trust: no part is run without `onnx`. Leave it out, or ask for ONNX (`--onnx`).")
    if run.suffix == ".safetensors":
        run = run.with_name(run.stem + SUFFIX)
    result, weights = read_result(run), weights_beside(run)
    if "learner" in result.recipe:
        raise MerZooError(f"{run}: a learner has no weights to hand on; it is fitted again. Export a run of a model.")
    if not weights.is_file():
        raise MerZooError(f"{run}: no weights beside it ({weights.name}). Repeat the run with --keep-weights.")
    if os.path.lexists(to):
        raise MerZooError(f"{to}: exists already, so it is left alone. Name a new folder.")
    check_writable(to.absolute().parent)
    temporary = beside(to.absolute())
    try:
        temporary.mkdir()
        shutil.copyfile(weights, temporary / IN_FOLDER)
        refuse_another(temporary / IN_FOLDER, result.run, result.recipe, result.dataset.label_names)
        (temporary / "recipe.yaml").write_text(recipe_text(result), encoding="utf-8")
        if onnx:
            carried.write(load(temporary / IN_FOLDER, trust=trust), temporary / "model.onnx")
        (temporary / "README.md").write_text(card(result, onnx=onnx), encoding="utf-8")
        temporary.rename(to)
    except OSError as error:
        raise MerZooError(f"{to}: cannot be written ({error.strerror}). Choose another folder.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return to


def recipe_text(result: Result) -> str:
    """Return the filled recipe of a run as YAML that `mer-zoo train` takes."""
    plan = {key: value for key, value in result.recipe.items() if key != "code"}
    return yaml.safe_dump({"title": result.recipe_name, **plan}, sort_keys=False, allow_unicode=True)
