"""A package written outside the repository is installed, listed, checked, trained, saved and loaded, and missed."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mer_zoo.commands.new import new

ROOT = Path(__file__).parent.parent
PLUGIN = ROOT / "tests" / "plugin"


def install(project: Path, site: Path) -> None:
    """Install a package into a folder, by pip, without a network."""
    pytest.importorskip("setuptools")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", site, project], check=True, capture_output=True)


def python(site: Path | None, *arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    """Run Python with a site folder."""
    path = os.pathsep.join(map(str, [ROOT, *([site] if site else [])]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, cwd=cwd)


def run(site: Path | None, code: str, cwd: Path) -> str:
    """Run code; returns what it prints."""
    done = python(site, "-c", textwrap.dedent(code), cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Return folder and site of a package as `mer-zoo new package` writes it."""
    folder = tmp_path_factory.mktemp("fresh")
    new("package", "fresh_mer", folder)
    install(folder / "fresh_mer", folder / "site")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a folder with `site`, where a package of many parts is installed."""
    folder = tmp_path_factory.mktemp("acme")
    new("package", "acme_mer", folder)
    for path in PLUGIN.glob("*.py"):
        shutil.copy(path, folder / "acme_mer" / "acme_mer")
    shutil.copytree(PLUGIN / "cards", folder / "acme_mer" / "acme_mer" / "cards", dirs_exist_ok=True)
    install(folder / "acme_mer", folder / "site")
    return folder


def test_a_new_package_passes_its_own_test_as_written(fresh):
    tests = fresh / "fresh_mer" / "tests"
    done = python(fresh / "site", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests), cwd=fresh)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_a_new_package_is_tidy(fresh):
    for check in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, "--config", ROOT / "pyproject.toml", fresh / "fresh_mer"]
        assert subprocess.run(command, capture_output=True, text=True).stdout.strip().endswith(("passed!", "formatted"))


LIST = """
from mer_zoo import registry
from mer_zoo.comparison import suite
from mer_zoo.model import recipe
print(*(card.id for card in registry.cards(tag="acme")), *recipe.names(), *suite.names())
"""
HEALTH = """
from mer_zoo.cli import main
print(main(["doctor"]), main(["describe", "recipe/acme_mer/sage"]))
"""
PARTS = ["graph/acme_mer/turns", "layer/acme_mer/sage", "loss/acme_mer/with_shifts", "dataset/acme_mer/talk"]
PARTS += ["tracker/acme_mer/ledger"]
CONTRACTS = f"""
from mer_zoo import registry
from mer_zoo.checking import inspect_part
for part in {PARTS!r}:
    print(part, [str(found) for found in inspect_part(*registry.split(part)) if not found.fine])
"""
TRAIN = """
from mer_zoo.comparison import suite
from mer_zoo.training.experiment import keep, prepare, run_stack, weights_beside
from mer_zoo.training.engines import why_not_stacked
from dataclasses import replace
from pathlib import Path
import mer_zoo

planned = suite.experiments(suite.read("acme_mer/shifts"))
print(len(planned), sorted({experiment.name for experiment in planned}))
data = "acme_mer/talk"
for name, changes in (("acme_mer/sage", []), ("acme_mer/mix", ["model.context.encoder=linear"])):
    first = prepare(name, data, changes=["training.epochs=2", *changes])
    print(name, "one by one" if why_not_stacked(first.task()) else "stacked")
    outcomes = list(run_stack([first, replace(first, seed=1)]))
    path = weights_beside(keep(first, outcomes[0], Path("runs"), weights=True))
    saved = mer_zoo.load_model(path)
    dialogues = list(mer_zoo.load_data(data))[:2]
    print({each.shape[1] for each in saved.predict(dialogues).values()})
    path.rename(f"{name.partition('/')[2]}.safetensors")
"""
TRACK = """
from mer_zoo.cli import main
words = ["train", "majority", "--data", "acme_mer/talk", "--output", "logged"]
print(main([*words, "--track", "{name: acme_mer/ledger, digits: 1}"]))
"""
PIECES = {"list": LIST, "health": HEALTH, "contracts": CONTRACTS, "train": TRAIN, "track": TRACK}
ALL = f"""
import contextlib, io, json, traceback
said = {{}}
for name, code in {PIECES!r}.items():
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            exec(code, {{}})
        except Exception:
            print(traceback.format_exc())
    said[name] = out.getvalue().splitlines()
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(home):
    """Return the lines that each piece of code prints where the package is installed: one process for all."""
    return json.loads(run(home / "site", ALL, home))


def test_it_is_listed_and_nothing_is_wrong(said):
    names = [name for name in " ".join(said["list"]).split() if "acme_mer/" in name]
    assert names == [
        *("dataset/acme_mer/talk", "graph/acme_mer/turns", "layer/acme_mer/sage", "loss/acme_mer/with_shifts"),
        *("tracker/acme_mer/ledger", "acme_mer/mix", "acme_mer/sage", "acme_mer/mix", "acme_mer/shifts"),
    ]
    assert said["health"][-1] == "0 0", said["health"]
    assert "Hamilton et al. 2017. Inductive Representation Learning" in "\n".join(said["health"])


def test_every_part_keeps_its_contract(said):
    assert said["contracts"] == [f"{part} []" for part in PARTS]


def test_it_trains_is_saved_loaded_and_predicts(said, home):
    assert said["train"] == [
        "4 ['with', 'without']",
        *("acme_mer/sage one by one", "{3}", "acme_mer/mix stacked", "{3}"),
    ]
    refused = python(None, "-m", "mer_zoo", "predict", "sage.safetensors", "--data", "synthetic", cwd=home)
    assert refused.returncode == 2
    assert "the model needs graph 'acme_mer/turns', whose package is not installed." in refused.stderr
    assert "Run `pip install 'acme-mer==0.1.0'`." in refused.stderr


def test_its_tracker_is_told_of_runs(said, home):
    assert said["track"][-1] == "0", said["track"]
    (page,) = (json.loads(path.read_text()) for path in (home / "logged").glob("ledger/*.json"))
    assert page["name"] == "majority on talk, seed 0"
    assert page["numbers"]["test/accuracy"] == round(page["numbers"]["test/accuracy"], 1)


def test_what_is_wrong_with_a_package_is_told(fresh, tmp_path):
    site = tmp_path / "site"
    shutil.copytree(fresh / "site", site)
    cards = site / "fresh_mer" / "cards"
    (cards / "references.bib").write_text("@misc{another2026paper, title={A}, author={B}, year={2026}}\n")
    (cards / "recipes" / "torn.yaml").write_text("title: [\n")
    (cards / "fusoin").mkdir()
    (cards / "fusoin" / "lost.yaml").write_text("target: x:Y\n")
    doctor = python(site, "-m", "mer_zoo", "doctor", cwd=tmp_path)
    assert doctor.returncode == 1
    for fault in (
        "cards/fusion/mix.yaml: paper 'example2026mix' is not in references.bib.",
        "cards/recipes/mix.yaml: paper 'example2026mix' is not in references.bib.",
        "cards/recipes/torn.yaml:2:1 not valid YAML",
        "no kind of part named 'fusoin'. Did you mean 'fusion'?",
    ):
        assert fault in doctor.stdout
    listed = python(site, "-m", "mer_zoo", "list", "recipe", "fresh_mer/*", cwd=tmp_path)
    assert "recipe/fresh_mer/mix " in listed.stdout
    assert "recipe/fresh_mer/torn  cannot be read: see `mer-zoo doctor`" in listed.stdout
