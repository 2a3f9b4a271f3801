"""The wheel, installed in an empty environment: complete, self-contained, one top-level name."""

import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import mer_zoo
from mer_zoo.data.container import write_dataset
from mer_zoo.training.experiment import keep, prepare

STEP = """
from dataclasses import replace

from mer_zoo.checking.small_data import conversations
from mer_zoo.data.conversation import Dataset
from mer_zoo.data.splits import Split
from mer_zoo.model import filling, recipe
from mer_zoo.training.learning import learn
from mer_zoo.training.loop import train
from mer_zoo.training.task import Task

for name in recipe.names():
    learner = recipe.read(name).recipe.learner is not None
    file = recipe.read(name, [] if learner else ["training.epochs=1"])
    asked = file.recipe.modalities
    widths = asked if isinstance(asked, dict) else {"text": 8, "audio": 6, "visual": 4}
    classes = 7 if "meld" in name else 6
    dialogues = conversations([5, 3, 4], speakers=2, classes=classes, widths=widths)
    beside = file.recipe.tasks.items()
    dialogues = [replace(one, targets={task: one.labels % count for task, count in beside}) for one in dialogues]
    ids = [dialogue.id for dialogue in dialogues]
    labels = [f"emotion {i}" for i in range(classes)]
    data = Dataset("tiny", dialogues, labels, {"train": ids[:1], "validation": ids[1:2], "test": ids[2:]})
    split = Split(*(tuple(data.splits[s]) for s in ("train", "validation", "test")))
    task = Task(name, filling.fill(file, data.widths), data, split)
    result = learn(task, 0).result if learner else train(task, 0).result
    print(name, len(result.predictions))
"""


USE = """
import numpy as np

import mer_zoo

dialogues = mer_zoo.load_data("data").conversations
np.savez("there.npz", **mer_zoo.load_model("model").predict(dialogues))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, pytestconfig):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder]
    subprocess.run([*command, pytestconfig.rootpath], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def empty_environment(wheel, tmp_path_factory, pytestconfig):
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    constraints = pytestconfig.rootpath / "constraints.txt"
    install = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--no-compile", "--constraint", constraints]
    subprocess.run([*install, wheel], check=True)
    return folder / "bin"


def test_nothing_lands_beside_mer_zoo(wheel):
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"mer_zoo"}


def test_it_lists_and_trains_every_recipe(empty_environment, tmp_path):
    def run(*command):
        done = subprocess.run([str(c) for c in command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    recipes = [line.split()[0] for line in run(empty_environment / "mer-zoo", "list", "recipe").splitlines()]
    assert "recipe/amb_dsgdn/iemocap" in recipes
    assert "fusion/concat" in run(empty_environment / "mer-zoo", "list")
    (tmp_path / "step.py").write_text(STEP)
    trained = run(empty_environment / "python", "step.py").splitlines()
    assert [f"recipe/{line.split()[0]}" for line in trained] == recipes


def test_an_exported_folder_predicts_the_same_to_the_bit(empty_environment, small, tmp_path):
    one = prepare("bilstm", small, changes=["training.epochs=1"])
    outcome = one.run()
    mer_zoo.export(keep(one, outcome, tmp_path / "runs", weights=True), tmp_path / "model")
    write_dataset(small, tmp_path / "data")
    here = outcome.saved.predict(small.conversations)
    command = [empty_environment / "python", "-c", USE]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    there = np.load(tmp_path / "there.npz")
    assert set(there.files) == set(here)
    assert all(np.array_equal(there[name], here[name]) for name in here)
