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

import safetensors.torch
from hypothesis import strategies as st
from rich.console import Console

from fuzzing import formats, sound
from fuzzing.mutations import damaged, mutated, one_of
from fuzzing.sound import MAPPED, RECIPES
from mer_zoo import registry
from mer_zoo.comparison import suite as suites
from mer_zoo.comparison.report import comparison_table, write_html
from mer_zoo.comparison.summary import write_csv
from mer_zoo.comparison.table import latex, markdown
from mer_zoo.data import container
from mer_zoo.data.conversation import Dataset
from mer_zoo.data.importing import import_dataset
from mer_zoo.data.loading import load
from mer_zoo.data.pickles import layouts
from mer_zoo.data.splits import split_dataset
from mer_zoo.data.validation import describe_dataset, render_report
from mer_zoo.model import parity, saving
from mer_zoo.registry import document
from mer_zoo.registry.cards import read_card
from mer_zoo.results.identity import Identity
from mer_zoo.results.result import read_result
from mer_zoo.training import checkpoint
from mer_zoo.training.experiment import prepare


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
        opaque = isinstance(entry.trees[0], bytes)
        how = one_of(draw, ("bytes",) if opaque else ("none", "bytes", "bytes", "both", *("tree",) * 12))
        tree = mutated(draw, entry.trees, entry.trees) if how in ("tree", "both") else one_of(draw, entry.trees)
        content = entry.write(draw, tree, how == "none")
        return how == "none", damaged(draw, content) if how in ("bytes", "both") else content

    return drawn()


def entries() -> dict[str, Entry]:
    """Return the entry points by name."""
    tiny = sound.tiny()
    found = [
        Entry("recipe", "r.yaml", sound.recipes(), formats.yaml_of, _use_recipe),
        Entry("override", "o.txt", sound.overrides(tiny), _override_of, _use_override),
        Entry("suite", "s.yaml", sound.suites(), formats.yaml_of, _use_suite),
        Entry(
            "dataset settings",
            "d.yaml",
            sound.dataset_settings(),
            formats.yaml_of,
            lambda path: load(document.read(path).data),
        ),
        Entry("card", "my_part.yaml", sound.cards(), formats.yaml_of, lambda path: read_card(path, "fusion")),
        Entry("result", "a.result.json", sound.results(tiny), _result_of, _use_result),
        Entry("model", "m.safetensors", sound.models(tiny), formats.safetensors_of, _use_model),
        Entry("checkpoint", "c.checkpoint", sound.checkpoints(tiny), _checkpoint_of, _use_checkpoint),
        Entry("parity", "p.bin", sound.parities(), _parity_of, _use_parity),
        Entry("container", "c.bin", sound.containers(tiny), _container_of, _use_container),
        Entry("npz", "f.npz", sound.tables(), formats.npz_of, functools.partial(_use_import, "npz")),
    ]
    for name, layout in layouts().items():
        trees = [sound.pickled(layout)]
        found.append(Entry(name, "f.pkl", trees, formats.pickle_of, functools.partial(_use_import, name)))
    for name, write in (("csv", formats.csv_of), ("jsonl", formats.jsonl_of)):
        found.append(Entry(name, f"f.{name}", [sound.rows()], write, functools.partial(_use_import, name)))
    for name, path, content in sound.examples({entry.name for entry in found}):
        found.append(Entry(name, path, [content], formats.bytes_of, functools.partial(_use_import, name)))
    return {entry.name: entry for entry in found}


# -- recipes, settings, suites, cards


def _use_recipe(path: Path) -> None:
    _train(prepare(str(path), sound.tiny()))


def _train(experiment: Any) -> None:
    """Make the model; a few are trained for an epoch, which takes longest."""
    experiment.rehearse()
    if experiment.plan.learner is None and int(experiment.identity.run, 16) % 8 == 0:
        short = experiment.plan.training.model_copy(update={"epochs": 1})
        plan = experiment.plan.model_copy(update={"training": short})
        dataclasses.replace(experiment, plan=plan).run()


def _override_of(draw: Any, tree: Any, intact: bool) -> bytes:
    """Write the recipe's name, and `key=value` lines."""
    if not isinstance(tree, dict):
        return formats.text_of(draw, tree)
    name, change = tree.get("recipe"), tree.get("change")
    lines = (
        [f"{key}={json.dumps(value)}" for key, value in change.items()] if isinstance(change, dict) else [str(change)]
    )
    return "\n\n".join([str(name), *lines]).encode("utf-8", "surrogatepass")


def _use_override(path: Path) -> None:
    name, *changes = path.read_bytes().decode("utf-8", "surrogateescape").split("\n\n")
    _train(prepare(name if name in RECIPES else "bilstm", sound.tiny(), changes=changes))


def _use_suite(path: Path) -> None:
    suites.experiments(suites.read(str(path)))


# -- results and models


def _result_of(draw: Any, tree: Any, intact: bool) -> bytes:
    """Write a result; mostly with the hash of what it says, as someone who changes it would."""
    if isinstance(tree, dict) and draw(st.integers(0, 3)):
        facts = tree.get("dataset")
        given = {key: tree.get(key) for key in ("recipe", "seed", "fold", "protocol", "precision", "versions")}
        given |= {"data": facts.get("fingerprint") if isinstance(facts, dict) else "", "split": tree.get("split_rule")}
        with contextlib.suppress(Exception):  # what has a hash gets it
            tree = {**tree, "run": Identity.model_validate(given).run}
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


def _use_model(path: Path) -> None:
    saving.run_of(path)
    saving.load(path).predict(sound.tiny().conversations[:3])


def _checkpoint_of(draw: Any, tree: Any, intact: bool) -> bytes:
    """Write a checkpoint; mostly with the digest of what it says, as someone who changes it would."""
    if not isinstance(tree, dict):
        return formats.text_of(draw, tree)
    content = formats.safetensors_of(draw, tree.get("arrays"))
    with contextlib.suppress(Exception):  # arrays that are none have no digest
        held = safetensors.torch.load(content)
        arrays = [held[str(number)] for number in range(len(held))]
        with tempfile.TemporaryDirectory() as home:
            checkpoint.write(path := Path(home) / "c", tree.get("run"), tree.get("state"), arrays)
            content = path.read_bytes()
    return content


def _use_checkpoint(path: Path) -> None:
    """Put back what it holds into a run, and take it from there again."""
    for name in sound.KEPT:
        keeper = sound.keeper_of(path, name, sound.tiny())
        if keeper.resumed():
            assert keeper.holding is not None
            keeper.holding.take()


def _parity_of(draw: Any, tree: Any, intact: bool) -> bytes:
    """Write the name, by which the mapping is found, and the file."""
    if not isinstance(tree, dict):
        return formats.text_of(draw, tree)
    name = tree.get("name")
    return f"{name if isinstance(name, str) and name in MAPPED else MAPPED[0]}\n".encode() + formats.npz_of(
        draw, tree.get("arrays"), sound
    )


def _use_parity(path: Path) -> None:
    name, _, content = path.read_bytes().partition(b"\n")
    file = path.with_name(f"{name.decode() if name.decode('latin1') in MAPPED else MAPPED[0]}.npz")
    file.write_bytes(content)
    parity.check(file)


# -- data


def _container_of(draw: Any, tree: Any, intact: bool) -> bytes:
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
    with mock.patch.object(container, "fingerprint_of", functools.partial(_told, folder)):
        dataset = container.read_dataset(folder)
    _use_dataset(dataset)


def _told(folder: Path, dataset: Dataset) -> Any:
    return json.loads((folder / container.MANIFEST).read_bytes())["fingerprint"]


def _use_dataset(dataset: Dataset) -> None:
    """Describe, split, write, read back, and make a model of it."""
    Console(file=io.StringIO()).print(render_report(describe_dataset(dataset)))
    split_dataset(dataset)
    with tempfile.TemporaryDirectory() as home:
        assert (
            container.read_dataset(container.write_dataset(dataset, f"{home}/x")).conversations == dataset.conversations
        )
    prepare("bilstm", dataset, changes={"model.context.encoder.hidden": 2}).rehearse()


def _use_import(layout: str, path: Path) -> None:
    _use_dataset(import_dataset(layout, path))


def unfuzzed() -> set[str]:
    """Return the importers that no entry point reads."""
    return {card.name for card in registry.cards("importer")} - set(entries())
