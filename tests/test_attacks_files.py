"""Files under attack, beyond what they declare: parity files, model files, settings, permissions, order."""

import importlib.metadata
import json
import os
import stat
import time
import warnings
from dataclasses import replace
from pathlib import Path

import limited
import numpy as np
import pytest
from test_bounded_files import declared

from docs.generator import attacks
from mer_zoo.cli import main
from mer_zoo.data import validation
from mer_zoo.data.container import write_dataset
from mer_zoo.data.conversation import Conversation, Dataset
from mer_zoo.errors import MerZooError
from mer_zoo.graph import dgl_import
from mer_zoo.model import filling, parity, recipe, saving
from mer_zoo.model.assembly import assemble
from mer_zoo.model.budget import sketch
from mer_zoo.model.model import Facts
from mer_zoo.training.experiment import check_room, prepare

PARITY = Path(__file__).parent / "parity"


@pytest.fixture(scope="module")
def process():
    """Return a process in which a line runs with little memory."""
    with limited.Process("from mer_zoo.model import parity, saving") as one:
        yield one


@pytest.mark.attack("C5")
@pytest.mark.parametrize("value", ["[" * 20_000, "[" * 20_000 + "]" * 20_000, "{a: " * 20_000])
@pytest.mark.parametrize("command", [["train", "bilstm"], ["compare", "context"]])
def test_a_setting_of_brackets(capsys, command, value):
    assert main([*command, "-o", f"training.epochs={value}"]) == 2
    said = capsys.readouterr().err
    assert "is not valid YAML" in said
    assert len(said) < 500


# -- parity files


def changed(**changes):
    """Return a function that writes a parity file with some arrays changed; None leaves one out."""

    def write(path, arrays):
        meta = json.loads(str(arrays["meta"]))
        for key, value in changes.items():
            where, _, name = key.partition("__")
            kept = meta if where == "meta" else arrays
            name = name.replace("__", ".")
            if value is None:
                del kept[name]
            else:
                kept[name] = value(kept[name]) if callable(value) else value
        np.savez(path, **{**arrays, "meta": json.dumps(meta)})

    return write


def cut(path, arrays):
    whole = (PARITY / "bclstm.npz").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def bad_sum(path, arrays):
    whole = bytearray((PARITY / "bclstm.npz").read_bytes())
    whole[len(whole) // 2] ^= 255
    path.write_bytes(bytes(whole))


def single(path, arrays):
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))


PARITY_FILES = {
    "cut short": (cut, "is not a readable .npz"),
    "a bad sum": (bad_sum, "cannot be read"),
    "a single array": (single, "is a single array"),
    "objects": (changed(a__loss__total=np.array([{}, {}], object)), "holds Python objects"),
    "nothing told": (lambda path, arrays: np.savez(path, **{**arrays, "meta": "{}"}), "meta.n_speakers: is missing"),
    "told nothing": (lambda path, arrays: np.savez(path, **{**arrays, "meta": "5"}), "must be a mapping"),
    "half told": (lambda path, arrays: np.savez(path, **{**arrays, "meta": "{"}), "not a parity file"),
    "told in depth": (lambda path, arrays: np.savez(path, **{**arrays, "meta": "[" * 99_999}), "not a parity file"),
    "a missing size": (changed(meta__constructor=None), "a formula asks for 'constructor'"),
    "a huge size": (changed(meta__constructor=lambda sizes: {**sizes, "D_e": 10**6}), "larger than the"),
    "speakers without end": (changed(meta__n_speakers=10**12), "less than or equal to 1000"),
    "classes without end": (changed(meta__n_classes=10**12), "less than or equal to 10000"),
    "a length that differs": (changed(meta__lengths=lambda lengths: [n + 1 for n in lengths]), "unlike its dialogue"),
    "a missing dialogue": (changed(a__dialogue0__text=None), "has no features"),
    "missing speakers": (changed(a__dialogue0__speaker=None), "no array of numbers 'speaker'"),
    "missing logits": (changed(a__dialogue0__logits=None), "no array of numbers 'dialogue0.logits'"),
    "missing losses": (changed(a__training__total_loss_per_step=None), "no array of numbers"),
    "other logits": (changed(a__dialogue0__logits=lambda x: x[:, :1]), "logits of dialogue 0 has shape"),
    "a speaker too many": (changed(a__dialogue0__speaker=lambda x: x + 99), "must be from 0 to"),
    "a label too many": (changed(a__dialogue0__label=lambda x: x + 99), "must be from 0 to"),
    "labels of no number": (changed(a__dialogue0__label=lambda x: x.astype(str)), "no array of numbers 'label'"),
    "losses without end": (changed(a__training__total_loss_per_step=np.zeros(10**6)), "100 steps at most"),
    "a scalar for losses": (changed(a__training__total_loss_per_step=np.zeros(())), "100 steps at most"),
}


@pytest.mark.attack("C17")
@pytest.mark.parametrize("case", PARITY_FILES)
def test_a_parity_file_that_cannot_be_used(tmp_path, case):
    write, expected = PARITY_FILES[case]
    path = tmp_path / "bclstm.npz"
    with np.load(PARITY / "bclstm.npz") as archive:
        write(path, dict(archive))
    with pytest.raises(MerZooError, match=expected) as caught:
        parity.check(path)
    assert len(str(caught.value)) < 1000


@pytest.mark.attack("C17", "C18")
def test_a_parity_file_that_declares_terabytes(process, tmp_path):
    import zipfile

    path = tmp_path / "bclstm.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("dialogue0.text.npy", declared((2, 2**40)))
    assert "declares shape (2, 1099511627776)" in process.refusal("parity.check(sys.argv[1])", path)


# -- model files


@pytest.fixture
def told(small, tmp_path):
    """Return a function: a change of what a model file tells of itself -> the file."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    experiment = prepare("bilstm", small)
    task = experiment.task()
    path = tmp_path / "m.safetensors"
    model = assemble(experiment.plan, task.facts)
    saving.save(saving.Saved(model, "m", experiment.plan, small.label_names, "0" * 16, task.normaliser), path)
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()["model"])

    def write(*keys, value):
        here = description
        for key in keys[:-1]:
            here = here[key]
        here[keys[-1]] = value
        metadata = {"mer_zoo": saving.FORMAT, "model": json.dumps(description)}
        save_file(load_file(path), tmp_path / "changed.safetensors", metadata=metadata)
        return tmp_path / "changed.safetensors"

    return write


@pytest.mark.attack("A2", "C16")
@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("filled", "model", "context", "encoder", "hidden"), 2_000_000_000),
        (("filled", "model", "context", "encoder", "hidden"), 30_000),
        (("filled", "model", "context", "encoder", "layers"), 1_000_000_000),
        (("filled", "modalities", "text"), 2_000_000_000),
        (("facts", "widths", "text"), 9),
    ],
)
def test_a_model_file_makes_no_room_for_more_than_it_holds(process, told, keys, value):
    path = told(*keys, value=value)
    if keys[:2] == ("filled", "modalities"):
        path = told("facts", "widths", "text", value=value)
    found = process.refusal("saving.load(sys.argv[1])", path)
    assert "changed.safetensors" in found
    assert "allocate" not in found


@pytest.mark.attack("C16")
def test_a_model_file_may_claim_any_length_of_dialogues(told):
    path = told("facts", "longest", value=10**12)
    begin = time.process_time()
    assert saving.load(path).model.facts.longest == 10**12
    assert time.process_time() - begin < 10


@pytest.mark.parametrize("name", [name for name in recipe.names() if "/" not in name])
def test_every_model_can_be_sketched(name):
    if recipe.read(name).recipe.learner is not None:
        return
    widths = {"text": 8, "audio": 6, "visual": 6}
    plan, facts = filling.fill(recipe.read(name), widths), Facts(widths, 2, 3, (1, 1, 1))
    made = assemble(plan, facts)
    tensors = made.state_dict()
    model = sketch(plan, facts, sum(value.numel() for value in tensors.values()), len(tensors))
    assert {key: value.shape for key, value in model.state_dict().items()} == {k: v.shape for k, v in tensors.items()}


@pytest.mark.attack("D8")
def test_equal_models_are_equal_files(small, tmp_path):
    experiment = prepare("bilstm", small)
    task = experiment.task()
    model = assemble(experiment.plan, task.facts)
    saved = saving.Saved(model, "m", experiment.plan, small.label_names, "0" * 16, task.normaliser)
    for number in range(8):  # the library draws an order every time
        saving.save(saved, tmp_path / f"{number}.safetensors")
    assert len({(tmp_path / f"{number}.safetensors").read_bytes() for number in range(8)}) == 1


@pytest.mark.attack("D7")
@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o022, 0o644)])
def test_files_are_as_private_as_the_user_wants(small_folder, tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        arguments = ["--data", str(small_folder), "--output", str(tmp_path), "-o", "training.epochs=1"]
        assert main(["train", "bilstm", *arguments]) == 0
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {mode}


# -- disks


def test_a_disk_without_room_is_told_of_first(small, tmp_path, monkeypatch):
    experiments = [replace(prepare("bilstm", small), seed=seed) for seed in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_room(experiments, tmp_path / "not/yet/there", weights=True)
    monkeypatch.setattr("shutil.disk_usage", lambda path: (10**9, 10**9 - 10**6, 10**6))
    with pytest.warns(UserWarning, match=r"the 3 runs will write about \d+ MB, and 1 MB are free"):
        check_room(experiments, tmp_path, weights=True)


def test_train_and_compare_tell_of_it(small_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("shutil.disk_usage", lambda path: (10**9, 10**9 - 10, 10))
    arguments = ["--data", str(small_folder), "--output", str(tmp_path), "-o", "training.epochs=1"]
    assert main(["train", "bilstm", *arguments]) == 0
    assert "warning: " in (said := capsys.readouterr().err)
    assert "0 MB are free" in said
    assert main(["compare", "context", "--models", "BiLSTM", "--seeds", "1", "--workers", "1", *arguments]) == 0


# -- messages


@pytest.mark.attack("D10")
def test_a_dataset_that_is_there_is_not_said_to_have_an_option(small, tmp_path):
    write_dataset(small, tmp_path / "data")
    with pytest.raises(MerZooError, match=r"holds a dataset already\. Name a new folder, or remove the old one\."):
        write_dataset(small, tmp_path / "data")


@pytest.mark.attack("D4")
def test_without_dgl_the_doctor_is_named_not_a_version(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", absent)
    with pytest.raises(MerZooError, match=r"dgl is not installed. `mer-zoo doctor` says which version to install"):
        dgl_import._import()


@pytest.mark.attack("D18")
def test_all_dialogues_of_a_few_are_evaluated(small, small_folder, tmp_path, capsys):
    assert (
        main(["train", "bilstm", "--data", str(small_folder), "--output", str(tmp_path), "-o", "training.epochs=1"])
        == 0
    )
    (path,) = tmp_path.glob("*.safetensors")
    few = Dataset(
        "few", small.conversations[:2], small.label_names, {"all": tuple(one.id for one in small.conversations[:2])}
    )
    folder = write_dataset(few, tmp_path / "few")
    assert main(["evaluate", str(path), "--data", str(folder), "--split", "all"]) == 0
    assert "accuracy" in capsys.readouterr().out


@pytest.mark.attack("D19")
def test_the_work_of_validating_grows_as_the_data(monkeypatch):
    """Most of a minute went into a prediction per dialogue; `benchmarks/large_data.py` measures the rest."""
    calls = []
    tally = validation._tally
    monkeypatch.setattr(validation, "_tally", lambda *given: calls.append(1) or tally(*given))
    counts = []
    for many in (40, 160):
        draw = np.random.default_rng(0)
        dialogues = [
            Conversation(f"d{i}", ("A", "B"), draw.integers(0, 2, 2), {"text": draw.normal(size=(2, 3))})
            for i in range(many)
        ]
        ids = tuple(one.id for one in dialogues)
        splits = {"train": ids[: many // 2], "test": ids[many // 2 :]}
        calls.clear()
        validation.describe_dataset(Dataset("d", tuple(dialogues), ("a", "b"), splits))
        counts.append(len(calls))
    assert counts[0] == counts[1] > 0


def test_every_row_has_a_test_and_every_marked_test_a_row():
    assert attacks.faults() == []
    page = attacks.pages()["reference/tested.md"]
    assert all(f"| {row} |" in page for row in attacks.rows())
