"""Suites as their files give them, and what a suite would run before it does."""

import json
import os
import re

import pytest
from rich.console import Console
from test_cli import run

from mer_zoo.commands.progress import Bar
from mer_zoo.comparison import suite as suites
from mer_zoo.comparison.forecast import Row, clock, forecast, sentence
from mer_zoo.comparison.workers import spread
from mer_zoo.errors import MerZooError
from mer_zoo.model import recipe


def read(tmp_path, models, more=""):
    path = tmp_path / "suite.yaml"
    path.write_text(f"title: rows\ndata: [synthetic]\nseeds: 1\n{more}models:\n{models}")
    return suites.read(str(path))


def test_a_grid_becomes_a_row_per_combination(tmp_path):
    grid = "{training.epochs: [1, 2], training.clip: [0.5, null]}"
    models = f"  A: {{recipe: bilstm, change: {{balancing: none}}, grid: {grid}}}\n"
    made = read(tmp_path, f"{models}  B: mmgcn\n", "baseline: A, epochs=2, clip=null\n")
    assert list(made.models) == [f"A, epochs={e}, clip={c}" for e in (1, 2) for c in ("0.5", "null")] + ["B"]
    assert made.models["A, epochs=2, clip=0.5"].change == {
        "balancing": "none",
        "training.epochs": 2,
        "training.clip": 0.5,
    }
    again = suites.changed(made, {"seeds": 2})
    assert list(again.models) == list(made.models)


def test_keys_with_the_same_end_are_told_apart(tmp_path):
    made = read(tmp_path, "  A: {recipe: bilstm, grid: {model.a.width: [4], model.b.width: [8]}}\n")
    assert list(made.models) == ["A, model.a.width=4, model.b.width=8"]


def test_wildcards_are_the_recipes_that_fit(tmp_path):
    made = read(tmp_path, "  - bilstm\n  - 'm*'\n")
    want = [name for name in recipe.names() if name.startswith("m") and "/" not in name]
    assert list(made.models) == ["bilstm", *want]
    assert len(want) > 1
    variants = read(tmp_path, "  - 'mmgcn/*'\n")
    assert set(variants.models) == {name for name in recipe.names() if name.startswith("mmgcn/")}


MISTAKES = {
    "a wildcard that fits nothing": ("  - 'zzz*'\n", "suite.yaml:5:5 models.0: nothing fits 'zzz*'"),
    "a recipe twice": ("  - bilstm\n  - 'bil*'\n", "suite.yaml:6:5 models.1: 'bilstm' is there twice"),
    "a number as a recipe": ("  - 7\n", "want the name of a recipe"),
    "a value instead of a list": ("  A: {recipe: bilstm, grid: {training.epochs: 4}}\n", "want a list of values"),
    "an empty grid": ("  A: {recipe: bilstm, grid: {}}\n", "want a mapping of keys"),
    "no values": ("  A: {recipe: bilstm, grid: {training.epochs: []}}\n", "want a list of values"),
    "a value twice": ("  A: {recipe: bilstm, grid: {training.epochs: [1, 1]}}\n", "a value is there twice"),
    "a key twice": (
        "  A: {recipe: bilstm, change: {balancing: none}, grid: {balancing: [none]}}\n",
        "it is in `change` as well",
    ),
    "too many": (
        "  A: {recipe: bilstm, grid: {" + ", ".join(f"k{i}: [1, 2, 3, 4, 5]" for i in range(9)) + "}}\n",
        "more than 1000 rows",
    ),
    "an unknown key beside it": ("  A: {recipe: bilstm, gird: {training.epochs: [1]}}\n", "Did you mean 'grid'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_is_no_list_of_models_is_refused_with_its_place(tmp_path, name):
    text, message = MISTAKES[name]
    with pytest.raises(MerZooError, match=re.escape(message)):
        read(tmp_path, text)


def test_a_key_of_a_grid_that_fits_no_recipe_has_its_place(tmp_path):
    made = read(tmp_path, "  A:\n    recipe: bilstm\n    grid:\n      training.epoch: [1]\n")
    with pytest.raises(MerZooError, match=r"suite.yaml:8:\d+.*training.epoch.*Did you mean 'epochs'"):
        suites.experiments(made)


def test_models_of_the_command_line_may_be_wild(capsys, small_folder, tmp_path):
    command = ["compare", "context", "--data", small_folder, "--output", tmp_path, "--dry-run"]
    code, out, _ = run(capsys, *command, "--models", "*GCN; BiLSTM")
    assert code == 0
    assert [name for name in ("AMB-DSGDN", "MMGCN", "DialogueGCN", "BiLSTM") if name in out] == [
        "MMGCN",
        "DialogueGCN",
        "BiLSTM",
    ]
    code, _, err = run(capsys, *command, "--models", "Z*")
    assert (code, err.count("\n")) == (2, 1)
    assert "nothing fits 'Z*'" in err


def test_a_dry_run_writes_nothing_and_forecasts_from_what_was_measured(capsys, small_folder, tmp_path):
    command = ["compare", "context", "--models", "BiLSTM", "--data", small_folder, "--output", tmp_path / "runs"]
    command += ["-o", "training.epochs=1", "--workers", 1]
    code, out, _ = run(capsys, *command, "--seeds", 3, "--dry-run")
    assert code == 0
    assert "3 of 3 runs are left: 1 model that was never run here (BiLSTM)." in " ".join(out.split())
    assert not (tmp_path / "runs").exists()
    assert run(capsys, *command, "--seeds", 1)[0] == 0
    (result,) = (tmp_path / "runs").glob("*.result.json")
    before = {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()}
    code, out, _ = run(capsys, *command, "--seeds", 3, "--dry-run")
    assert code == 0
    assert {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()} == before
    seconds = json.loads(result.read_text())["seconds"]["total"]
    assert f"2 of 3 runs are left: about {clock(2 * seconds)} with 1 worker" in " ".join(out.split())
    assert clock(seconds) in out
    for asked in ("--keep-weights", "--contributions"):  # which the result does not have
        code, out, _ = run(capsys, *command, "--seeds", 3, asked, "--dry-run")
        assert (code, "3 of 3 runs are left" in out) == (0, True)


def test_a_forecast_reads_no_times_of_other_settings(small_folder, tmp_path, capsys):
    command = ["compare", "context", "--models", "BiLSTM", "--data", small_folder, "--output", tmp_path, "--seeds", 1]
    assert run(capsys, *command, "-o", "training.epochs=1")[0] == 0
    suite = suites.changed(suites.read("context"), {"data": [str(small_folder)], "seeds": 1})
    (row,) = [row for row in forecast(suites.experiments(suite), tmp_path) if row.model == "BiLSTM"]
    assert (row.there, row.seconds, row.left) == (0, None, None)


def test_what_a_forecast_says():
    done = Row("A", "x", 2, 2, 5.0, None)
    assert sentence([done], 2) == "0 of 2 runs are left: nothing to do."
    assert sentence([done, Row("B", "x", 2, 0, 60.0, None)], 2) == "2 of 4 runs are left: about 60 s with 2 workers."
    assert "about 60 s with 4 workers" in sentence([Row("A", "x", 2, 1, 60.0, None)], 4)  # a run goes on in one place
    assert "about 2 min one after another" in sentence([Row("A", "x", 2, 0, 60.0, None)], None)
    many = [Row(f"m{i}", "x", 1, 0, None, None) for i in range(9)]
    assert "9 models that were never run here (m0, m1, m2, m3, m4, and 4 more)." in sentence(many, 1)


def test_the_bar_counts_failures_and_says_when_all_is_done(monkeypatch):
    from mer_zoo.commands import terminal
    from mer_zoo.comparison.executing import Failure
    from mer_zoo.training.experiment import prepare

    shown = Console(record=True, width=200, force_terminal=False)
    monkeypatch.setattr(terminal, "console", lambda stderr=False: shown)
    failure = Failure(prepare("majority", "synthetic"), "it broke")
    with Bar(4, "runs") as bar:
        bar.start(4, 1)
        bar.run(failure)
        (task,) = bar._progress.tasks
        assert re.fullmatch(r"0\.0 s each, 0\.\d s left", task.fields["rate"])
        assert task.fields["note"] == "1 failed so far; majority, seed 0: failed"
        bar.run(failure)
        bar.run(failure)
        assert "left" not in task.fields["rate"]
        assert task.fields["note"].startswith("3 failed so far")


def test_no_change_makes_a_row_something_else_than_its_name_says(small_folder, tmp_path):
    models = (
        "  A: {recipe: bilstm, grid: {training.epochs: [1, 2]}}\n  B: {recipe: bilstm, change: {training.clip: 2.0}}\n"
    )
    made = suites.changed(read(tmp_path, models), {"data": [str(small_folder)]})
    for key in ("training.epochs", "training"):
        with pytest.raises(MerZooError, match=rf"-o {key}: the grid of 'A, epochs=1' sets it"):
            suites.experiments(made, changes=[f"{key}=1" if "." in key else f"{key}={{epochs: 1}}"])
    made = suites.changed(read(tmp_path, "  A: bilstm\n" + models.splitlines()[1]), {"data": [str(small_folder)]})
    with pytest.raises(MerZooError, match=r"-o training.clip makes it the same model as A"):
        suites.experiments(made, changes=["training.clip=1"])
    assert len(suites.experiments(made, changes=["training.epochs=1"])) == 2


def test_the_same_dialogues_by_two_names_are_refused(small_folder, tmp_path):
    twice = [str(small_folder), f"{small_folder}/../{small_folder.name}"]
    made = suites.changed(read(tmp_path, "  A: majority\n"), {"data": twice})
    with pytest.raises(MerZooError, match=r"--data\.1: the same dialogues as"):
        suites.experiments(made)


def test_a_baseline_that_is_not_compared_is_named_with_its_place(capsys, small_folder, tmp_path):
    read(tmp_path, "  A: bilstm\n  B: majority\n", "baseline: B\n")
    command = ["compare", tmp_path / "suite.yaml", "--dry-run"]
    code, _, err = run(capsys, *command, "--models", "A")
    assert (code, err.count("\n")) == (2, 1)
    assert "suite.yaml:4:1 baseline: no model 'B' is compared. Known: A." in err
    assert "--baseline: no model 'C' is compared. Known: A, B." in run(capsys, *command, "--baseline", "C")[2]
    assert "--workers 0: want at least 1" in run(capsys, *command, "--workers", "0")[2]


def test_a_long_name_pushes_neither_count_nor_rate_out_of_eighty_columns(monkeypatch):
    from mer_zoo.commands import terminal

    shown = Console(record=True, width=80, force_terminal=False)
    monkeypatch.setattr(terminal, "console", lambda stderr=False: shown)
    with Bar(120, "runs") as bar:
        bar.start(120, 3)
        bar.count("2 failed so far; " + "a-name-that-says-what-a-model-is-made-of" * 3 + ", seed 2: weighted F1 0.245")
        (task,) = bar._progress.tasks
    text = shown.export_text()
    assert "4/120" in text
    assert task.fields["rate"] in text
    assert "2 failed so far" in text


def test_every_gpu_gets_a_worker_that_sees_it_alone(monkeypatch):
    from mer_zoo.comparison.workers import gpus

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert gpus({"cuda"}) == [{"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": "5"}]
    assert gpus({"cuda:1"}) == [{}]  # one GPU: in this process
    assert gpus({"cpu"}) == []


def test_a_worker_has_the_variables_it_is_given():
    variables = [{"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": "5"}]
    answers = {answer for _, answer in spread(os.getenv, ["CUDA_VISIBLE_DEVICES"] * 8, 2, variables)}
    assert answers <= {"2", "5"} != set()
