"""What is fuzzed: every kind of file that a user may be handed, sound examples of it, and all that is done with one."""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from fuzzing import formats
from fuzzing.mutations import damaged, mutated, one_of
from hypothesis import strategies as st
from rich.console import Console

from mer_zoo.comparison import suite as suites
from mer_zoo.comparison.report import comparison_table, write_html
from mer_zoo.comparison.summary import write_csv
from mer_zoo.comparison.table import latex, markdown
from mer_zoo.data import container
from mer_zoo.data.conversation import Dataset
from mer_zoo.data.importing import LAYOUTS, import_dataset
from mer_zoo.data.loading import load
from mer_zoo.data.pickles import MELD_SPEAKERS, PICKLE_LAYOUTS
from mer_zoo.data.splits import split_dataset
from mer_zoo.data.synthetic import synthetic
from mer_zoo.data.validation import describe_dataset, render_report
from mer_zoo.errors import MerZooError
from mer_zoo.model import filling, parity, recipe, saving
from mer_zoo.model.assembly import assemble
from mer_zoo.registry import document, resources
from mer_zoo.registry.cards import read_card
from mer_zoo.results.identity import Identity
from mer_zoo.results.result import read_result
from mer_zoo.training.experiment import keep, prepare

HERE = Path(__file__).resolve().parent
RECIPES = ("bilstm", "amb_dsgdn", "dialoguegcn", "mmgcn", "majority", "mm_dfn", "dag_erc", "sdt", "dialoguernn", "cogmen")
SAVED = {
    "bilstm": {"model.context.encoder.hidden": 3, "normalise": "train"},
    "dialoguegcn": {},
    "mmgcn": {},
}
MAPPED = ("bclstm", "dialoguernn", "dagerc", "amb_dsgdn_meld")


@dataclass(frozen=True)
class Entry:
    """An entry point.

    Attributes:
        name: what the table calls it; its folder in the corpus.
        file: what a case's file is called.
        trees: sound files, as trees.
        write: from a tree to bytes.
        use: all that is done with such a file; raises nothing but `MerZooError`.
    """

    name: str
    file: str
    trees: list[Any]
    write: Callable[..., bytes]
    use: Callable[[Path], object]


def cases(entry: Entry) -> Any:
    """Draw the content of a file: a sound one, changed as a tree, as bytes, as both, or rarely left as it is.

    Returns:
        a strategy for whether it is sound, and the content.
    """

    @st.composite
    def drawn(draw: Any) -> tuple[bool, bytes]:
        how = one_of(draw, ("none", "bytes", "bytes", "both", *("tree",) * 12))
        tree = mutated(draw, entry.trees, entry.trees) if how in ("tree", "both") else one_of(draw, entry.trees)
        content = entry.write(draw, tree, how == "none")
        return how == "none", damaged(draw, content) if how in ("bytes", "both") else content

    return drawn()


def entries() -> dict[str, Entry]:
    """Return the entry points by name."""
    tiny = _tiny()
    found = [
        Entry("recipe", "r.yaml", _recipes(), formats.yaml_of, _use_recipe),
        Entry("override", "o.txt", _overrides(tiny), _override_of, _use_override),
        Entry("suite", "s.yaml", _suites(), formats.yaml_of, _use_suite),
        Entry("dataset settings", "d.yaml", _dataset_settings(), formats.yaml_of, lambda path: load(document.read(path).data)),
        Entry("card", "my_part.yaml", _cards(), formats.yaml_of, lambda path: read_card(path, "fusion")),
        Entry("result", "a.result.json", _results(tiny), _result_of, _use_result),
        Entry("model", "m.safetensors", _models(tiny), formats.safetensors_of, _use_model),
        Entry("parity", "p.bin", _parities(), _parity_of, _use_parity),
        Entry("container", "c.bin", _containers(tiny), _container_of, _use_container),
        Entry("npz", "f.npz", _tables(), formats.npz_of, functools.partial(_use_import, "npz")),
    ]
    for name, layout in PICKLE_LAYOUTS.items():
        trees = [_pickled(layout)]
        found.append(Entry(name, "f.pkl", trees, formats.pickle_of, functools.partial(_use_import, name)))
    return {entry.name: entry for entry in found}


@functools.cache
def _tiny() -> Dataset:
    return synthetic(dialogues=(12, 6, 6), utterances=(2, 4), widths=(6, 5, 5), speakers=2, emotions=("a", "b", "c"))


def _plain(path: Path) -> Any:
    return document.read(path).data


# -- recipes, settings, suites, cards


def _recipes() -> list[Any]:
    found = [_plain(recipe.find(name)) for name in RECIPES]
    for name, one in zip(RECIPES, found, strict=True):
        if "extends" in one:
            one["extends"] = f"{name}/{one['extends'].removesuffix('.yaml')}"
    return found


def _use_recipe(path: Path) -> None:
    _train(prepare(str(path), _tiny()))


def _train(experiment: Any) -> None:
    """Make the model; a few are trained for an epoch, which takes longest."""
    experiment.rehearse()
    if experiment.plan.learner is None and int(experiment.identity.run, 16) % 8 == 0:
        short = experiment.plan.training.model_copy(update={"epochs": 1})
        plan = experiment.plan.model_copy(update={"training": short})
        dataclasses.replace(experiment, plan=plan).run()


def _overrides(tiny: Dataset) -> list[Any]:
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


def _override_of(draw: Any, tree: Any, sound: bool) -> bytes:
    """Write the recipe's name, and `key=value` lines."""
    if not isinstance(tree, dict):
        return formats.text_of(draw, tree)
    name, change = tree.get("recipe"), tree.get("change")
    lines = [f"{key}={json.dumps(value)}" for key, value in change.items()] if isinstance(change, dict) else [str(change)]
    return "\n\n".join([str(name), *lines]).encode("utf-8", "surrogatepass")


def _use_override(path: Path) -> None:
    name, *changes = path.read_bytes().decode("utf-8", "surrogateescape").split("\n\n")
    _train(prepare(name if name in RECIPES else "bilstm", _tiny(), changes=changes))


def _suites() -> list[Any]:
    found = [_plain(path) for path in sorted((resources.folder("baselines") / "suites").glob("*.yaml"))]
    data = {"name": "synthetic", "dialogues": [12, 6, 6], "utterances": [2, 4], "widths": [8, 8, 8], "speakers": 2}
    for one in found:
        few = dict(list(one["models"].items())[:2])
        one.update(data=[data], models=few, seeds=2, split={"test": "folds", "folds": 2, "share": 0.2, "seed": 1})
        one.pop("control", None)
    return [*found, {**found[0], "control": next(iter(found[0]["models"])), "split": {}, "protocol": "test-oracle"}]


def _use_suite(path: Path) -> None:
    suites.experiments(suites.read(str(path)))


def _dataset_settings() -> list[Any]:
    small = {"name": "synthetic", "dialogues": [12, 6, 6], "utterances": [2, 4], "widths": [6, 5, 5], "emotions": ["a", "b", "c"]}
    more = {"hold": 0.1, "signal": 1.5, "dominance": 0.35, "complementarity": 0.5}
    more |= {"inertia": 0.9, "contagion": 0.04, "distractor": 0.7, "persistence": 0.95, "failure": 0.3, "seed": 1}
    return [{**small, "speakers": 3, **more}, {**small, "fails": ["text", "audio"], "fails_in": ["train"], "failure": 1.0}]


def _cards() -> list[Any]:
    paths = sorted((resources.folder("registry") / "fusion").glob("*.yaml"))
    return [{**_plain(path), "aliases": ["old"], "tags": ["a"], "version": 2, "promises": ["causal"]} for path in paths]


# -- results and models


def _results(tiny: Dataset) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        found = []
        for name, protocol in (("majority", "validation"), ("bilstm", "test-oracle")):
            changes = ["training.epochs=2"] if name == "bilstm" else []
            experiment = prepare(name, tiny, changes=changes, protocol=protocol)
            found.append(json.loads(keep(experiment, experiment.run(), Path(folder)).read_text(encoding="utf-8")))
    return found


def _result_of(draw: Any, tree: Any, sound: bool) -> bytes:
    """Write a result; mostly with the hash of what it says, as someone who changes it would."""
    if isinstance(tree, dict) and draw(st.integers(0, 3)):
        facts = tree.get("dataset")
        given = {key: tree.get(key) for key in ("recipe", "seed", "fold", "protocol", "precision", "versions")}
        given |= {"data": facts.get("fingerprint") if isinstance(facts, dict) else "", "split": tree.get("split_rule")}
        try:
            tree = {**tree, "run": Identity.model_validate(given).run}
        except Exception:  # nothing that has a hash
            pass
    return formats.json_of(draw, tree)


def _use_result(path: Path) -> None:
    result = read_result(path)
    results = [result, result.model_copy(update={"seed": 1}), result.model_copy(update={"recipe_name": "other"})]
    Console(file=io.StringIO()).print(comparison_table(results))
    markdown(results)
    latex(results)
    write_csv(results, path.with_suffix(".csv"))
    if hashlib.sha256(path.read_bytes()).digest()[0] < 16:  # plots take a second
        write_html(results, path.with_suffix(".html"))


def _models(tiny: Dataset) -> list[Any]:
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


def _use_model(path: Path) -> None:
    saving.run_of(path)
    saving.load(path).predict(_tiny().conversations[:3])


def _parities() -> list[Any]:
    found = []
    for name in MAPPED:
        with np.load(HERE.parent / "parity" / f"{name}.npz") as archive:
            arrays = {key: archive[key] for key in archive.files}
        found.append({"name": name, "arrays": {**arrays, "meta": json.loads(str(arrays["meta"]))}})
    return found


def _parity_of(draw: Any, tree: Any, sound: bool) -> bytes:
    """Write the name, by which the mapping is found, and the file."""
    if not isinstance(tree, dict):
        return formats.text_of(draw, tree)
    name = tree.get("name")
    return f"{name if isinstance(name, str) and name in MAPPED else MAPPED[0]}\n".encode() + formats.npz_of(draw, tree.get("arrays"), sound)


def _use_parity(path: Path) -> None:
    name, _, content = path.read_bytes().partition(b"\n")
    file = path.with_name(f"{name.decode() if name.decode('latin1') in MAPPED else MAPPED[0]}.npz")
    file.write_bytes(content)
    parity.check(file)


# -- data


def _containers(tiny: Dataset) -> list[Any]:
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


def _container_of(draw: Any, tree: Any, sound: bool) -> bytes:
    """Write the length of the manifest, the manifest and the features; mostly with the digest that fits them."""
    if not isinstance(tree, dict):
        return formats.text_of(draw, tree)
    features = formats.safetensors_of(draw, tree.get("features"))
    manifest = tree.get("manifest")
    if isinstance(manifest, dict) and draw(st.integers(0, 3)):
        manifest = {**manifest, "features_sha256": hashlib.sha256(features).hexdigest()}
    text = formats.json_of(draw, manifest)
    return len(text).to_bytes(4, "little") + text + features


def _use_container(path: Path) -> None:
    content = path.read_bytes()
    behind = 4 + int.from_bytes(content[:4], "little")
    folder = path.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / container.MANIFEST).write_bytes(content[4:behind])
    (folder / container.FEATURES).write_bytes(content[behind:])
    # whoever forges a container gives it the right fingerprint as well
    with mock.patch.object(container, "fingerprint_of", lambda dataset: _told(folder)):
        dataset = container.read_dataset(folder)
    _use_dataset(dataset)


def _told(folder: Path) -> Any:
    return json.loads((folder / container.MANIFEST).read_bytes())["fingerprint"]


def _use_dataset(dataset: Dataset) -> None:
    """Describe, split, write, read back, and make a model of it."""
    Console(file=io.StringIO()).print(render_report(describe_dataset(dataset)))
    split_dataset(dataset)
    with tempfile.TemporaryDirectory() as home:
        assert container.read_dataset(container.write_dataset(dataset, f"{home}/x")).conversations == dataset.conversations
    prepare("bilstm", dataset, changes={"model.context.encoder.hidden": 2}).rehearse()


def _use_import(layout: str, path: Path) -> None:
    _use_dataset(import_dataset(layout, path))


def _tables() -> list[Any]:
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


def _pickled(layout: Any) -> Any:
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
        if name == "labels":
            return {key: [0, 1] for key in ids}
        if name == "transcript":
            return {key: ["hello", "you"] for key in ids}
        return dict.fromkeys(ids, ["u"])

    return tuple(part(name) for name in layout.parts)


def unfuzzed() -> set[str]:
    """Return the layouts of importers that no entry point reads."""
    return set(LAYOUTS) - set(entries())
