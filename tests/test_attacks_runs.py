"""Runs under attack: nothing is lost, nothing is silently wrong, and what can be known is known before training."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mer_zoo.cli import main
from mer_zoo.comparison import suite as suites
from mer_zoo.comparison.executing import Failure, Listener, execute
from mer_zoo.comparison.workers import Lost, spread
from mer_zoo.data.conversation import Dataset
from mer_zoo.errors import MerZooError
from mer_zoo.model import saving
from mer_zoo.results.result import read_results
from mer_zoo.results.writing import check_writable
from mer_zoo.training import experiment as experiments
from mer_zoo.training.experiment import prepare

QUICK = {"training.epochs": 1}
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def runs(folder, data, *, seeds=1, models=("bilstm",), change=QUICK):
    """Return the runs of a small suite."""
    plan = {"title": "t", "data": [str(data)], "models": dict(zip(models, models, strict=True)), "seeds": seeds}
    return suites.experiments(suites.checked({**plan, "change": change}))


def never(*arguments, **options):
    """Stand in for training where it must not begin."""
    raise AssertionError("training began")


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(experiments.loop, "train", never)


# -- every promised file is there and sound


@pytest.mark.attack("B1")
def test_weights_that_are_missing_or_cut_short_are_made_again(small_folder, tmp_path):
    planned = runs(tmp_path, small_folder, seeds=2)
    execute(planned, tmp_path, workers=1, keep_weights=True)
    first, second = sorted(tmp_path.glob("*.safetensors"))
    whole = second.read_bytes()
    first.unlink()
    second.write_bytes(whole[:-100])
    started = []
    execute(planned, tmp_path, workers=1, keep_weights=True, listener=Listener(lambda *counts: started.append(counts)))
    assert started == [(2, 0)]
    assert second.read_bytes()[-100:] == whole[-100:]
    assert first.exists()


def test_weights_of_another_run_do_not_count(small_folder, tmp_path):
    planned = runs(tmp_path, small_folder, seeds=2)
    execute(planned, tmp_path, workers=1, keep_weights=True)
    first, second = sorted(tmp_path.glob("*.safetensors"))
    first.write_bytes(second.read_bytes())
    started = []
    execute(planned, tmp_path, workers=1, keep_weights=True, listener=Listener(lambda *counts: started.append(counts)))
    assert started == [(2, 1)]


@pytest.mark.attack("B1")
def test_no_result_vouches_for_weights_that_could_not_be_written(small_folder, tmp_path, monkeypatch):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mer_zoo.results.writing.os.fsync", full)
    _, (failure,) = execute(runs(tmp_path, small_folder), tmp_path, workers=1, keep_weights=True)
    assert "cannot be written" in failure.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.attack("D17")
def test_damaged_results_are_set_aside_and_said_once(small_folder, tmp_path):
    planned = runs(tmp_path, small_folder)
    execute(planned, tmp_path, workers=1)
    (path,) = tmp_path.glob("*.result.json")
    whole = json.loads(path.read_text())
    path.write_text(path.read_text()[:1000])
    said = []
    for _ in range(2):
        execute(planned, tmp_path, workers=1, listener=Listener(damaged=said.append))
    assert len(said) == 1
    assert f"It is now called {path.name}.damaged" in said[0]
    assert path.with_name(f"{path.name}.damaged").exists()
    assert json.loads(path.read_text())["predictions"] == whole["predictions"]


def test_results_of_another_version_are_left_alone(small_folder, tmp_path):
    (tmp_path / "new.result.json").write_text('{"format": 99}')
    said = []
    execute(runs(tmp_path, small_folder), tmp_path, workers=1, listener=Listener(damaged=said.append))
    assert len(said) == 1
    assert (tmp_path / "new.result.json").exists()


@pytest.mark.attack("B2")
def test_why_a_run_failed_is_said_even_if_the_table_cannot_be_written(small_folder, tmp_path, capsys, monkeypatch):
    suite = tmp_path / "s.yaml"
    suite.write_text(
        f"title: t\ndata: [{small_folder}]\nseeds: 1\nchange: {{training.epochs: 1}}\n"
        "models:\n  fine: bilstm\n  broken: {recipe: bilstm, change: {training.learning_rate: 1.0e+38}}\n"
    )

    def full(*arguments):
        raise MerZooError("summary.csv: cannot be written (No space left on device).")

    monkeypatch.setattr("mer_zoo.comparison.summary.write_csv", full)
    code = main(["compare", str(suite), "--output", str(tmp_path / "runs"), "--workers", "1"])
    said = capsys.readouterr().err
    assert code == 2
    assert "broken, seed 0" in said
    assert "Lower `training.learning_rate`" in said
    assert "summary.csv: cannot be written" in said


def test_two_names_of_one_model_are_one_run(small_folder, tmp_path):
    plan = {"title": "t", "data": [str(small_folder)], "models": {"A": "bilstm", "B": "bilstm"}, "seeds": 1}
    heard = []
    planned = suites.experiments(suites.checked({**plan, "change": QUICK}))
    results, _ = execute(planned, tmp_path, workers=1, listener=Listener(run=heard.append))
    assert [result.recipe_name for result in results] == ["A", "B"]
    assert len(heard) == 1


# -- a diverged model is never kept


@pytest.mark.parametrize("rate", ["1.0e+38", "1.0e+30"])
@pytest.mark.attack("B4")
def test_a_diverged_run_keeps_nothing(small_folder, tmp_path, capsys, rate):
    arguments = ["train", "bilstm", "--data", str(small_folder), "--output", str(tmp_path)]
    assert main([*arguments, "-o", "training.epochs=2", "-o", f"training.learning_rate={rate}"]) == 2
    assert "epoch 0" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.attack("B4")
def test_a_suite_whose_baseline_diverges_still_has_its_table(small_folder, tmp_path, capsys):
    (tmp_path / "suite.yaml").write_text(
        f"title: t\ndata: ['{small_folder}']\nseeds: 1\nbaseline: wild\nmodels:\n  fine: majority\n"
        "  wild: {recipe: bilstm, change: {training.epochs: 2, training.learning_rate: 1.0e+30}}\n"
    )
    assert main(["compare", str(tmp_path / "suite.yaml"), "--output", str(tmp_path / "out"), "--workers", "1"]) == 1
    assert "wild" in capsys.readouterr().out
    assert re.search(r"\| wild \| failed .*\| 0 of 1 \|", (tmp_path / "out" / "summary.md").read_text())
    assert "Careful: wild failed in 1 run;" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.attack("B4")
def test_weights_that_are_not_finite_are_refused(small_folder, tmp_path, capsys):
    arguments = ["--data", str(small_folder)]
    assert main(["train", "bilstm", *arguments, "--output", str(tmp_path), "-o", "training.epochs=1"]) == 0
    (path,) = tmp_path.glob("*.safetensors")
    saved = saving.load(path)
    with torch.no_grad():
        next(saved.model.parameters()).fill_(float("nan"))
    saving.save(saved, path)
    for command in ("evaluate", "predict"):
        assert main([command, str(path), *arguments]) == 2
        assert "not finite" in capsys.readouterr().err


# -- what can be known is known before training


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.attack("B5")
def test_a_split_without_labels_is_refused_first(small, part):
    hidden = [
        dataclasses.replace(one, labels=np.full(len(one), -1)) if one.id in small.splits[part] else one for one in small
    ]
    data = Dataset("hidden", tuple(hidden), small.label_names, small.splits)
    with pytest.raises(MerZooError, match=r"no (training|validation|test) utterance has a label"):
        prepare("bilstm", data)


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("where", ["a file", "below a file", "a long name"])
@pytest.mark.attack("B6")
def test_an_output_that_cannot_be_written_is_refused_first(small_folder, tmp_path, capsys, where):
    file = tmp_path / "file"
    file.write_text("mine")
    output = {"a file": file, "below a file": file / "runs", "a long name": tmp_path / ("x" * 300)}[where]
    for command in (["train", "bilstm"], ["compare", "context", "--models", "BiLSTM"]):
        assert main([*command, "--data", str(small_folder), "--output", str(output)]) == 2
        assert "cannot be written" in capsys.readouterr().err
    assert file.read_text() == "mine"


def test_probing_leaves_nothing_behind(tmp_path):
    check_writable(tmp_path / "runs")
    assert list((tmp_path / "runs").iterdir()) == []


def test_names_of_any_length_make_files_that_a_disk_can_hold(small_folder, tmp_path):
    plan = {"title": "t", "data": [str(small_folder)], "models": {"字" * 200: "bilstm"}, "seeds": 1}
    results, failures = execute(suites.experiments(suites.checked({**plan, "change": QUICK})), tmp_path, workers=1)
    assert not failures
    assert len(results) == len(read_results(tmp_path)) == 1


@pytest.mark.parametrize("seed", [-1, 2**32, 2**70])
@pytest.mark.attack("C1")
def test_a_seed_out_of_range(small, seed):
    with pytest.raises(MerZooError, match="want a whole number from 0 to 4294967295"):
        prepare("bilstm", small, seed=seed)


@pytest.mark.parametrize("device", ["meta", "mps", "xpu", "gpu", "cuda:99", "cuda:-1", "cpu:1"])
@pytest.mark.attack("C3")
def test_a_device_that_cannot_be_used(small, device):
    with pytest.raises(MerZooError, match=f"device '{device}'"):
        prepare("bilstm", small, device=device)


def test_a_fold_of_data_without_folds_is_refused(small):
    with pytest.raises(MerZooError, match="has no folds, but the splits train, validation, test"):
        prepare("bilstm", small, fold=0)


def test_the_first_fold_of_data_with_folds_is_the_default(small):
    folded = Dataset("folded", small.conversations, small.label_names, {"all": tuple(one.id for one in small)})
    assert prepare("bilstm", folded).fold == 0
    assert prepare("bilstm", folded, fold=2).fold == 2


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize("workers", [0, -1])
@pytest.mark.attack("C28")
def test_workers_that_are_none(small_folder, tmp_path, workers):
    with pytest.raises(MerZooError, match="want at least 1"):
        execute(runs(tmp_path, small_folder), tmp_path / "runs", workers=workers)


# -- processes


def survives_at_second_try(folder):
    """Kill the worker at the first try."""
    if not (marker := Path(folder) / "tried").exists():
        marker.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def always_killed(job):
    """Kill the worker for one job."""
    if job == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    return job


@POSIX
@pytest.mark.attack("B8")
def test_a_lost_worker_is_replaced_and_its_job_tried_again(tmp_path):
    assert list(spread(survives_at_second_try, [str(tmp_path)], 2)) == [(str(tmp_path), "done")]


@POSIX
def test_a_job_that_kills_every_worker_is_lost_alone():
    answers = dict(spread(always_killed, ["a", "deadly", "b", "c"], 2))
    assert isinstance(answers.pop("deadly"), Lost)
    assert answers == {"a": "a", "b": "b", "c": "c"}


KILLER = """
import os, signal, torch
from torch import nn


class Killer(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_width = width

    def forward(self, x, dialogues):
        if self.training:  # the assembly tries it in evaluation mode
            os.kill(os.getpid(), signal.SIGKILL)
        return x
"""


@POSIX
@pytest.mark.attack("B8")
def test_a_model_that_kills_its_worker_costs_its_run_alone(small_folder, tmp_path):
    (tmp_path / "killer.py").write_text(KILLER)
    deadly = {"recipe": "bilstm", "change": {"model.context.encoder": f"{tmp_path}/killer.py:Killer"}}
    plan = {"title": "t", "data": [str(small_folder)], "models": {"deadly": deadly, "fine": "bilstm"}, "seeds": 1}
    planned = suites.experiments(suites.checked({**plan, "change": QUICK}))
    results, (failure,) = execute(planned, tmp_path / "runs", workers=2)
    assert [result.recipe_name for result in results] == ["fine"]
    assert failure.experiment.name == "deadly"
    assert "its process was killed, 2 times" in failure.message


PARENT = """
import os, signal, sys, time
from mer_zoo.comparison.workers import spread

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that starts tests in its background has it ignored
sys.path.insert(0, {tests!r})
from test_attacks_runs import sleep_long

for _ in spread(sleep_long, [{folder!r}] * 2, 2):
    pass
"""


def sleep_long(folder):
    """Say who is at work, and stay there."""
    (Path(folder) / str(os.getpid())).write_text("")
    time.sleep(120)


@POSIX
@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL", "SIGINT"])
@pytest.mark.attack("B7")
def test_workers_end_with_their_parent(tmp_path, how):
    command = PARENT.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    parent = subprocess.Popen([sys.executable, "-c", command], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 90
    while len(list(tmp_path.iterdir())) < 2:
        assert time.monotonic() < deadline, "no worker began"
        assert parent.poll() is None
        time.sleep(0.1)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    parent.send_signal(getattr(signal, how))
    parent.wait(timeout=60)
    deadline = time.monotonic() + 60  # they would sleep two minutes
    while any(map(alive, workers)):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.1)


def alive(process):
    """Whether a process is at work."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


# -- a part of the user's own

RAISING = """
from torch import nn


class Mine(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.out_width = width

    def forward(self, x, dialogues):
        if self.training:
            return {}["lost"]
        return x
"""


@pytest.fixture
def own(tmp_path):
    (tmp_path / "mine.py").write_text(RAISING)
    return f"model.context.encoder={tmp_path}/mine.py:Mine"


@pytest.mark.attack("C25")
def test_a_part_that_raises_in_training_is_named_with_file_and_line(small_folder, tmp_path, capsys, own):
    arguments = ["train", "bilstm", "--data", str(small_folder), "--output", str(tmp_path / "runs"), "-o", own]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "model.context: encoder/" in said
    assert "KeyError: 'lost'" in said
    assert "mine.py:12)" in said
    assert "Traceback" not in said
    assert "report" not in said
    assert main([*arguments, "--traceback"]) == 2
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert 'return {}["lost"]' in said


@pytest.mark.attack("C25")
def test_and_so_it_is_in_a_suite(small_folder, tmp_path, capsys, own):
    command = ["compare", "context", "--models", "BiLSTM", "--data", str(small_folder), "--workers", "1", "-o", own]
    command += ["--seeds", "1", "--output", str(tmp_path / "runs")]
    assert main(command) == 1
    said = "".join(capsys.readouterr())
    assert "KeyError: 'lost'" in said
    assert "mine.py:12)" in said
    assert "report it" not in said
    assert "Traceback" not in said
    assert main([*command, "--traceback"]) == 1
    assert "Traceback" in "".join(capsys.readouterr())


def test_progress_of_stacked_seeds_has_the_seed(small_folder, tmp_path):
    planned = runs(tmp_path, small_folder, seeds=2)
    stacked = [
        dataclasses.replace(one, options=dataclasses.replace(one.options, stack=True, capture=False)) for one in planned
    ]
    heard = []
    execute(stacked, tmp_path, workers=1, listener=Listener(epoch=lambda _, record: heard.append(record["seed"])))
    assert heard == [0, 1]


def test_a_failure_keeps_its_traceback_out_of_its_message(small_folder, tmp_path, monkeypatch):
    def broken(*arguments, **options):
        raise RuntimeError("odd")

    monkeypatch.setattr(experiments.loop, "train", broken)
    _, (failure,) = execute(runs(tmp_path, small_folder), tmp_path, workers=1)
    assert isinstance(failure, Failure)
    assert failure.message.startswith("unexpected RuntimeError: odd")
    assert "\n" not in failure.message
    assert "Traceback" in failure.traceback


DAMAGED = {
    "no description": lambda told: None,
    "not JSON": lambda told: "{",
    "too deep": lambda told: "[" * 100_000,
    "a list": lambda told: "[1]",
    "no facts": lambda told: {**told, "facts": {}},
    "odd facts": lambda told: {**told, "facts": 5},
    "other widths": lambda told: {**told, "facts": {**told["facts"], "widths": {"text": 9}}},
    "a billion classes": lambda told: {**told, "facts": {**told["facts"], "classes": 10**9}},
    "no classes": lambda told: {**told, "label_names": []},
    "classes that are no names": lambda told: {**told, "label_names": [1, None]},
    "an odd fold": lambda told: {**told, "fold": "first"},
    "an odd plan": lambda told: {**told, "filled": {**told["filled"], "model": {"a": {}}}},
    "an empty stage": lambda told: {**told, "filled": {**told["filled"], "model": {"": {"encoder": "norm"}}}},
    "an unknown part": lambda told: {**told, "filled": {**told["filled"], "loss": {"name": "nowhere"}}},
}


@pytest.fixture(scope="module")
def kept(small_folder, tmp_path_factory):
    """Return the file of a trained model, its weights and its description."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    folder = tmp_path_factory.mktemp("kept")
    experiment = prepare("bilstm", str(small_folder), changes=QUICK)
    experiments.keep(experiment, experiment.run(), folder, weights=True)
    (path,) = folder.glob("*.safetensors")
    with safe_open(path, framework="pt") as file:
        return path, load_file(path), json.loads(file.metadata()["model"])


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.attack("C16")
def test_a_model_file_whose_description_is_damaged(kept, tmp_path, damage):
    from safetensors.torch import save_file

    _, weights, told = kept
    said = DAMAGED[damage](told)
    said = {} if said is None else {"model": said if isinstance(said, str) else json.dumps(said)}
    save_file(weights, tmp_path / "m.safetensors", metadata={"mer_zoo": saving.FORMAT, **said})
    with pytest.raises(MerZooError, match=r"is damaged|no loss named"):
        saving.load(tmp_path / "m.safetensors")


@pytest.mark.attack("C22")
def test_a_dgl_that_does_not_import_is_named(small_folder, tmp_path):
    (tmp_path / "dgl").mkdir()
    (tmp_path / "dgl/__init__.py").write_text("raise OSError('libtorch.so: cannot open')\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-m", "mer_zoo", "train", "mmgcn", "--data", str(small_folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert "does not import: OSError: libtorch.so: cannot open. `mer-zoo doctor`" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("other", [{"protocol": "test-oracle"}, {"split": {"validation": "last"}}])
@pytest.mark.attack("B3")
def test_a_folder_of_one_protocol_never_serves_another(small_folder, tmp_path, other):
    plan = {"title": "t", "data": [str(small_folder)], "models": {"a": "bilstm"}, "seeds": 1, "change": QUICK}
    there = []
    listener = Listener(start=lambda total, done: there.append(done))
    for wanted in (plan, plan, plan | other, plan | other):
        results, failures = execute(
            suites.experiments(suites.checked(wanted)), tmp_path / "runs", workers=1, listener=listener
        )
        assert failures == []
        assert results[0].protocol == wanted.get("protocol", "validation")
    assert there == [0, 1, 0, 1]
