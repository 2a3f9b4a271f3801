"""Sound examples of every kind of file, as trees."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch

from fuzzing import formats
from mer_zoo import registry
from mer_zoo.data import container
from mer_zoo.data.conversation import Dataset
from mer_zoo.data.pickles import MELD_SPEAKERS
from mer_zoo.data.synthetic import synthetic
from mer_zoo.errors import MerZooError
from mer_zoo.model import filling, recipe, saving
from mer_zoo.model.assembly import assemble
from mer_zoo.parts.importer.base import EXAMPLE
from mer_zoo.registry import document, resources
from mer_zoo.training import checkpoint
from mer_zoo.training.engines import OneSeed, batches_of
from mer_zoo.training.experiment import keep, prepare
from mer_zoo.training.holding import shared_generators
from mer_zoo.training.loop import Past, SeedRecord

HERE = Path(__file__).resolve().parent
RECIPES = (
    "bilstm",
    "amb_dsgdn",
    "dialoguegcn",
    "mmgcn",
    "majority",
    "mm_dfn",
    "dag_erc",
    "sdt",
    "dialoguernn",
    "cogmen",
)
SAVED = {
    "bilstm": {"model.context.encoder.hidden": 3, "normalise": "train"},
    "dialoguegcn": {},
    "mmgcn": {},
}
KEPT: dict[str, dict[str, Any]] = {
    "mlp": {},
    "bilstm": {"model.context.encoder.hidden": 3, "training.optimizer": "sgd"},
}
MAPPED = ("bclstm", "dialoguernn", "dagerc", "amb_dsgdn_meld")


@functools.cache
def tiny() -> Dataset:
    """Return a dataset on which everything runs in a moment."""
    return synthetic(dialogues=(12, 6, 6), utterances=(2, 4), widths=(6, 5, 5), speakers=2, emotions=("a", "b", "c"))


def _plain(path: Path) -> Any:
    return document.read(path).data


def recipes() -> list[Any]:
    """Return recipes that ship."""
    found = [_plain(recipe.find(name)) for name in RECIPES]
    for name, one in zip(RECIPES, found, strict=True):
        if "extends" in one:
            one["extends"] = f"{name}/{one['extends'].removesuffix('.yaml')}"
    return found


def overrides(tiny: Dataset) -> list[Any]:
    """Return every setting of the recipes: as a mapping of one path to its value."""
    found = []
    for name in RECIPES:
        plan = filling.fill(recipe.read(name), tiny.widths).plain()
        for path, value in _leaves(plan):
            with contextlib.suppress(MerZooError):  # of repeated stages the recipe names but one
                prepare(name, tiny, changes={".".join(path): value})
                found.append({"recipe": name, "change": {".".join(path): value}})
    return found


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> Any:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, (*path, key))
    else:
        yield path, tree


def suites() -> list[Any]:
    """Return suites that ship, cut short."""
    found = [_plain(path) for path in sorted((resources.folder("baselines") / "suites").glob("*.yaml"))]
    data = {"name": "synthetic", "dialogues": [12, 6, 6], "utterances": [2, 4], "widths": [8, 8, 8], "speakers": 2}
    for one in found:
        few = dict(list(one["models"].items())[:2])
        one.update(data=[data], models=few, seeds=2, split={"test": "folds", "folds": 2, "share": 0.2, "seed": 1})
        one.pop("baseline", None)
    return [*found, {**found[0], "baseline": next(iter(found[0]["models"])), "split": {}, "protocol": "test-oracle"}]


def dataset_settings() -> list[Any]:
    """Return datasets by name with their settings."""
    small = {
        "name": "synthetic",
        "dialogues": [12, 6, 6],
        "utterances": [2, 4],
        "widths": [6, 5, 5],
        "emotions": ["a", "b", "c"],
    }
    more = {"hold": 0.1, "signal": 1.5, "dominance": 0.35, "complementarity": 0.5}
    more |= {"inertia": 0.9, "contagion": 0.04, "distractor": 0.7, "persistence": 0.95, "failure": 0.3, "seed": 1}
    return [
        {**small, "speakers": 3, **more},
        {**small, "fails": ["text", "audio"], "fails_in": ["train"], "failure": 1.0},
    ]


def cards() -> list[Any]:
    """Return cards that ship, with all that a card can say."""
    paths = sorted((resources.folder("registry") / "fusion").glob("*.yaml"))
    return [{**_plain(path), "aliases": ["old"], "tags": ["a"], "version": 2, "promises": ["causal"]} for path in paths]


def results(tiny: Dataset) -> list[Any]:
    """Return what result files hold."""
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for name, protocol in (("majority", "validation"), ("bilstm", "test-oracle")):
            changes = ["training.epochs=2"] if name == "bilstm" else []
            experiment = prepare(name, tiny, changes=changes, protocol=protocol)
            found.append(json.loads(keep(experiment, experiment.run(), Path(folder)).read_text(encoding="utf-8")))
    return found


def models(tiny: Dataset) -> list[Any]:
    """Return what model files hold."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        for name, changes in SAVED.items():
            experiment = prepare(name, tiny, changes=changes)
            task = experiment.task()
            model = assemble(experiment.plan, task.facts)
            normaliser = task.normaliser
            saving.save(saving.Saved(model, name, experiment.plan, tiny.label_names, "0" * 16, normaliser), path)
            found.append(formats.safetensors_tree(path.read_bytes()))
    return found


def checkpoints(tiny: Dataset) -> list[Any]:
    """Return what checkpoints hold: the run, the state, and the other arrays."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for keeper in (keeper_of(Path(folder) / f"{name}.checkpoint", name, tiny) for name in KEPT):
            assert keeper.holding is not None
            checkpoint.write(keeper.path, keeper.run, *keeper.holding.take())
            run, arrays = checkpoint.opened(keeper.path)
            state = json.loads(arrays.pop(checkpoint.STATE).numpy().tobytes())
            arrays = formats.safetensors_tree(safetensors.torch.save(arrays))
            found.append({"run": run, "state": state, "arrays": arrays})
    return found


def keeper_of(path: Path, name: str, tiny: Dataset) -> checkpoint.Keeper:
    """Return what reads and writes the checkpoint of a run of a recipe, which has trained an epoch."""
    experiment = prepare(name, tiny, changes=KEPT[name])
    task = experiment.task()
    engine = OneSeed(task, [0], [batches_of(task.train, 0, 1, 16)], experiment.options)
    engine.epoch(0)
    run = checkpoint.bound(experiment.identity, [0], experiment.options, "cpu")
    roots = {**engine.roots(), "past": Past([SeedRecord(0)]), "generators": shared_generators("cpu")}
    return checkpoint.Keeper(path, run, roots, "cpu", checkpoint.Checkpoints(path.parent))


def parities() -> list[Any]:
    """Return parity files, their arrays by name."""
    found = []
    for name in MAPPED:
        with np.load(HERE.parent / "parity" / f"{name}.npz") as archive:
            arrays = {key: archive[key] for key in archive.files}
        found.append({"name": name, "arrays": {**arrays, "meta": json.loads(str(arrays["meta"]))}})
    return found


def containers(tiny: Dataset) -> list[Any]:
    """Return datasets on disk: the manifest, and the features."""
    dialogues = [
        dataclasses.replace(
            one,
            transcript=tuple("abcd"[: len(one)]),
            present={"audio": np.arange(len(one)) > 0},
            targets={"sentiment": np.zeros(len(one), np.int64)},
            roles=("M", "F"),
        )
        for one in tiny
    ]
    found = []
    for splits in (tiny.splits, {"all": tuple(one.id for one in tiny)}):
        with tempfile.TemporaryDirectory() as home:
            folder = container.write_dataset(Dataset("tiny", tuple(dialogues), tiny.label_names, splits), f"{home}/x")
            manifest = json.loads((folder / container.MANIFEST).read_bytes())
            features = formats.safetensors_tree((folder / container.FEATURES).read_bytes())
        written = formats.safetensors_of(None, features)
        manifest["features_sha256"] = hashlib.sha256(written).hexdigest()
        found.append({"manifest": manifest, "features": features})
    return found


def tables() -> list[Any]:
    """Return the columns of `.npz` files."""
    draw = np.random.default_rng(0)
    table = {
        "dialogue": np.repeat(list("abcdefgh"), 3),
        "turn": np.tile(np.arange(3), 8),
        "split": np.repeat(["train"] * 5 + ["dev"] + ["test"] * 2, 3),
        "label": draw.integers(0, 3, 24),
        "text": draw.normal(size=(24, 4)).astype(np.float32),
    }
    more = {
        "audio": draw.normal(size=(24, 2)),
        "audio_present": np.arange(24) > 2,
        "transcript": np.array(["hello"] * 24),
        "speaker": np.array(["A", "B", "A"] * 8),
        "label_names": np.array(["sad", "happy", "calm"]),
    }
    return [table, {**table, **more}]


def pickled(layout: Any) -> Any:
    """Return a released pickle's content for three dialogues."""
    draw = np.random.default_rng(0)
    ids = [f"d{number}" for number in range(3)]

    def part(name: str) -> Any:
        if name in ("train", "test"):
            return ids[:2] if name == "train" else ids[2:]
        if name in layout.widths:
            return {key: list(draw.normal(size=(2, layout.widths[name])).astype(np.float32)) for key in ids}
        if name == "speakers":
            one = [np.eye(MELD_SPEAKERS)[0].tolist()] * 2 if layout.one_hot_speakers else ["M", "F"]
            return dict.fromkeys(ids, one)
        if name in ("labels", "sentiment"):
            return {key: [0, 1] for key in ids}
        if name == "transcript":
            return {key: ["hello", "you"] for key in ids}
        return {key: ["u"] for key in ids}

    return tuple(part(name) for name in layout.parts)


def rows() -> list[dict[str, Any]]:
    """Return the rows of a table of six dialogues."""
    return [{**row, "dialogue": f"d{number}"} for number in range(6) for row in EXAMPLE[:3]]


def examples(known: set[str]) -> list[tuple[str, str, bytes]]:
    """Return (name, name of the file, its content) of the importers that are not known, each by its own example."""
    found = []
    for card in registry.cards("importer"):
        if card.name not in known:
            with tempfile.TemporaryDirectory() as folder:
                path = registry.build(card, {}, {}).example(Path(folder))
                found.append((card.name, path.name, path.read_bytes()))
    return found
